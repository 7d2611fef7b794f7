"""How well a version does: from matured labels, without labels from what its score says, and whether that still holds.

A calibrated score is the share of positives among rows of that score, so it can stand for the labels that are not known
yet. That holds while the relation of row and label does, whatever the rows do; where labels say it does not, every
estimate ends. Source of the estimate: Białek et al., Estimating model performance under covariate shift without labels
(2024).
"""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlops.errors import BadData
from monitoring import chance
from monitoring.drift import Drift
from monitoring.drift_report import DRIFTED, STABLE, TOO_FEW, ConceptDrift, Estimate, Performance, ScoreBin

Floats = NDArray[np.float64]

BINS = 10
DRAWS = 200
"""Sets of labels that are drawn to see how far they may fall from what is expected."""


@dataclass(frozen=True)
class Decisions:
    """What was decided: rows flagged, the money each loses if it is a positive that passes, the price of a review."""

    flagged: NDArray[np.bool_]
    losses: Floats
    review: float


class Calibration(msgspec.Struct, frozen=True):
    """The probability behind a score: straight lines between knots, level beyond them. JSON holds it as it is.

    `edges` part the scores into bins that tell equally much of the labels, and `rows` says how many of the reference
    lie in each.
    """

    scores: list[float]
    probabilities: list[float]
    edges: list[float]
    rows: list[int]

    def apply(self, scores: Floats) -> Floats:
        """Give the probability of a positive behind each score."""
        return np.interp(scores, self.scores, self.probabilities)

    def bins(self, scores: Floats) -> NDArray[np.intp]:
        """Give the bin of each score."""
        return np.searchsorted(self.edges, scores, side="left")


def calibrate(scores: Floats, labels: NDArray[np.int64]) -> Calibration:
    """Learn from held-out rows which probability a score means: the best curve that never falls. Raises `BadData`.

    Source: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates (2002).
    """
    if len(set(labels.tolist())) < 2:
        raise BadData(f"all {len(labels)} labels to calibrate by are the same; give rows of both kinds")
    # scikit-learn takes a second to import, and applying a calibration does not need it.
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    ascending = np.sort(scores)
    certain = curve.predict(ascending)
    # A probability tells most where it is near a half; the mean, which is small, parts what is all certain.
    told = np.cumsum(certain * (1 - certain) + 1 / len(scores))
    edges = np.unique(ascending[np.searchsorted(told, told[-1] * np.arange(1, BINS) / BINS)])
    edges = edges[edges < ascending[-1]]
    rows = np.bincount(np.searchsorted(edges, scores, side="left"), minlength=edges.size + 1)
    return Calibration(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), edges.tolist(), rows.tolist())


def realised(scores: Floats, labels: NDArray[np.int64], decisions: Decisions | None = None) -> Performance:
    """Measure by labels that matured; arrays are (rows,)."""
    return _Ranking.of(scores).measured(labels.astype(np.float64), decisions)


def estimate(calibration: Calibration, scores: Floats, decisions: Decisions | None = None) -> Estimate:
    """Measure as if each row were a positive to the share that its score says.

    The interval holds what chance does to the labels; it knows nothing of errors of the calibration.
    """
    ranking, probabilities = _Ranking.of(scores), calibration.apply(scores)
    draw = np.random.default_rng(0)
    drawn = [
        ranking.measured((draw.random(scores.size) < probabilities).astype(np.float64), decisions)
        for _ in range(DRAWS)
    ]  # fmt: skip
    return Estimate(ranking.measured(probabilities, decisions), _quantile(drawn, 0.025), _quantile(drawn, 0.975))


def concept_drift(
    calibration: Calibration, scores: Floats, labels: NDArray[np.int64], words: Drift, looks: int = 1,
    clumping: float = 1.0,
) -> ConceptDrift:  # fmt: skip
    """Test by matured labels whether a score still means what it meant, bin by bin, whatever became of the scores.

    In each bin, the positives among the rows of now stand against as many reference rows of the share that the scores
    of now should have, in Fisher's exact test: so the calibration's own error counts, and moved scores do not.
    Positives that come `clumping` at a time tell so many times less than as many that come alone.
    """
    *bins, whole = _score_bins(calibration, scores, labels)
    if min(labels.size, sum(calibration.rows)) < words.labels:
        return ConceptDrift(TOO_FEW, labels.size, None, None, whole, bins)
    # Where hardly any positive is expected, each that comes counts as one whole.
    misplaced = sum(abs(bin_.positives - bin_.expected) for bin_ in bins) / max(whole.expected, 1.0)
    by_chance = chance.clumped(min(bin_.chance for bin_ in (*bins, whole)), clumping)
    drifted = misplaced >= words.misplaced and by_chance <= chance.level(words.false_alarm, looks)
    return ConceptDrift(DRIFTED if drifted else STABLE, labels.size, misplaced, by_chance, whole, bins)


