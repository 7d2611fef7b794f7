"""Evidence that grows: a test that may be looked at at any time, as often as one likes, and keeps its error rate."""

import math

import numpy as np
from numpy.typing import NDArray

STAKES = np.geomspace(1e-3, 0.9, 12)
"""The shares of its wealth that each of the gamblers stakes."""


class Evidence:
    """Evidence against the claim that the mean of values from `low` (below 0) on is at most 0.

    Gamblers with different stakes bet that the next value lies above 0. While the claim holds no bet wins on average,
    so that the chance that their mean wealth ever reaches 1 / a is at most a, whenever one looks. Source: Waudby-Smith
    and Ramdas, Estimating means of bounded random variables by betting (2024); Ville's inequality.
    """

    def __init__(self, low: float) -> None:
        self._low = low
        self._logs = np.zeros(len(STAKES))
        self.count = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Let the gamblers bet on values, shape (count,), none below `low`."""
        stakes = STAKES / -self._low
        self._logs += np.log1p(np.outer(stakes, values)).sum(axis=1)
        self.count += len(values)

    @property
    def log(self) -> float:
        """The logarithm of the mean wealth."""
        return float(np.logaddexp.reduce(self._logs) - np.log(len(STAKES)))

    def reaches(self, level: float) -> bool:
        """Whether the claim is refused at an error rate."""
        return self.log >= -math.log(level)
