"""The gate: a candidate beside production on the same later rows; passed, or refused with reasons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from mlops.values import Group
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.models import evaluate, fit
from modules.fraud_detection.src.models.artifact import Thresholds
from modules.fraud_detection.src.models.evaluate import Evaluation
from modules.fraud_detection.src.utils import metrics
from modules.fraud_detection.src.utils.metrics import Floats, Ranking

PRECISION, SAVED = "average precision", "saved per 1,000"


class Gate(Group):
    """How much worse than production a candidate may be and still go on trial."""

    average_precision: float = Field(0.02, ge=0, description="By how much its average precision may be lower.")
    cost: float = Field(0.1, ge=0, description="By which share it may cost more at the capacity for reviews.")
    calibration: float = Field(0.005, ge=0, description="By how much its calibration error may be higher.")
    slices: float = Field(0.1, ge=0, description="By how much the average precision of a slice may be lower.")
    frauds: int = Field(20, ge=1, description="The least frauds of a slice that is compared.")
    times: float = Field(5.0, gt=0, description="How many times as long it may take for one row.")
    resamples: int = Field(200, ge=1, description="How often the intervals draw customers anew.")


@dataclass(frozen=True)
class Judged:
    """What one version says of the rows: scores (rows,), its thresholds, and its seconds for one row."""

    scores: Floats
    thresholds: Thresholds
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What was found: nothing in `reasons` means passed. Intervals are of the paired difference, 95 %."""

    reasons: tuple[str, ...]
    figures: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the candidate."""
        return not self.reasons

    @property
    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)


def compare(
    rows: pl.DataFrame, candidate: Judged, production: Judged, dataset: DataSet, evaluation: Evaluation, words: Gate,
    seed: int, must_gain: bool = False,
) -> Comparison:  # fmt: skip
    """Compare two versions on labelled rows, in which both labels occur and which have `evaluate.EARLIER_ROWS`.

    A candidate may be a little worse; one that `must_gain` has to be better for sure, in ranking or in cost.
    """
    pair = _Pair(rows, candidate, production, dataset, evaluation, words, seed)
    for look in (pair.average_precision, pair.cost, pair.calibration, pair.slices, pair.latency):
        look()
    if must_gain and max(pair.figures[f"{name}, low"] for name in (PRECISION, SAVED)) <= 0:
        pair.reasons.append("it is not better for sure")
    return Comparison(tuple(pair.reasons), pair.figures)


class _Pair:
    """Two versions on the same rows; what is found out of them gathers in `reasons` and `figures`."""

    def __init__(
        self, rows: pl.DataFrame, candidate: Judged, production: Judged, dataset: DataSet, evaluation: Evaluation,
        words: Gate, seed: int,
    ) -> None:  # fmt: skip
        self._rows, self._new, self._old, self._words, self._seed = rows, candidate, production, words, seed
        self._dataset, self._evaluation = dataset, evaluation
        self._labels = fit.labels(rows, dataset)
        self._groups = evaluate.groups_of(rows, dataset)
        self.reasons: list[str] = []
        self.figures: dict[str, float] = {"rows": float(rows.height), "frauds": float(self._labels.sum())}

    def average_precision(self) -> None:
        new, old = (Ranking.of(judged.scores, self._labels) for judged in (self._new, self._old))

        def gain(weights: Floats) -> float:
            return metrics.average_precision(new, weights) - metrics.average_precision(old, weights)

        self.figures["production average precision"] = metrics.average_precision(old, np.ones(self._rows.height))
        self._compare(PRECISION, gain, self._words.average_precision)

    def cost(self) -> None:
        """Only as much is flagged as people can review in a day, the highest scores first."""
        new, old = (self._costs(judged) for judged in (self._new, self._old))

        def saved(weights: Floats) -> float:
            return float(1_000 * np.sum(weights * (old - new)) / np.sum(weights))

        self.figures["production cost per 1,000"] = 1_000 * float(old.mean())
        self._compare(SAVED, saved, self._words.cost * 1_000 * float(old.mean()))

    def calibration(self) -> None:
        new, old = (metrics.calibration_error(judged.scores, self._labels) for judged in (self._new, self._old))
        self.figures |= {"calibration error": new, "production calibration error": old}
        if new > old + self._words.calibration:
            self.reasons.append(f"calibration error {new:.4f} is over {old:.4f} + {self._words.calibration}")

    def slices(self) -> None:
        for name, mask in evaluate.parts_of(self._rows, self._dataset):
            labels = self._labels[mask]
            if name == "all" or min(labels.sum(), len(labels) - labels.sum()) < self._words.frauds:
                continue
            ones = np.ones(len(labels))
            new, old = (
                metrics.average_precision(Ranking.of(judged.scores[mask], labels), ones)
                for judged in (self._new, self._old)
            )
            self.figures[f"average precision, {name}"] = new - old
            if new < old - self._words.slices:
                self.reasons.append(f"average precision of '{name}' falls from {old:.3f} to {new:.3f}")

    def latency(self) -> None:
        times = self._new.seconds / self._old.seconds
        self.figures["times as long"] = times
        if times > self._words.times:
            self.reasons.append(f"one row takes {times:.1f} times as long, over {self._words.times}")

    def _compare(self, name: str, gain: Callable[[Floats], float], allowed: float) -> None:
        """Refuse what is lower by more than allowed, and what is lower for sure."""
        found = gain(np.ones(self._rows.height))
        low, high = metrics.interval(gain, self._labels, self._groups, self._words.resamples, self._seed)
        self.figures |= {name: found, f"{name}, low": low, f"{name}, high": high}
        if found < -allowed or high < 0:
            self.reasons.append(f"{name}: {found:+.4f} ({low:+.4f} to {high:+.4f}), at least {-allowed:+.4f} is asked")

    def _costs(self, judged: Judged) -> Floats:
        ranks = pl.Series(judged.scores).rank("ordinal", descending=True)
        days = self._rows[self._dataset.time.column].dt.date()
        place = pl.DataFrame({"day": days, "rank": ranks}).select(pl.col("rank").rank("ordinal").over("day"))
        within = (place["rank"] <= self._evaluation.reviews_per_day).to_numpy()
        flagged = within & (judged.scores >= judged.thresholds.review)
        return evaluate.costs(self._rows, flagged, self._dataset, self._evaluation)
