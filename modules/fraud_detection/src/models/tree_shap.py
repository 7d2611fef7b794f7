"""Exact SHAP values of boosted trees by tables: every case that a row can meet is worked out before.

A tree is cut into its bottom branches, of up to four leaves each. A row meets or misses each of the conditions on the
way to a branch and inside it; read as the bits of a number, the last one highest, this is its case. A table holds for
every case what the branch adds to each feature (the path-dependent SHAP values of its leaves); a row's values are sums.
Source: Lundberg et al., From local explanations to global understanding with explainable AI for trees (2020).
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modules.fraud_detection.src.models.base_model import Floats, Matrix
from modules.fraud_detection.src.models.branches import Branch, cut
from modules.fraud_detection.src.utils.compiling import compiled

DEEPEST = 10
"""Conditions of one branch; its table doubles with each."""
MOST = 1 << 24
"""Numbers in all tables together, 64 MiB."""

Ints = NDArray[np.int64]
Places = NDArray[np.uint64]
"""Unsigned, so that the kernel need not ask whether a place counts from the end."""
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TreeShap:
    """The tables of an ensemble: branch b has the conditions from `starts[b]`, the columns from `columns[b]`, and its
    table from `places[b]`; `owners` are the features of the columns."""

    base: float
    starts: Places
    features: Places
    lows: Matrix
    highs: Matrix
    empties: Flags
    columns: Places
    owners: Places
    places: Places
    table: Matrix

    @classmethod
    def of(cls, model: bytes) -> Self | None:
        """Work the tables out from XGBoost's JSON; nothing for an ensemble that is no plain or too deep a one."""
        learner = json.loads(model)["learner"]
        booster = learner["gradient_booster"]
        if booster["name"] != "gbtree" or learner["objective"]["name"] != "binary:logistic":
            return None
        branches, size = [], 0
        for branch in chain.from_iterable(map(cut, booster["model"]["trees"])):
            branches.append(branch)
            size += branch.size
            if len(branch.conditions) > DEEPEST or size > MOST:
                return None
        score = float(learner["learner_model_param"]["base_score"].strip("[]"))
        # What a leaf adds when nothing is known is its value times the shares of its path.
        known = [
            value * math.prod(part.share for part in parts.values())
            for branch in branches
            for parts, value in branch.leaves
        ]
        conditions = [condition for branch in branches for condition in reversed(branch.conditions)]
        return cls(
            base=math.log(score / (1 - score)) + math.fsum(known),
            starts=_starts(len(branch.conditions) for branch in branches),
            features=np.array([condition.feature for condition in conditions], np.uint64),
            lows=np.array([condition.low for condition in conditions], np.float32),
            highs=np.array([condition.high for condition in conditions], np.float32),
            empties=np.array([condition.empty for condition in conditions], np.bool_),
            columns=_starts(len(branch.features) for branch in branches),
            owners=np.array([feature for branch in branches for feature in branch.features], np.uint64),
            places=_starts(branch.size for branch in branches),
            table=np.concatenate([_table(branch) for branch in branches]).astype(np.float32),
        )

    def explain(self, matrix: Matrix) -> Floats:
        """Return the SHAP values in log odds and, last, the base value. Shape (rows, columns + 1)."""
        found = np.zeros((len(matrix), matrix.shape[1] + 1))
        _add(
            np.ascontiguousarray(matrix), self.starts, self.features, self.lows, self.highs, self.empties,
            self.columns, self.owners, self.places, self.table, found,
        )  # fmt: skip
        found[:, -1] = self.base
        return found


def _starts(sizes: Iterable[int]) -> Places:
    return np.cumsum([0, *sizes]).astype(np.uint64)


def _table(branch: Branch) -> Floats:
    """What the leaves add to each column, for each number that the conditions can make. Shape (size,)."""
    places = {feature: place for place, feature in enumerate(branch.features)}
    table = np.zeros((1 << len(branch.conditions), len(places)))
    for parts, value in branch.leaves:
        asked = np.array([(part.asked, part.wanted) for part in parts.values()], np.int64).reshape(-1, 2)
        columns = np.array([places[feature] for feature in parts], np.int64)
        _fill(np.array([part.share for part in parts.values()]), asked, columns, value, WEIGHTS, table)
    return table.ravel()


def _weights() -> Floats:
    """The Shapley weight of a coalition of `size` among `players`. Shape (players, sizes)."""
    weights = np.zeros((DEEPEST + 1, DEEPEST + 1))
    for players in range(1, DEEPEST + 1):
        for size in range(players):
            weights[players, size] = 1 / (players * math.comb(players - 1, size))
    return weights


WEIGHTS = _weights()


@compiled
def _fill(shares: Floats, asked: Ints, columns: Ints, value: float, weights: Floats, table: Floats) -> None:
    """Add what one leaf gives: first for every subset of its parts that hold, then for every case of the branch."""
    count = shares.size
    gives = np.empty((1 << count, count))
    for holds in range(1 << count):
        for part in range(count):
            outside = _outside(shares, holds, part, weights[count])
            gives[holds, part] = value * ((holds >> part & 1) - shares[part]) * outside
    for case in range(table.shape[0]):
        holds = 0
        for part in range(count):
            if case & asked[part, 0] == asked[part, 1]:
                holds |= 1 << part
        for part in range(count):
            table[case, columns[part]] += gives[holds, part]


@compiled
def _outside(shares: Floats, holds: int, part: int, weights: Floats) -> float:
    """The weighted sum, over all coalitions of other parts, all of which hold, of the shares of the others outside."""
    sums = np.zeros(shares.size + 1)  # by the size of the coalition
    sums[0] = 1.0
    members = 0
    for other in range(shares.size):
        if other == part:
            continue
        if holds >> other & 1:
            for size in range(members, -1, -1):
                sums[size + 1] += sums[size]
                sums[size] *= shares[other]
            members += 1
        else:
            for size in range(members + 1):
                sums[size] *= shares[other]
    total = 0.0
    for size in range(members + 1):
        total += weights[size] * sums[size]
    return total


@compiled
def _add(
    matrix: Matrix, starts: Places, features: Places, lows: Matrix, highs: Matrix, empties: Flags, columns: Places,
    owners: Places, places: Places, table: Matrix, found: Floats,
) -> None:  # fmt: skip
    """Add up the table rows of every branch, branch by branch, so that a row comes out the same in any company."""
    cases = np.empty(starts.size - 1, np.uint64)
    for row in range(matrix.shape[0]):
        values, sums = matrix[row], found[row]
        # All cases first: the table's rows, far apart in memory, are then fetched while others are added.
        for branch in range(cases.size):
            case = np.uint64(0)
            for place in range(starts[branch], starts[branch + 1]):
                value = values[features[place]]
                # Without a jump: which way a row goes cannot be guessed.
                holds = ((value >= lows[place]) & (value < highs[place])) | (np.isnan(value) & empties[place])
                case = (case << np.uint64(1)) | np.uint64(holds)
            cases[branch] = case
        for branch in range(cases.size):
            first, width = columns[branch], columns[branch + 1] - columns[branch]
            begin = places[branch] + cases[branch] * width
            for column in range(width):
                sums[owners[first + column]] += table[begin + column]
