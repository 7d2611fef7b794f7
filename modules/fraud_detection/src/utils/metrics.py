"""Metrics as pure functions of scores and labels. Scores and labels are arrays (rows,); labels are 0 or 1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Callable[["Ranking", Floats], float]


@dataclass(frozen=True)
class Ranking:
    """Labels from the highest score down, and the last place of each run of equal scores: all that a curve needs."""

    order: Ints
    labels: Floats
    ends: Ints

    @classmethod
    def of(cls, scores: Floats, labels: Ints) -> "Ranking":
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        return cls(order, labels[order].astype(np.float64), ends)

    def curve(self, weights: Floats) -> tuple[Floats, Floats]:
        """Count true and false positives at each distinct score, from the highest down."""
        ranked = weights[self.order]
        true = np.cumsum(ranked * self.labels)[self.ends]
        return true, np.cumsum(ranked)[self.ends] - true


def average_precision(ranking: Ranking, weights: Floats) -> float:
    """The sum over distinct scores of precision times the gain in recall, as scikit-learn defines it."""
    true, false = ranking.curve(weights)
    gains = np.diff(true, prepend=0.0)
    return float(np.sum(gains * true / np.maximum(true + false, 1e-12)) / true[-1])


def roc_auc(ranking: Ranking, weights: Floats) -> float:
    """The area under the ROC curve, ties counted half."""
    true, false = ranking.curve(weights)
    heights = (true + np.concatenate([[0.0], true[:-1]])) / 2
    return float(np.sum(heights * np.diff(false, prepend=0.0)) / (true[-1] * false[-1]))


def recall_at_fpr(ranking: Ranking, weights: Floats, limit: float = 0.01) -> float:
    """The largest recall whose false-positive rate is at most `limit`."""
    true, false = ranking.curve(weights)
    within = false <= limit * false[-1] + 1e-9
    return float(true[within].max(initial=0.0) / true[-1])


def interval(
    value: Callable[[Floats], float], labels: Ints, groups: Ints, resamples: int, seed: int
) -> tuple[float, float]:
    """The 95 % interval of a value of weights (rows,) when whole groups (customers) are drawn anew, with replacement.

    Source: Field and Welsh, Bootstrapping clustered data (2007): rows of one customer are not independent.
    """
    draw, number = np.random.default_rng(seed), int(groups.max()) + 1
    values = []
    for _ in range(resamples):
        times = np.bincount(draw.integers(0, number, number), minlength=number)
        weights = times[groups].astype(np.float64)
        if 0 < np.sum(weights * labels) < weights.sum():
            values.append(value(weights))
    low, high = np.quantile(values, [0.025, 0.975]) if values else (np.nan, np.nan)
    return float(low), float(high)


def brier(scores: Floats, labels: Ints) -> float:
    """The mean squared distance of score and label."""
    return float(np.mean((scores - labels) ** 2))


def reliability(scores: Floats, labels: Ints, bins: int = 10) -> pl.DataFrame:
    """In bins of equally many rows, lowest scores first: rows, mean score, share of fraud."""
    table = pl.DataFrame({"score": scores, "label": labels}).sort("score", maintain_order=True).with_row_index()
    table = table.with_columns((pl.col("index").cast(pl.Int64) * bins // table.height).alias("bin"))
    return (
        table.group_by("bin").agg(pl.len().alias("rows"), pl.mean("score"), pl.mean("label").alias("fraud")).sort("bin")
    )


def calibration_error(scores: Floats, labels: Ints) -> float:
    """The expected calibration error: the mean distance of score and share of fraud over equally full bins."""
    bins = reliability(scores, labels)
    distance = (bins["score"] - bins["fraud"]).abs() * bins["rows"]
    return float(distance.sum()) / len(scores)


def precision_at(k: int, days: Ints, entities: Ints, scores: Floats, labels: Ints) -> float:
    """Card precision at k: the share of compromised among the k highest-scored entities of a day; the mean over days.

    An entity counts once a day, with its highest score, and no more after the day on which it was found. Source:
    Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection (2022), chapter 4.
    """
    table = pl.DataFrame({"day": days, "entity": entities, "score": scores, "label": labels})
    daily = table.group_by("day", "entity").agg(pl.max("score"), pl.max("label")).sort("day", "entity")
    found: pl.Series = pl.Series([], dtype=daily.schema["entity"])
    shares = []
    for _, day in daily.group_by("day", maintain_order=True):
        open_cases = day.filter(~pl.col("entity").is_in(found.implode()))
        top = open_cases.sort("score", descending=True, maintain_order=True).head(k)
        hits = top.filter(pl.col("label") == 1)["entity"]
        found = found.append(hits)
        shares.append(hits.len() / k)
    return float(np.mean(shares))


def cost(flagged: NDArray[np.bool_], labels: Ints, losses: Floats, review: float) -> float:
    """What a decision costs per 1,000 transactions: a review for each flagged one, the loss of each fraud let through.

    `losses` (rows,) is the money lost if the row is a fraud that passes; `review` is in the same money.
    """
    total = review * flagged.sum() + np.sum(losses * (labels == 1) * ~flagged)
    return float(1_000 * total / len(labels))
