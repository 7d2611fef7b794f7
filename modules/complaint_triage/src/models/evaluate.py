"""How well complaints are routed: on rows that a model has not learned from, in shares and in money."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlops.values import Group
from modules.complaint_triage.src.features.words import Floats

Ints = NDArray[np.int64]

Z = 1.959963984540054
"""Standard deviations on either side of a mean that hold 95 %."""


class Costs(Group):
    """What is paid for one complaint."""

    review: float = Field(2.0, gt=0, description="A person looks at it before it is routed.")
    misrouted: float = Field(15.0, gt=0, description="It goes to the wrong queue and comes back.")


@dataclass(frozen=True)
class Routed:
    """What was said of rows: the product (rows,), the doubt (rows,), and the product it was (rows,), from 0."""

    said: Ints
    doubts: Floats
    truth: Ints

    @property
    def wrong(self) -> Ints:
        """1 where the product is not the one that it was (rows,)."""
        return np.not_equal(self.said, self.truth).astype(np.int64)


def review_from(routed: Routed, costs: Costs) -> float:
    """The doubt from which on it is cheapest that a person looks. Above 1 it is never worth it."""
    order = np.argsort(-routed.doubts, kind="stable")
    # The first n in this order are looked at; those after them are routed, right or wrong.
    slips = np.append(np.cumsum(routed.wrong[order][::-1])[::-1], 0)
    costs_at = np.arange(order.size + 1) * costs.review + slips * costs.misrouted
    # Between two equal doubts no line can be drawn.
    sorted_ = routed.doubts[order]
    possible = np.append(True, np.append(sorted_[:-1] != sorted_[1:], True))
    best = int(np.flatnonzero(possible)[np.argmin(costs_at[possible])])
    return float(sorted_[best - 1]) if best else math.nextafter(1.0, 2.0)


def report(routed: Routed, products: int, costs: Costs, limit: float) -> dict[str, Any]:
    """Figures of routed rows, with an interval of 95 % for the accuracy (Wilson, 1927)."""
    rows, looked = routed.truth.size, routed.doubts >= limit
    accuracy, wrong = float(1 - routed.wrong.mean()), routed.wrong.astype(bool)
    alone = ~looked
    cost = float(looked.sum() * costs.review + (wrong & alone).sum() * costs.misrouted)
    usual = np.bincount(routed.truth, minlength=products).max() / rows
    return {
        "rows": rows,
        "accuracy": accuracy,
        "accuracy_interval": _interval(accuracy, rows),
        "macro_f1": _macro_f1(routed, products),
        "share_reviewed": float(looked.mean()),
        "accuracy_of_routed": float(1 - wrong[alone].mean()) if alone.any() else None,
        "cost_per_1000": cost * 1_000 / rows,
        "cost_per_1000_all_reviewed": costs.review * 1_000,
        "accuracy_of_the_commonest": float(usual),
    }


def _interval(share: float, rows: int) -> tuple[float, float]:
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    reach = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return middle - reach, middle + reach


def _macro_f1(routed: Routed, products: int) -> float:
    """The mean over products that are there of 2 x right / (said + true)."""
    right = np.bincount(routed.truth[routed.wrong == 0], minlength=products)
    both = np.bincount(routed.said, minlength=products) + np.bincount(routed.truth, minlength=products)
    there = np.bincount(routed.truth, minlength=products) > 0
    return float(np.mean(2 * right[there] / both[there]))
