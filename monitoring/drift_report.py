"""What a drift check found, as one value: stored as JSON, drawn as a page, turned into alerts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from mlops.errors import BadData

Verdict = Literal["drifted", "stable", "not enough rows"]

DRIFTED: Verdict = "drifted"
STABLE: Verdict = "stable"
TOO_FEW: Verdict = "not enough rows"


class Moments(msgspec.Struct, frozen=True):
    """The numbers that sum up a column of numbers."""

    mean: float
    std: float
    min: float
    max: float


class Bin(msgspec.Struct, frozen=True):
    """One pair of bars: what lies in it, and the share of the rows that are not empty that does, then and now."""

    label: str
    then: float
    now: float


class ColumnDrift(msgspec.Struct, frozen=True):
    """One column then and now. What cannot be measured, as the moments of an empty column, is None.

    `chance` is how likely chance alone brings its least likely difference, corrected for all columns of the check;
    `wasserstein` is in standard deviations of then; `new_expected` is the share of new levels that chance brings.
    """

    name: str
    kind: Literal["number", "text"]
    verdict: Verdict
    reasons: list[str]
    rows: int
    null_share_then: float
    null_share_now: float
    chance: float | None = None
    psi: float | None = None
    kolmogorov_smirnov: float | None = None
    wasserstein: float | None = None
    new_share: float | None = None
    new_expected: float | None = None
    then: Moments | None = None
    now: Moments | None = None
    bins: list[Bin] = []


class LabelDrift(msgspec.Struct, frozen=True):
    """The share of positive labels then and now, and how likely chance alone brings the difference."""

    verdict: Verdict
    labels: int
    positives: int
    share_then: float
    share_now: float | None
    chance: float | None


class ScoreBin(msgspec.Struct, frozen=True):
    """The labels of scores above `low` and up to `high`: how many, positives expected and seen, and by what chance."""

    low: float | None
    high: float | None
    rows: int
    expected: float
    positives: int
    chance: float


class ConceptDrift(msgspec.Struct, frozen=True):
    """Whether the score still says the truth: `misplaced` positives as a share of the expected, and by what chance.

    `whole` is all scores as one; all chances are corrected for how many they are, and `chance` is the least of them.
    """

    verdict: Verdict
    labels: int
    misplaced: float | None
    chance: float | None
    whole: ScoreBin
    bins: list[ScoreBin]


class Performance(msgspec.Struct, frozen=True):
    """How well scores rank and decisions do. None where it is not defined, as without positives.

    `positives` is a sum of probabilities where it is estimated; `cost` is money per 1,000 rows.
    """

    rows: int
    positives: float
    average_precision: float | None
    roc_auc: float | None
    precision: float | None
    recall: float | None
    cost: float | None


class Estimate(msgspec.Struct, frozen=True):
    """Performance without labels: what to expect, and the ends of the middle 95 % of what the labels may bring."""

    expected: Performance
    low: Performance
    high: Performance


class DriftReport(msgspec.Struct, frozen=True):
    """One check of one version over the rows from `since` to before `until`; `look` counts its checks from 1.

    `reference` is the performance on held-out rows of the training, `estimated` that of all rows, `realised` that of
    rows whose label matured. A part that was not looked at is None.
    """

    name: str
    version: int
    snapshot: str
    since: datetime
    until: datetime
    look: int
    rows: int
    verdict: Verdict
    headline: str
    columns: list[ColumnDrift]
    prediction: ColumnDrift | None = None
    label: LabelDrift | None = None
    concept: ConceptDrift | None = None
    reference: Performance | None = None
    estimated: Estimate | None = None
    realised: Performance | None = None


def conclude(
    columns: list[ColumnDrift], prediction: ColumnDrift | None, label: LabelDrift | None, concept: ConceptDrift | None
) -> tuple[Verdict, str]:
    """Sum the parts up: drifted if any of them has, not enough rows if none could be judged; and one sentence."""
    parts = [part for part in (prediction, label, concept) if part is not None]
    verdicts = {part.verdict for part in (*columns, *parts)}
    if verdicts <= {TOO_FEW}:
        return TOO_FEW, "Too few rows to judge."
    if DRIFTED not in verdicts:
        return STABLE, "Nothing has drifted."
    named = {"the score": prediction, "the share of positives": label, "what the score means": concept}
    drifted = [said for said, part in named.items() if part is not None and part.verdict == DRIFTED]
    if count := sum(column.verdict == DRIFTED for column in columns):
        drifted.insert(0, f"{count} of {len(columns)} columns")
    said = " and ".join(filter(None, [", ".join(drifted[:-1]), drifted[-1]]))
    return DRIFTED, f"Drift in {said}."


def plain(report: DriftReport) -> dict[str, Any]:
    """Give the report as JSON holds it."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def read(found: Mapping[str, Any]) -> DriftReport:
    """Read a report that was stored. Raises `BadData`."""
    try:
        return msgspec.convert(found, DriftReport)
    except msgspec.ValidationError as error:
        raise BadData(f"this is no drift report: {error}; check again and store it anew") from error


def spoken(value: float) -> str:
    """Write a number as a person would, to about four digits."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"
