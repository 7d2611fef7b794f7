"""A model version over tables: rows of features in, decisions and reasons out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import polars as pl

from modules.fraud_detection.src.explainability import shap_explainer
from modules.fraud_detection.src.explainability.reasons import Reason
from modules.fraud_detection.src.models.artifact import Artifact, Thresholds

Decision = Literal["approve", "review", "decline"]


@dataclass(frozen=True)
class Answer:
    """What is said of one transaction."""

    fraud_probability: float
    decision: Decision


@dataclass(frozen=True)
class Predictor:
    """Scores and explains with one artifact."""

    artifact: Artifact

    @classmethod
    def wake(cls, folder: Path) -> Self:
        """Wake the version in `folder`. Raises `Damaged` when its files are not what was written."""
        return cls(Artifact.open(folder))

    def predict(self, features: pl.DataFrame) -> list[Answer]:
        """Score and decide every row of a table of features; the order of the rows changes no answer."""
        scores = self.artifact.probability(self.artifact.card.encoder.encode(features)).tolist()
        return [Answer(score, decide(score, self.artifact.card.thresholds)) for score in scores]

    def explain(self, features: pl.DataFrame, top: int = 3) -> Sequence[Sequence[Reason]]:
        """Give the `top` reasons of every row, strongest first."""
        return shap_explainer.reasons(self.artifact, features, top)


def decide(score: float, thresholds: Thresholds) -> Decision:
    """Turn a score into a decision: each threshold belongs to what it begins."""
    if score >= thresholds.decline:
        return "decline"
    return "review" if score >= thresholds.review else "approve"
