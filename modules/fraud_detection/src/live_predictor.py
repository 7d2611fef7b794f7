"""A model version, awake, with a past: raw transactions in, decisions and reasons out, one answer at a time."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from mlops.contract import Answer, Explanation, Labelled, Request
from mlops.errors import Damaged
from mlops.online import Layout, Logs, Memory
from modules.fraud_detection.src.explainability.shap_explainer import Explainer
from modules.fraud_detection.src.features.online_features import Built, OnlineFeatures, layout
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.predictor import decide
from modules.fraud_detection.src.validation.requests import Requests

Value = float | str | None

encode = msgspec.json.Encoder().encode


class LivePredictor:
    """Reads, decides, explains and learns with one artifact."""

    def __init__(self, artifact: Artifact, connect: Callable[[Layout], Logs]) -> None:
        card = artifact.card
        self.artifact, self.layout = artifact, layout(card.dataset, card.features)
        self._requests = Requests(card.dataset, card.validation, card.transform)
        self._features = OnlineFeatures(card.dataset, card.features, self.layout, connect(self.layout))
        self._explainer = Explainer(artifact)
        self._id, self._time = card.dataset.id_column, card.dataset.time.column

    @property
    def past(self) -> str:
        """Name what is remembered."""
        return self.layout.name

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
        return self._answers(await self._features.build([request.row for request in requests], keep))

    async def forget(self, requests: Sequence[Request]) -> None:
        """Take requests out of the past again."""
        await self._features.forget([request.row for request in requests])

    async def learn(self, labelled: Labelled) -> None:
        """Count the last of the facts from when it was known."""
        await self._features.learn(labelled.row, labelled.facts)

    async def restore(self, decided: Iterable[Mapping[str, Any]], labelled: Iterable[Labelled]) -> None:
        """Bring the past back from decisions and labels."""
        await self._features.restore(decided, ((each.row, each.facts) for each in labelled))

    async def seed(self, table: pl.DataFrame) -> None:
        """Bring the past back from the cleaned transactions that the version was trained on."""
        await self._features.seed(table)

    def happened(self, row: Mapping[str, Any]) -> int:
        """When a transaction took place, in microseconds since 1970."""
        return int(row[self._time])

    def explain(self, seen: Sequence[Value], top: int | None = None) -> Explanation:
        """Explain what was seen; the strongest `top` contributions, or all."""
        explained = self._explainer.explain(self._matrix(seen)[0])
        values = dict(zip(self.names, seen, strict=True))
        reasons = self._explainer.reasons(values, explained, len(self.names) if top is None else top)
        return Explanation(explained.base, [asdict(reason) for reason in reasons], explained.margin)

    async def warm_up(self) -> None:
        """Score the canned transaction with an empty past. Raises `Damaged` when its score is not the manifest's."""
        card, canned = self.artifact.card, self.artifact.canned
        row = self._requests.read(json.dumps(canned.transaction).encode(), _end_of_time())
        alone = OnlineFeatures(card.dataset, card.features, self.layout, Memory(self.layout))
        answer = self._answers(await alone.build([row]))[0]
        score = answer.said["fraud_probability"]
        if score != canned.score:
            raise Damaged(f"the canned transaction scores {score} here and {canned.score} where it was trained")
        self.explain(answer.seen)

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


def wake(folder: Path, connect: Callable[[Layout], Logs]) -> LivePredictor:
    """Wake the version in `folder`. Raises `Damaged` when its files are not what was written."""
    return LivePredictor(Artifact.open(folder), connect)


def _end_of_time() -> int:
    return int(datetime.max.timestamp()) * 1_000_000
