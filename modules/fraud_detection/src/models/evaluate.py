"""How good a model is: on rows later than all it has seen, in the words of those who pay for its mistakes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from mlops.values import Group
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features.declaration import LAST_HOUR_OF_NIGHT
from modules.fraud_detection.src.models import fit
from modules.fraud_detection.src.models.artifact import Thresholds
from modules.fraud_detection.src.utils import metrics
from modules.fraud_detection.src.utils.metrics import Floats, Ints, Ranking

EARLIER_ROWS = "earlier_rows"
NEWCOMER = 10
UNREACHABLE = 2.0
"""A threshold above every score, also above one that rounding has made 1."""
LARGE = 0.95


class Evaluation(Group):
    """What mistakes cost and how much people can review."""

    review_cost: float = Field(5.0, ge=0, description="What it costs to review one transaction, in the amount's money.")
    loss_share: float = Field(1.0, ge=0, description="The share of a fraud's amount that is lost when it passes.")
    loss_fixed: float = Field(100.0, ge=0, description="The loss of a fraud where the data has no amount.")
    reviews_per_day: int = Field(100, ge=1, description="How many transactions a day people can review.")
    decline_precision: float = Field(
        0.9, gt=0, le=1, description="The share of declined transactions that must be fraud."
    )
    top: int = Field(100, ge=1, description="How many entities a day card precision looks at.")
    resamples: int = Field(200, ge=1, description="How often the intervals draw customers anew.")


@dataclass(frozen=True)
class Report:
    """The result on a period: metrics by name, their 95 % intervals, calibration bins, and metrics by slice."""

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    reliability: pl.DataFrame
    slices: pl.DataFrame

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "metrics": dict(self.metrics),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "reliability": self.reliability.to_dicts(),
            "slices": self.slices.to_dicts(),
        }


def with_earlier_rows(table: pl.DataFrame, dataset: DataSet) -> pl.DataFrame:
    """Add to each row how many rows its first entity had before it, so that newcomers can be judged apart."""
    if not dataset.entities:
        return table
    order = [dataset.time.column, dataset.id_column]
    earlier = pl.int_range(pl.len()).over(dataset.entities[0], order_by=order)
    return table.with_columns(earlier.alias(EARLIER_ROWS))


def choose_thresholds(rows: pl.DataFrame, scores: Floats, dataset: DataSet, words: Evaluation) -> Thresholds:
    """Choose on validation rows the review threshold of lowest cost within capacity, and the decline threshold.

    Decline is the lowest score from which on the share of fraud reaches `decline_precision`; where none does, nothing
    is declined.
    """
    labels, losses = fit.labels(rows, dataset), _losses(rows, dataset, words)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    days = rows[dataset.time.column].dt.date().n_unique()
    within = ends[ends + 1 <= words.reviews_per_day * days]
    saved = np.cumsum(losses[order] * labels[order])[within] - words.review_cost * (within + 1)
    review = float(ranked[within[np.argmax(saved)]]) if within.size and saved.max() > 0 else UNREACHABLE
    precision = np.cumsum(labels[order])[ends] / (ends + 1)
    pure = ends[precision >= words.decline_precision]
    decline = float(ranked[pure[-1]]) if pure.size else UNREACHABLE
    return Thresholds(review=min(review, decline), decline=decline)


def costs(rows: pl.DataFrame, flagged: NDArray[np.bool_], dataset: DataSet, words: Evaluation) -> Floats:
    """What each decision cost: a review where it was flagged, the loss of a fraud that passed. NaN without a label."""
    labels = rows[dataset.label.column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.where(np.isnan(labels), np.nan, words.review_cost)
    found: Floats = np.where(flagged, known, _losses(rows, dataset, words) * labels)
    return found


def report(
    rows: pl.DataFrame, scores: Floats, thresholds: Thresholds, dataset: DataSet, words: Evaluation, seed: int
) -> Report:
    """Judge scores (rows,) against the labels of `rows`, in which both labels occur."""
    labels = fit.labels(rows, dataset)
    ranking, ones = Ranking.of(scores, labels), np.ones(len(labels))
    losses, flagged = _losses(rows, dataset, words), scores >= thresholds.review
    found = {
        "average_precision": metrics.average_precision(ranking, ones),
        "roc_auc": metrics.roc_auc(ranking, ones),
        "recall_at_1pct_fpr": metrics.recall_at_fpr(ranking, ones),
        "brier": metrics.brier(scores, labels),
        "calibration_error": metrics.calibration_error(scores, labels),
        "cost_per_1000": metrics.cost(flagged, labels, losses, words.review_cost),
        "cost_per_1000_without_model": metrics.cost(np.zeros(len(labels), bool), labels, losses, words.review_cost),
        "flagged_per_day": float(flagged.sum() / rows[dataset.time.column].dt.date().n_unique()),
        "precision_of_flagged": float(labels[flagged].mean()) if flagged.any() else 0.0,
        "recall_of_flagged": float(flagged[labels == 1].mean()),
        "rows": float(len(labels)),
        "fraud_share": float(labels.mean()),
    }
    groups = groups_of(rows, dataset)
    if dataset.entities:
        days = rows[dataset.time.column].dt.date().to_physical().to_numpy().astype(np.int64)
        found[f"card_precision_at_{words.top}"] = metrics.precision_at(words.top, days, groups, scores, labels)
    intervals = {
        name: metrics.interval(partial(metric, ranking), labels, groups, words.resamples, seed)
        for name, metric in (("average_precision", metrics.average_precision), ("roc_auc", metrics.roc_auc))
    }
    slices = [_of_slice(name, mask, scores, labels, flagged) for name, mask in parts_of(rows, dataset)]
    return Report(found, intervals, metrics.reliability(scores, labels), pl.DataFrame(slices))


def clumping(rows: pl.DataFrame, dataset: DataSet) -> float:
    """How many frauds come at a time: those of the same entity in the same week, the mean over frauds.

    Of several entities the one with the largest clumps counts. It is 1 where every fraud comes alone.
    """
    frauds = rows.filter(pl.col(dataset.label.column) == 1)
    week = pl.col(dataset.time.column).dt.truncate("1w")
    clumps = [frauds.drop_nulls(name).group_by(name, week.alias("__week")).len() for name in dataset.entities]
    sizes = [each["len"].to_numpy().astype(np.float64) for each in clumps if each.height]
    return max([float(np.sum(each**2) / np.sum(each)) for each in sizes], default=1.0)


def groups_of(rows: pl.DataFrame, dataset: DataSet) -> Ints:
    """Numbers from 0 on of what is drawn together when rows are drawn anew: each customer. Shape (rows,)."""
    return _codes(rows[dataset.entities[0]]) if dataset.entities else np.arange(rows.height)


def parts_of(rows: pl.DataFrame, dataset: DataSet) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name the parts of the rows in which a model often fails: newcomers, the night, large amounts; and all."""
    yield "all", np.ones(rows.height, bool)
    if dataset.entities:
        yield f"new {dataset.entities[0]}", (rows[EARLIER_ROWS] < NEWCOMER).to_numpy()
    yield "night", (rows[dataset.time.column].dt.hour() <= LAST_HOUR_OF_NIGHT).to_numpy()
    if dataset.amount is not None:
        amounts = rows[dataset.amount].fill_null(0.0)
        yield "large amounts", (amounts >= amounts.quantile(LARGE)).to_numpy()


def _losses(rows: pl.DataFrame, dataset: DataSet, words: Evaluation) -> Floats:
    if dataset.amount is None:
        return np.full(rows.height, words.loss_fixed)
    return rows[dataset.amount].fill_null(0.0).to_numpy() * words.loss_share


def _codes(entities: pl.Series) -> Ints:
    codes = entities.rank("dense").cast(pl.Int64) - 1
    return codes.fill_null(entities.n_unique()).rank("dense").cast(pl.Int64).to_numpy() - 1


def _of_slice(
    name: str, mask: NDArray[np.bool_], scores: Floats, labels: Ints, flagged: NDArray[np.bool_]
) -> dict[str, Any]:
    frauds = int(labels[mask].sum())
    both = 0 < frauds < mask.sum()
    ranking, ones = Ranking.of(scores[mask], labels[mask]), np.ones(int(mask.sum()))
    return {
        "slice": name,
        "rows": int(mask.sum()),
        "frauds": frauds,
        "average_precision": metrics.average_precision(ranking, ones) if both else None,
        "roc_auc": metrics.roc_auc(ranking, ones) if both else None,
        "recall_of_flagged": float(flagged[mask & (labels == 1)].mean()) if frauds else None,
    }
