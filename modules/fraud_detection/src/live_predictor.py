"""A model version, awake, with a past: raw transactions in, decisions and reasons out, one answer at a time."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mlops.contract import Answer, Explanation, Labelled, Request
from mlops.errors import Damaged
from mlops.storage.online import Layout, Logs, Memory
from modules.fraud_detection.src.explainability.shap_explainer import Explainer
from modules.fraud_detection.src.features.online_features import Built, OnlineFeatures, layout
from modules.fraud_detection.src.features.past import Past
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.predictor import decide
from modules.fraud_detection.src.validation.requests import Requests

Value = float | str | None
Make = Callable[[Logs], OnlineFeatures]

encode = msgspec.json.Encoder().encode


class LivePredictor:
    """Reads, decides, explains and learns with one artifact."""

    def __init__(self, artifact: Artifact, past_of: Callable[[Layout, Make], Past]) -> None:
        card = artifact.card
        self.artifact, self.layout = artifact, layout(card.dataset, card.features)
        self._requests = Requests(card.dataset, card.validation, card.transform)
        self._past = past_of(self.layout, self._make)
        self._explainer = Explainer(artifact)
        self._id, self._time = card.dataset.id_column, card.dataset.time.column

    @property
    def past(self) -> str:
        """Name what is remembered."""
        return self.layout.name

    @property
    def hash(self) -> str:
        """The hash of what it woke from."""
        return self.artifact.hash

    @property
    def names(self) -> Sequence[str]:
        """Name what the model sees, in order."""
        return self.artifact.card.encoder.features

    @property
    def request(self) -> type[msgspec.Struct]:
        """What a request is."""
        return self._requests.type

    def read(self, body: bytes | msgspec.Raw, now: int) -> Request:
        """Read a request. Raises `Refused`, which names the field."""
        row = self._requests.read(body, now)
        digest = hashlib.blake2b(encode(row), digest_size=16).hexdigest()
        return Request(row[self._id], digest, row)

    async def predict(self, requests: Sequence[Request], keep: bool = True) -> list[Answer]:
        """Decide requests in order, each with the ones before it in its past; without `keep` they leave no trace."""
        return self._answers(await self._past.build([request.row for request in requests], keep))

    async def forget(self, requests: Sequence[Request]) -> None:
        """Take requests out of the past again."""
        await self._past.forget([request.row for request in requests])

    async def learn(self, labelled: Labelled) -> None:
        """Count the last of the facts from when it was known."""
        await self._past.learn(labelled.row, labelled.facts)

    async def restore(self, decided: Sequence[Mapping[str, Any]]) -> None:
        """Make sure that decided rows are in the past."""
        await self._past.restore(decided, [])

    async def bring_back(self) -> None:
        """Fill the past from what the version was trained on and from the journal."""
        await self._past.bring_back()

    async def catch_up(self) -> None:
        """Take into the past what the journal got while another past was used."""
        await self._past.catch_up()

    def happened(self, row: Mapping[str, Any]) -> int:
        """When a transaction took place, in microseconds since 1970."""
        return int(row[self._time])

    def explain(self, seen: Sequence[Value], top: int | None = None) -> Explanation:
        """Explain what was seen; the strongest `top` contributions, or all."""
        explained = self._explainer.explain(self._matrix(seen)[0])
        values = dict(zip(self.names, seen, strict=True))
        reasons = self._explainer.reasons(values, explained, len(self.names) if top is None else top)
        return Explanation(explained.base, [vars(reason) for reason in reasons], explained.margin)

    async def warm_up(self) -> None:
        """Score the canned transaction with an empty past. Raises `Damaged` when its score is not the manifest's."""
        canned = self.artifact.canned
        row = self._requests.read(json.dumps(canned.transaction).encode(), _end_of_time())
        answer = self._answers(await self._make(Memory(self.layout)).build([row]))[0]
        score = answer.said["fraud_probability"]
        if score != canned.score:
            raise Damaged(f"the canned transaction scores {score} here and {canned.score} where it was trained")
        self.explain(answer.seen)

    def _make(self, logs: Logs) -> OnlineFeatures:
        return OnlineFeatures(self.artifact.card.dataset, self.artifact.card.features, self.layout, logs)

    def _answers(self, built: Built) -> list[Answer]:
        matrix = self.artifact.card.encoder.of_values(built.values, built.texts)
        scores = self.artifact.probability(matrix).tolist()
        thresholds = self.artifact.card.thresholds
        seen: list[list[Value]] = built.values.tolist()
        for name, texts in built.texts.items():
            place = self.names.index(name)
            for row, text in zip(seen, texts, strict=True):
                row[place] = text
        return [
            Answer({"fraud_probability": score, "decision": decide(score, thresholds)}, values, cut)
            for score, values, cut in zip(scores, seen, built.cut, strict=True)
        ]

    def _matrix(self, seen: Sequence[Value]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        levels = self.artifact.card.encoder.levels
        numbers = [math.nan if value is None or isinstance(value, str) else value for value in seen]
        texts = {
            name: [value if isinstance(value, str) else None]
            for name, value in zip(self.names, seen, strict=True)
            if name in levels
        }
        return self.artifact.card.encoder.of_values(np.array([numbers]), texts)


def wake(folder: Path, past_of: Callable[[Layout, Make], Past]) -> LivePredictor:
    """Wake the version in `folder`. Raises `Damaged` when its files are not what was written."""
    return LivePredictor(Artifact.open(folder), past_of)


def _end_of_time() -> int:
    return int(datetime.max.timestamp()) * 1_000_000
