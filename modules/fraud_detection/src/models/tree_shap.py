"""Exact SHAP values of boosted trees by tables: every case that a path can meet is worked out before.

On the way to a leaf each feature has to lie in an interval. For every subset of the path's features that do, a table
holds what each feature adds (the path-dependent SHAP values of the leaf alone); the values of a row are sums of table
rows. Source: Lundberg et al., From local explanations to global understanding with explainable AI for trees (2020).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from modules.fraud_detection.src.models.base_model import Floats, Matrix
from modules.fraud_detection.src.utils.compiling import compiled

DEEPEST = 10
"""Different features on one path; tables double with each."""

Ints = NDArray[np.int64]
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What one feature of a path must be: low <= x < high, or empty where `empty` says so; `share` is the part of the
    training rows that go this way when nothing is known of the feature."""

    feature: int
    low: float
    high: float
    empty: bool
    share: float


@dataclass(frozen=True)
class TreeShap:
    """Tables of an ensemble. Parts lie leaf by leaf between `starts`; the table of a leaf begins at its `places`."""

    base: float
    features: Ints
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    empties: NDArray[np.bool_]
    starts: Ints
    places: Ints
    table: Floats

    @classmethod
    def of(cls, model: bytes) -> Self | None:
        """Work the tables out from XGBoost's JSON; nothing for an ensemble that is no plain or too deep a one."""
        learner = json.loads(model)["learner"]
        booster = learner["gradient_booster"]
        if booster["name"] != "gbtree":
            return None
        paths = [path for tree in booster["model"]["trees"] for path in _paths(tree)]
        if max((len(parts) for parts, _ in paths), default=0) > DEEPEST:
            return None
        score = float(learner["learner_model_param"]["base_score"].strip("[]"))
        margin = math.log(score / (1 - score))
        starts = np.cumsum([0, *(len(parts) for parts, _ in paths)])
        sizes = [len(parts) << len(parts) for parts, _ in paths]
        places = np.cumsum([0, *sizes])
        flat = [part for parts, _ in paths for part in parts]
        shares = np.array([part.share for part in flat])
        values = np.array([value for _, value in paths])
        table = np.empty(places[-1])
        _fill(shares, values, starts, places, _weights(), table)
        # What a leaf adds when nothing is known is its value times the shares of its path.
        known = [value * math.prod(part.share for part in parts) for parts, value in paths]
        return cls(
            base=margin + math.fsum(known),
            features=np.array([part.feature for part in flat], np.int64),
            lows=np.array([part.low for part in flat], np.float32),
            highs=np.array([part.high for part in flat], np.float32),
            empties=np.array([part.empty for part in flat], np.bool_),
            starts=starts.astype(np.int64),
            places=places.astype(np.int64),
            table=table,
        )

    def explain(self, matrix: Matrix) -> Floats:
        """Return the SHAP values in log odds and, last, the base value. Shape (rows, columns + 1)."""
        found = np.zeros((len(matrix), matrix.shape[1] + 1))
        _add(
            np.ascontiguousarray(matrix), self.features, self.lows, self.highs, self.empties, self.starts, self.places,
            self.table, found,
        )  # fmt: skip
        found[:, -1] = self.base
        return found


def _paths(tree: Tree) -> Iterator[tuple[list[Part], float]]:
    """Give every leaf of a tree: the parts of its path, one for each feature, and its value."""
    left, right = tree["left_children"], tree["right_children"]
    conditions, indices = tree["split_conditions"], tree["split_indices"]
    covers, by_default = tree["sum_hessian"], tree["default_left"]
    waiting: list[tuple[int, dict[int, Part]]] = [(0, {})]
    while waiting:
        node, parts = waiting.pop()
        if left[node] == -1:
            yield list(parts.values()), conditions[node]
            continue
        feature, threshold = indices[node], conditions[node]
        for child, is_left in ((right[node], False), (left[node], True)):
            old = parts.get(feature, Part(feature, -math.inf, math.inf, True, 1.0))
            part = Part(
                feature,
                old.low if is_left else max(old.low, threshold),
                min(old.high, threshold) if is_left else old.high,
                old.empty and bool(by_default[node]) == is_left,
                old.share * covers[child] / covers[node],
            )
            waiting.append((child, {**parts, feature: part}))


def _weights() -> Floats:
    """The Shapley weight of a coalition of `size` among `players`. Shape (players, sizes)."""
    weights = np.zeros((DEEPEST + 1, DEEPEST + 1))
    for players in range(1, DEEPEST + 1):
        for size in range(players):
            weights[players, size] = 1 / (players * math.comb(players - 1, size))
    return weights


@compiled
def _fill(shares: Floats, values: Floats, starts: Ints, places: Ints, weights: Floats, table: Floats) -> None:
    """Work out, for every leaf and every subset of its parts that hold, what each part adds."""
    sums = np.empty(DEEPEST + 1)
    for leaf in range(values.size):
        start, count = starts[leaf], starts[leaf + 1] - starts[leaf]
        for holds in range(1 << count):
            for part in range(count):
                # sums[k] adds up, over all coalitions of k parts that hold, the shares of the parts outside.
                sums[:] = 0.0
                sums[0] = 1.0
                members = 0
                for other in range(count):
                    if other == part:
                        continue
                    share = shares[start + other]
                    if holds >> other & 1:
                        for size in range(members, -1, -1):
                            sums[size + 1] += sums[size]
                            sums[size] *= share
                        members += 1
                    else:
                        for size in range(members + 1):
                            sums[size] *= share
                total = 0.0
                for size in range(members + 1):
                    total += weights[count, size] * sums[size]
                own = 1.0 if holds >> part & 1 else 0.0
                place = places[leaf] + holds * count + part
                table[place] = values[leaf] * (own - shares[start + part]) * total


@compiled
def _add(
    matrix: Matrix, features: Ints, lows: Matrix, highs: Matrix, empties: NDArray[np.bool_], starts: Ints, places: Ints,
    table: Floats, found: Floats,
) -> None:  # fmt: skip
    """Add up the table rows of every leaf, leaf by leaf, so that a row comes out the same in any company."""
    for row in range(matrix.shape[0]):
        for leaf in range(starts.size - 1):
            start, end = starts[leaf], starts[leaf + 1]
            holds = 0
            for part in range(start, end):
                value = matrix[row, features[part]]
                if empties[part] if np.isnan(value) else lows[part] <= value < highs[part]:
                    holds |= 1 << (part - start)
            place = places[leaf] + holds * (end - start)
            for part in range(start, end):
                found[row, features[part]] += table[place + part - start]