@dataclass(frozen=True)
class _Ranking:
    """Rows from the highest score down, and the last place of each run of equal scores."""

    order: NDArray[np.intp]
    ends: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Floats) -> "_Ranking":
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        return cls(order, np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)))

    def measured(self, truth: Floats, decisions: Decisions | None) -> Performance:
        """Measure by labels or by probabilities in their place: either way, the rows that are positives are summed."""
        true, rows = np.cumsum(truth[self.order])[self.ends], (self.ends + 1).astype(np.float64)
        positives = float(truth.sum())
        ranks = bool(0 < positives < truth.size)
        precision, recall, cost = _decided(truth, decisions) if decisions else (None, None, None)
        return Performance(
            rows=truth.size,
            positives=positives,
            average_precision=_average_precision(true, rows) if ranks else None,
            roc_auc=_roc_auc(true, rows) if ranks else None,
            precision=precision,
            recall=recall,
            cost=cost,
        )


def _average_precision(true: Floats, rows: Floats) -> float:
    return float(np.sum(np.diff(true, prepend=0.0) * true / rows) / true[-1])


def _roc_auc(true: Floats, rows: Floats) -> float:
    false = rows - true
    heights = (true + np.concatenate([[0.0], true[:-1]])) / 2
    return float(np.sum(heights * np.diff(false, prepend=0.0)) / (true[-1] * false[-1]))


def _decided(truth: Floats, decisions: Decisions) -> tuple[float | None, float | None, float | None]:
    """The precision and recall of what was flagged, and the cost per 1,000 rows."""
    flagged, found, positives = int(decisions.flagged.sum()), truth[decisions.flagged].sum(), truth.sum()
    lost = np.sum((decisions.losses * truth)[~decisions.flagged])
    return (
        float(found / flagged) if flagged else None,
        float(found / positives) if positives else None,
        float(1_000 * (decisions.review * flagged + lost) / truth.size) if truth.size else None,
    )


def _quantile(drawn: list[Performance], share: float) -> Performance:
    """The quantile of each number over those draws for which it is defined."""
    found = {}
    for name in Performance.__struct_fields__:
        values = [getattr(each, name) for each in drawn if getattr(each, name) is not None]
        found[name] = float(np.quantile(values, share)) if values else None
    return msgspec.convert(found | {"rows": drawn[0].rows}, Performance)


def _score_bins(calibration: Calibration, scores: Floats, labels: NDArray[np.int64]) -> list[ScoreBin]:
    """Test each bin of scores, and at the end all of them as one."""
    place, size = calibration.bins(scores), len(calibration.rows)
    rows, before = np.bincount(place, minlength=size), np.asarray(calibration.rows)
    expected: Floats = np.bincount(place, calibration.apply(scores), size).astype(np.float64)
    positives = np.bincount(place, labels, size)
    bounds = [None, *calibration.edges, None]
    parts = [
        *zip(bounds[:-1], bounds[1:], rows, expected, positives, before, strict=True),
        (None, None, rows.sum(), expected.sum(), positives.sum(), _worth(rows, expected, before)),
    ]
    tests = [
        chance.of_shares(round(known * promised / seen), int(known), int(came), int(seen)) if seen else 1.0
        for _, _, seen, promised, came, known in parts
    ]
    return [
        ScoreBin(low, high, int(seen), float(promised), int(came), by_chance)
        for (low, high, seen, promised, came, _), by_chance in zip(parts, chance.holm(tests), strict=True)
    ]


def _worth(rows: NDArray[np.int64], expected: Floats, before: NDArray[np.int64]) -> int:
    """How many reference rows the promise for all rows is worth: fewer where it leans on bins that had few of them."""
    if not rows.sum():
        return 0
    shares = (expected + 0.5) / (rows + 1)
    overall, weights = (expected.sum() + 0.5) / (rows.sum() + 1), rows / rows.sum()
    variance = np.sum(weights**2 * shares * (1 - shares) / before)
    return int(min(before.sum(), overall * (1 - overall) / variance))
