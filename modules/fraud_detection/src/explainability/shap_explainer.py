"""Why a score is what it is: exact SHAP values per feature, and reasons in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from modules.fraud_detection.src.features.declaration import Declaration, gap_name
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.base_model import Floats

AGGREGATES = {
    "count": "number of {of}",
    "sum": "sum of {of}",
    "mean": "mean {of}",
    "min": "smallest {of}",
    "max": "largest {of}",
    "distinct": "number of different {of}",
    "share": "known share of {of}",
}


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
class Reason:
    """One feature's part in one score."""

    feature: str
    value: Any
    contribution: float
    text: str


def explain(artifact: Artifact, table: pl.DataFrame) -> Explanation:
    """Explain every row of a table of features. For each row, base and contributions sum to the model's log odds."""
    encoder = artifact.card.encoder
    found = encoder.of_features(artifact.model.explain(encoder.encode(table)))
    return Explanation(encoder.features, found[:, -1], found[:, :-1])


def reasons(artifact: Artifact, table: pl.DataFrame, top: int = 3) -> list[list[Reason]]:
    """Give, for each row, the `top` features that moved its score most, strongest first, in words."""
    explanation = explain(artifact, table)
    phrases = words(artifact.card.features)
    found = []
    for row, contributions in zip(table.iter_rows(named=True), explanation.contributions, strict=True):
        strongest = sorted(zip(explanation.features, contributions, strict=True), key=lambda pair: -abs(pair[1]))
        found.append(
            [_reason(name, row[name], float(part), phrases, artifact.profile) for name, part in strongest[:top]]
        )
    return found


def words(declaration: Declaration) -> dict[str, str]:
    """Say each windowed feature in plain words: `mean amount of this customer_id over 7d`."""
    phrases = {gap_name(entity): f"seconds since the last transaction of this {entity}" for entity in declaration.gaps}
    for window in declaration.windows:
        past = "" if window.delay == "0s" else f", {window.delay} ago"
        for length in window.lengths:
            for aggregate in window.aggregates:
                said = AGGREGATES[aggregate].format(of=window.of)
                phrases[window.name(aggregate, length)] = f"{said} of this {window.entity} over {length}{past}"
    return phrases


def _reason(name: str, value: Any, part: float, phrases: Mapping[str, str], profile: Mapping[str, Any]) -> Reason:
    usual = profile.get(name, {}).get("mean")
    compared = f" (on average {_short(usual)})" if usual is not None else ""
    direction = "raises" if part > 0 else "lowers"
    text = f"{phrases.get(name, name)} is {_short(value)}{compared}: {direction} the risk"
    return Reason(name, value, part, text[0].upper() + text[1:])


def _short(value: Any) -> str:
    if value is None:
        return "empty"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1_000 else str(value)
