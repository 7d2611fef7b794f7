"""What has changed since a version was trained: each column against the profile of its training rows, and the labels.

A column has drifted when the change is both large, by limits that a person chose, and more than chance brings. The
p-values take rows as independent; rows of one customer or one hour are not, and then they alarm too early. No factor
mends that without knowing how rows hang together, so there it is the limit on the size that keeps the peace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
from pydantic import Field

from mlops.errors import BadData
from mlops.values import Group
from monitoring import chance, histograms
from monitoring.drift_report import DRIFTED, STABLE, TOO_FEW, Bin, ColumnDrift, LabelDrift, Moments, spoken
from monitoring.histograms import Counts

SHOWN = 12
"""Levels of a text column that are shown one by one; the others as one."""
NAMED = 3


class Drift(Group):
    """When a difference from training counts as drift."""

    psi: float = Field(0.2, gt=0)
    """Population stability index of a column's values from which on its change is large."""
    null_share: float = Field(0.05, gt=0, lt=1)
    """Change in the share of empty rows, either way, from which on it is large."""
    new_share: float = Field(0.05, gt=0, lt=1)
    """Share of rows with levels that training never saw, beyond what chance brings, from which on it is large."""
    label_ratio: float = Field(1.5, gt=1)
    """Factor between the shares of positive labels then and now, either way, from which on the change is large."""
    misplaced: float = Field(0.2, gt=0)
    """Positives that are not where the score says, as a share of those it expects, from which on they are many."""
    rows: int = Field(500, ge=1)
    """Rows below which a column, then or now, is not judged."""
    labels: int = Field(500, ge=1)
    """Matured labels below which neither their share nor the score's truth is judged."""
    false_alarm: float = Field(0.01, gt=0, lt=1)
    """Chance that a sequence of checks, however long and over however many columns, alarms without any drift."""


@dataclass(frozen=True)
class Question:
    """Something that may have changed: how likely by chance, whether by much, and how to say it."""

    chance: float
    large: bool
    sentence: str


def compare(profile: Mapping[str, Any], table: pl.DataFrame, words: Drift, looks: int = 1) -> list[ColumnDrift]:
    """Compare every column of `profile` that `table` has; `looks` is which check of this version it is, from 1.

    Numbers that are not finite count as empty. Raises `BadData` for a column of another kind than in training.
    """
    measured = [_measured(name, profile[name], table[name], words) for name in profile if name in table.columns]
    level = chance.level(words.false_alarm, looks)
    corrected = iter(chance.holm([question.chance for _, questions in measured for question in questions]))
    return [_judged(found, questions, [next(corrected) for _ in questions], level) for found, questions in measured]


def label_drift(
    share: float, rows: int, positives: int, labels: int, words: Drift, looks: int = 1, clumping: float = 1.0
) -> LabelDrift:
    """Compare the share of positives among `rows` training rows with `positives` among `labels` matured labels.

    A label matured when its delay is over; labels that came early are mostly positives, and would look like drift.
    Positives that come `clumping` at a time tell so many times less than as many that come alone.
    """
    if min(labels, rows) < words.labels:
        return LabelDrift(TOO_FEW, labels, positives, share, positives / labels if labels else None, None)
    by_chance = chance.clumped(chance.of_shares(round(share * rows), rows, positives, labels), clumping)
    # Half a positive more on both sides, so that none at all has a ratio.
    ratio = (positives + 0.5) / (labels + 1) / ((share * rows + 0.5) / (rows + 1))
    large = max(ratio, 1 / ratio) >= words.label_ratio
    drifted = large and by_chance <= chance.level(words.false_alarm, looks)
    return LabelDrift(DRIFTED if drifted else STABLE, labels, positives, share, positives / labels, by_chance)


def _measured(
    name: str, described: Mapping[str, Any], column: pl.Series, words: Drift
) -> tuple[ColumnDrift, list[Question]]:
    """Describe a column then and now, and ask what may have changed; of too few rows nothing is asked."""
    texts = "levels" in described
    if texts != isinstance(column.dtype, pl.String) and column.null_count() < column.len():
        kind = "text" if texts else "numbers"
        raise BadData(f"column '{name}' was {kind} in training and is {column.dtype} now; give it the type it had")
    column = column.cast(pl.String) if texts else _finite(column)
    found = ColumnDrift(
        name, "text" if texts else "number", STABLE, [], column.len(), described["null_share"],
        column.null_count() / max(column.len(), 1),
    )  # fmt: skip
    asked = [_of_nulls(found, described["rows"], words)]
    values = column.drop_nulls()
    if values.len():
        found, more = (_of_text if texts else _of_number)(found, described, values, words)
        asked += more
    if min(column.len(), described["rows"]) < words.rows:
        return msgspec.structs.replace(found, verdict=TOO_FEW), []
    return found, asked


