"""How likely chance alone is to bring a difference: the p-values of the drift check, and how they share its alarms."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlops.errors import BadInput

Counts = NDArray[np.int64]

PARTS = 3
"""What one check judges: the columns together, the labels, and the score against the labels."""
STEPS = np.geomspace(0.01, 2_500, 200)
"""Where the bound on new levels is tried; the best place depends on how many there are."""


def level(false_alarm: float, look: int) -> float:
    """The p-value at which one part of look number `look` (from 1) alarms.

    The sum over all parts and over endlessly many looks is `false_alarm`, because the sum of 1/k² is π²/6. Nothing is
    assumed of how looks hang together, so they may share rows. Raises `BadInput`.
    """
    if look < 1:
        raise BadInput(f"look number {look} of a drift check does not exist; the first is 1")
    return false_alarm / PARTS * 6 / (math.pi * look) ** 2


def holm(chances: Sequence[float]) -> list[float]:
    """Correct p-values for how many there are: any of them below a level is wrong at most that often.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979); holds for dependent tests too.
    """
    order = np.argsort(chances, kind="stable")
    corrected = np.maximum.accumulate(np.asarray(chances)[order] * np.arange(len(order), 0, -1))
    back = np.empty(len(order))
    back[order] = np.minimum(corrected, 1)
    return [float(chance) for chance in back]


def clumped(chance: float, clumping: float) -> float:
    """Correct a p-value of counts of things that come so many at a time.

    n things in clumps of c tell what n / c things tell that come alone, and p-values of large deviations fall
    exponentially with n.
    """
    return float(chance ** (1 / clumping))


def of_bins(then: Counts, now: Counts) -> float:
    """The chance that two samples of one distribution differ this much over bins: Pearson's test of homogeneity.

    The stability index has the same law in the limit (Yurdakul and Naranjo, Statistical properties of the population
    stability index, 2020), but its logarithms make bins of five rows seem up to seven times less likely than they are.
    """
    # SciPy takes a moment to import, and only a check needs it.
    from scipy.special import chdtrc

    if then.size == 1:
        return 1.0
    both, samples = then + now, [(counts, counts.sum() / (then.sum() + now.sum())) for counts in (then, now)]
    squares = sum(float(np.sum((counts - share * both) ** 2 / (share * both))) for counts, share in samples)
    return float(chdtrc(then.size - 1, squares))


def of_shares(hits_then: int, then: int, hits_now: int, now: int) -> float:
    """The chance that two samples of one share differ this much: twice the smaller tail of Fisher's exact test."""
    from scipy.stats import hypergeom

    drawn = hypergeom(then + now, hits_then + hits_now, now)
    return min(1.0, 2 * float(min(drawn.cdf(hits_now), drawn.sf(hits_now - 1))))


def of_new_levels(then: Counts, now: Counts) -> tuple[float, float]:
    """Tell which share of now chance alone puts in levels never seen (0 in `then`), and bound the chance of what is.

    A sample always lacks rare levels, so some are expected. Were all rows shuffled, a level of c rows would lie wholly
    in the second sample with chance (n choose c) / (N choose c); such events are negatively associated, so Chernoff's
    bound holds for their sum. Source: Joag-Dev and Proschan, Negative association of random variables (1983).
    """
    from scipy.special import gammaln

    drawn, total, found = int(now.sum()), int(then.sum() + now.sum()), int(now[then == 0].sum())
    # Levels of equally many rows are alike.
    rows, levels = np.unique((then + now)[(then + now > 0) & (then + now <= drawn)], return_counts=True)
    alone = gammaln(drawn + 1) - gammaln(drawn - rows + 1) - gammaln(total + 1) + gammaln(total - rows + 1)
    share = float(np.sum(np.exp(alone) * rows * levels)) / drawn
    if found == 0:
        return share, 1.0
    rest = np.log1p(-np.minimum(np.exp(alone), 1 - 1e-15))
    # Logarithms of the moment generating function at STEPS / found: the sum over levels of log(1 + p (e^x - 1)).
    grown = np.logaddexp(rest, alone + np.outer(STEPS, rows / found)) @ levels
    return share, float(np.exp(min(0.0, np.min(grown - STEPS))))
