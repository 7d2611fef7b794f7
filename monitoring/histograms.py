"""Two histograms over the same bins: how far they are apart. Counts are arrays (bins,), whole rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

THIN = 5
"""Bins in which the smaller sample would expect fewer rows than this are taken together (Cochran's rule)."""


def counted(described: Mapping[str, Any], values: Floats) -> tuple[Counts, Counts]:
    """Count then and now in the bins of a column's profile, with one more below its least and above its largest value.

    The bins of a profile hold what lies between its quantiles; without the two outer ones a constant column, which is
    one edge, would not notice smaller values.
    """
    least, largest, edges = described["min"], described["max"], np.asarray(described["edges"])
    then = np.array([0, *described["counts"], 0])
    place = np.searchsorted(edges, values, side="left") + 1
    place[values < least] = 0
    place[values > largest] = then.size - 1
    return then, np.bincount(place, minlength=then.size)


def pooled(then: Counts, now: Counts) -> tuple[Counts, Counts]:
    """Take thin bins together. Both samples decide alike which are thin, so that none of them is favoured."""
    both = then + now
    expected = both * (min(then.sum(), now.sum()) / both.sum())
    order = np.argsort(-expected, kind="stable")
    order = order[both[order] > 0]
    alone = int(np.sum(expected >= THIN))
    # The thin ones may be thin together as well; then the least of the others joins them.
    if expected[order[alone:]].sum() < THIN:
        alone = max(alone - 1, 0)
    starts = np.arange(alone + 1)
    return np.add.reduceat(then[order], starts), np.add.reduceat(now[order], starts)


def stability(then: Counts, now: Counts) -> float:
    """The population stability index: sum of (now - then) ln(now / then) over the shares of bins.

    Half a row of the smaller sample is added to each bin, to both alike as a share, so that an empty bin has a
    logarithm, and equal shares still give 0. Source: Siddiqi, Credit Risk Scorecards (2006), where .1 is some change
    and .2 or .25 a large one.
    """
    half = 0.5 / min(then.sum(), now.sum())
    p, q = ((counts / counts.sum() + half) / (1 + counts.size * half) for counts in (then, now))
    return float(np.sum((q - p) * np.log(q / p)))


def kolmogorov_smirnov(then: Counts, now: Counts) -> float:
    """The largest distance of the two cumulated shares at the edges: exact there, and at most the true distance."""
    return float(np.max(np.abs(np.cumsum(then) / then.sum() - np.cumsum(now) / now.sum())))


def wasserstein(described: Mapping[str, Any], values: Floats) -> float | None:
    """How far a row has to be moved on average to make one distribution of the other, in standard deviations of then.

    The difference of the means says exactly how much more rows move one way than the other. What they move the other
    way is the lesser of the areas between the cumulated shares: exact outside the values of then, trapezoids between
    its edges, as the profile does not say how values lie there. None for a column that was constant.
    """
    least, largest, std = described["min"], described["max"], described["std"]
    # The mean of equal numbers may be off by its last bit, and then their deviation is not quite 0.
    if least == largest or std == 0:
        return None
    points, ascending = np.array([least, *described["edges"], largest]), np.sort(values)
    then = np.cumsum([0, *described["counts"]]) / np.sum(described["counts"])
    now = np.searchsorted(ascending, points, side="right") / values.size
    now[0] = np.searchsorted(ascending, least, side="left") / values.size
    up = _area(then - now, points) + np.mean(np.maximum(values - largest, 0))
    down = _area(now - then, points) + np.mean(np.maximum(least - values, 0))
    return float((abs(values.mean() - described["mean"]) + 2 * min(up, down)) / std)


def _area(heights: Floats, points: Floats) -> float:
    above = np.maximum(heights, 0)
    return float(np.sum((above[1:] + above[:-1]) / 2 * np.diff(points)))
