"""Why a score is what it is: exact SHAP values, for tables and for one row at a time, and reasons in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modules.fraud_detection.src.explainability.reasons import Reason, Words, strongest
from modules.fraud_detection.src.explainability.sentences import Value
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.base_model import Floats


@dataclass(frozen=True)
class Explanation:
    """The contributions (rows, features) of each feature to the log odds, and the base value (rows,) below them."""

    features: tuple[str, ...]
    base: Floats
    contributions: Floats

    @property
    def margins(self) -> Floats:
        """The log odds: base value and contributions added up. Shape (rows,)."""
        margins: Floats = self.base + self.contributions.sum(axis=1)
        return margins

    def importance(self) -> pl.DataFrame:
        """The mean absolute contribution of each feature, largest first."""
        table = pl.DataFrame({"feature": self.features, "mean_abs_shap": abs(self.contributions).mean(axis=0)})
        return table.sort("mean_abs_shap", "feature", descending=[True, False])


@dataclass(frozen=True)
class Explained:
    """One score taken apart, in log odds: `margin` is `base` and all contributions, added up exactly."""

    base: float
    contributions: tuple[float, ...]
    margin: float


class Explainer:
    """Explains single rows with one artifact; everything that can be made ready is made ready once."""

    def __init__(self, artifact: Artifact) -> None:
        card = artifact.card
        usual = {name: portrait["mean"] for name, portrait in artifact.profile.items() if "mean" in portrait}
        self._model, self._encoder = artifact.model, card.encoder
        self._words = Words(card.features, card.dataset, usual)
        # Each column of the matrix, and the base value, alone: where its contribution comes out is whose it is.
        self._owners: list[int] = self._encoder.of_features(np.eye(len(self._encoder.columns) + 1)).argmax(1).tolist()

    def explain(self, row: NDArray[np.float32]) -> Explained:
        """Explain one row as the model sees it. Shape (columns,). The same row gives the same bits every time."""
        found = [0.0] * (len(self._encoder.features) + 1)
        for owner, part in zip(self._owners, self._model.explain(row.reshape(1, -1))[0].tolist(), strict=True):
            found[owner] += part
        return Explained(found[-1], tuple(found[:-1]), math.fsum(found))

    def reasons(self, values: Mapping[str, Value], explained: Explained, top: int = 3) -> list[Reason]:
        """Give the `top` features that moved the score most, strongest first, in words."""
        names = self._encoder.features
        return [
            self._words.reason(names[place], values, explained.contributions[place])
            for place in strongest(explained.contributions, top)
        ]


def explain(artifact: Artifact, table: pl.DataFrame) -> Explanation:
    """Explain every row of a table of features. For each row, base and contributions sum to the model's log odds."""
    encoder = artifact.card.encoder
    found = encoder.of_features(artifact.model.explain(encoder.encode(table)))
    return Explanation(encoder.features, found[:, -1], found[:, :-1])


def reasons(artifact: Artifact, table: pl.DataFrame, top: int = 3) -> list[list[Reason]]:
    """Give, for each row, the `top` features that moved its score most, strongest first, in words."""
    explainer, encoder = Explainer(artifact), artifact.card.encoder
    rows = zip(table.select(encoder.features).iter_rows(named=True), encoder.encode(table), strict=True)
    return [explainer.reasons(values, explainer.explain(row), top) for values, row in rows]