def _finite(column: pl.Series) -> pl.Series:
    values = column.cast(pl.Float64)
    return values.set(~values.is_finite(), None)


def _of_nulls(found: ColumnDrift, rows: int, words: Drift) -> Question:
    then, now = found.null_share_then, found.null_share_now
    by_chance = chance.of_shares(round(then * rows), rows, round(now * found.rows), found.rows)
    return Question(by_chance, abs(now - then) >= words.null_share, f"{now:.1%} is empty, {then:.1%} was")


def _of_number(
    found: ColumnDrift, described: Mapping[str, Any], column: pl.Series, words: Drift
) -> tuple[ColumnDrift, list[Question]]:
    values = column.to_numpy()
    now = Moments(float(values.mean()), float(values.std()), float(values.min()), float(values.max()))
    if "mean" not in described:
        return msgspec.structs.replace(found, now=now), []
    counts = histograms.counted(described, values)
    psi, asked = _of_shape(*counts, words)
    measured = msgspec.structs.replace(
        found,
        psi=psi,
        kolmogorov_smirnov=histograms.kolmogorov_smirnov(*counts),
        wasserstein=histograms.wasserstein(described, values),
        then=Moments(*(described[name] for name in ("mean", "std", "min", "max"))),
        now=now,
        bins=_bins(_named(described), *counts),
    )
    return measured, [asked]


def _of_shape(then: Counts, now: Counts, words: Drift) -> tuple[float, Question]:
    then, now = histograms.pooled(then, now)
    psi = histograms.stability(then, now)
    return psi, Question(
        chance.of_bins(then, now), psi >= words.psi, f"its values moved: PSI {psi:.2f}, limit {words.psi:g}"
    )


def _named(described: Mapping[str, Any]) -> list[str]:
    """Name the bins: what lies below the least, between the edges and above the largest value of then."""
    points = [spoken(value) for value in (described["min"], *described["edges"], described["max"])]
    inner = [low if low == high else f"{low} – {high}" for low, high in pairwise(points)]
    return [f"< {points[0]}", *inner, f"> {points[-1]}"]


def _bins(names: Sequence[str], then: Counts, now: Counts) -> list[Bin]:
    """Give each bin that is not empty in both its shares."""
    pairs = zip(names, (then / then.sum()).tolist(), (now / now.sum()).tolist(), strict=True)
    return [Bin(name, before, after) for name, before, after in pairs if before or after]


def _of_text(
    found: ColumnDrift, described: Mapping[str, Any], column: pl.Series, words: Drift
) -> tuple[ColumnDrift, list[Question]]:
    before, seen = described["levels"], dict(column.value_counts(name="rows").iter_rows())
    if not before:
        return found, []
    names = sorted({*before, *seen}, key=lambda name: (-before.get(name, 0), -seen.get(name, 0), name))
    then, now = (np.array([counts.get(name, 0) for name in names]) for counts in (before, seen))
    psi, moved = _of_shape(then, now, words)
    share = float(now[then == 0].sum() / now.sum())
    expected, by_chance = chance.of_new_levels(then, now)
    new = [repr(name) for name in names if name not in before]
    told = ", ".join([*new[:NAMED], *(["..."] if len(new) > NAMED else [])])
    fresh = Question(by_chance, share - expected >= words.new_share, f"{share:.1%} has levels never seen: {told}")
    measured = msgspec.structs.replace(
        found, psi=psi, new_share=share, new_expected=expected, bins=_levels(names, then, now)
    )
    return measured, [moved, fresh]


def _levels(names: Sequence[str], then: Counts, now: Counts) -> list[Bin]:
    """Give the levels that hold most, then or now, and the others as one."""
    bins = sorted(_bins(names, then, now), key=lambda bin_: -max(bin_.then, bin_.now))
    shown, others = bins[:SHOWN], bins[SHOWN:]
    if others:
        rest = sum(bin_.then for bin_ in others), sum(bin_.now for bin_ in others)
        shown.append(Bin(f"{len(others):,} others", *rest))
    return shown


def _judged(found: ColumnDrift, asked: Sequence[Question], chances: Sequence[float], level: float) -> ColumnDrift:
    drifted = [
        question.sentence for question, by_chance in zip(asked, chances, strict=True)
        if question.large and by_chance <= level
    ]  # fmt: skip
    return msgspec.structs.replace(
        found,
        chance=min(chances, default=None),
        reasons=drifted,
        verdict=DRIFTED if drifted else found.verdict,
    )
