"""A trained model as a folder of data files, each checked by its hash before anything reads it."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import ValidationError

from mlops.errors import Damaged, MlopsError
from mlops.storage import manifest
from mlops.storage.objects import translated
from mlops.values import Group
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features.declaration import Declaration
from modules.fraud_detection.src.models import base_model
from modules.fraud_detection.src.models.base_model import BaseModel, Floats, Matrix
from modules.fraud_detection.src.models.encoder import Encoder
from modules.fraud_detection.src.validation.limits import Validation
from modules.fraud_detection.src.validation.transform import Step

if TYPE_CHECKING:
    import onnxruntime

ONNX, CARD, PROFILE, CANNED, REFERENCE = "model.onnx", "card.json", "profile.json", "canned.json", "reference.json"
FILES = frozenset({ONNX, CARD, PROFILE, CANNED, REFERENCE})
TOLERANCE = 1e-6


class Thresholds(Group):
    """From `review` on a person looks at the transaction; from `decline` on it is refused."""

    review: float
    decline: float


class Card(Group):
    """All that a decision needs besides the model's numbers: what was trained, on what, how input is read."""

    kind: str
    parameters: dict[str, Any]
    seed: int
    snapshot: str
    encoder: Encoder
    thresholds: Thresholds
    dataset: DataSet
    features: Declaration
    validation: Validation
    transform: tuple[Step, ...]


class Canned(Group):
    """One transaction as a request would send it, and its score with an empty past: who serves must get the same."""

    transaction: dict[str, Any]
    score: float


@dataclass(frozen=True)
class Artifact:
    """A model, awake: its card, the portrait of its training data, a canned transaction, and the two ways to ask it."""

    card: Card
    profile: Mapping[str, Any]
    canned: Canned
    hash: str
    model: BaseModel
    session: "onnxruntime.InferenceSession"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what `write` wrote. Raises `Damaged` when a file is missing, extra bytes or changed."""
        hash_ = manifest.verified(folder, FILES)
        card_text = (folder / CARD).read_text(encoding="utf-8")
        try:
            card = Card.model_validate_json(card_text)
            canned = Canned.model_validate_json((folder / CANNED).read_bytes())
        except ValidationError as error:
            raise Damaged(
                f"{folder / CARD} is of another version of this code: {error.error_count()} fields differ"
            ) from None
        profile = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
        model = base_model.find(card.kind).load(folder)
        return cls(card, profile, canned, hash_, model, _session((folder / ONNX).read_bytes()))

    def probability(self, matrix: Matrix) -> Floats:
        """Score rows by ONNX Runtime. Shape (rows,)."""
        return _score(self.session, matrix)


def served(model: BaseModel) -> Callable[[Matrix], Floats]:
    """The scores of a model as they will be served, rounded as there: rows (rows, columns) in, scores (rows,) out."""
    return partial(_score, _session(model.to_onnx()))


def write(
    folder: Path, model: BaseModel, card: Card, profile: Mapping[str, Any], reference: bytes, sample: Matrix,
    canned: Mapping[str, Any], canned_row: Matrix,
) -> str:  # fmt: skip
    """Write the model into `folder` and return its hash, the same for the same model.

    `reference` is the page for those who watch it; `canned` is a transaction as a request would send it, `canned_row`
    (1, columns) what the model sees of it when nothing came before.

    Raises `MlopsError` when the ONNX graph and the trained model differ by more than 1e-6 on the `sample` rows: what
    serves must be what was trained.
    """
    graph = model.to_onnx()
    apart = float(np.max(np.abs(_score(_session(graph), sample) - model.predict_proba(sample)), initial=0.0))
    if apart > TOLERANCE:
        raise MlopsError(
            f"the ONNX graph of this {card.kind} model is {apart:.1e} away from it, more than {TOLERANCE:.0e}; "
            "fewer or shallower trees lose less to rounding"
        )
    score = float(_score(_session(graph), canned_row)[0])
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder)
        (folder / ONNX).write_bytes(graph)
        (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / PROFILE).write_text(json.dumps(profile, indent=1), encoding="utf-8")
        (folder / CANNED).write_text(Canned(transaction=dict(canned), score=score).model_dump_json(indent=1), "utf-8")
        (folder / REFERENCE).write_bytes(reference)
        return manifest.write(folder)


def _session(graph: bytes) -> "onnxruntime.InferenceSession":
    # It tells its maker of every session unless it is told not to before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread answers one row fastest, and adds up the trees in one order.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _score(session: "onnxruntime.InferenceSession", matrix: Matrix) -> Floats:
    scores: Floats = session.run(["probability"], {"features": matrix})[0][:, 0].astype(np.float64)
    return scores
