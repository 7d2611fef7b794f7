"""A trained model as a folder of data files, each checked by its hash before anything reads it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from mlops.errors import Damaged, MlopsError
from mlops.storage import manifest
from mlops.storage.objects import translated
from mlops.values import Group
from modules.complaint_triage.src.features.words import Vector, Vocabulary, Words
from modules.complaint_triage.src.models import linear
from modules.complaint_triage.src.models.linear import Linear

CARD, PROFILE, CANNED, REFERENCE, ONNX = "card.json", "profile.json", "canned.json", "reference.json", "model.onnx"
FILES = frozenset({CARD, PROFILE, CANNED, REFERENCE, ONNX, linear.FILE})
TOLERANCE = 1e-6


class Card(Group):
    """All that a decision needs besides the model's numbers. From `review_from` on a doubt is looked at by a person."""

    products: tuple[str, ...]
    vocabulary: Vocabulary
    review_from: float
    longest: int
    snapshot: str
    strength: float


class Canned(Group):
    """One complaint as a request would send it, and its doubt: who serves must get the same."""

    complaint: dict[str, Any]
    doubt: float


@dataclass(frozen=True)
class Artifact:
    """A model, awake."""

    card: Card
    canned: Canned
    hash: str
    model: Linear
    words: Words

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what `write` wrote. Raises `Damaged` when a file is missing, extra bytes or changed."""
        hash_ = manifest.verified(folder, FILES)
        try:
            card = Card.model_validate_json((folder / CARD).read_bytes())
            canned = Canned.model_validate_json((folder / CANNED).read_bytes())
        except ValidationError as error:
            raise Damaged(
                f"{folder / CARD} is of another version of this code: {error.error_count()} fields differ"
            ) from None
        return cls(card, canned, hash_, Linear.load(folder), Words(card.vocabulary))


def write(
    folder: Path, model: Linear, card: Card, profile: Mapping[str, Any], reference: bytes, canned: Canned,
    sample: Sequence[Vector],
) -> str:  # fmt: skip
    """Write the model into `folder` and return its hash, the same for the same model.

    Raises `MlopsError` when the graph for other tools and the model differ by more than 1e-6 on the `sample`.
    """
    graph = model.to_onnx()
    apart = float(np.max(np.abs(_asked(graph, sample, model) - np.array([model.probabilities(one) for one in sample]))))
    if apart > TOLERANCE:
        raise MlopsError(f"the ONNX graph of this model is {apart:.1e} away from it, more than {TOLERANCE:.0e}")
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder)
        (folder / ONNX).write_bytes(graph)
        (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / PROFILE).write_text(json.dumps(profile, indent=1), encoding="utf-8")
        (folder / CANNED).write_text(canned.model_dump_json(indent=1), encoding="utf-8")
        (folder / REFERENCE).write_bytes(reference)
        return manifest.write(folder)


def _asked(graph: bytes, sample: Sequence[Vector], model: Linear) -> "np.ndarray[Any, np.dtype[np.float64]]":
    import onnxruntime

    rows = linear.matrix(sample, model.weights.shape[0]).toarray().astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probability"], {"features": rows})[0], np.float64)
