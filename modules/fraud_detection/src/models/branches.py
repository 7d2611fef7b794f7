"""A boosted tree cut into its bottom branches: what each asks of a row, and what its leaves say."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

LEVELS = 2
"""Levels of splits in a branch: more make fewer branches, but tables that are larger in all."""

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """Holds when low <= x < high, and for an empty x where `empty` says so."""

    feature: int
    low: float = -math.inf
    high: float = math.inf
    empty: bool = True


@dataclass(frozen=True)
class Part:
    """What a leaf asks of one feature: of the branch's conditions, those in the mask `asked` be as in `wanted`.

    `share` is the part of the training rows that go this way when nothing is known of the feature.
    """

    share: float
    asked: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Branch:
    """The conditions that a branch puts to a row, and its leaves: what each asks by feature, and its value."""

    conditions: list[Condition]
    leaves: list[tuple[dict[int, Part], float]]

    @property
    def features(self) -> list[int]:
        """The columns of its table."""
        return list(dict.fromkeys(condition.feature for condition in self.conditions))

    @property
    def size(self) -> int:
        """The numbers in its table."""
        return len(self.features) << len(self.conditions)


def cut(tree: Tree) -> Iterator[Branch]:
    """Cut a tree into branches: each leaf belongs to the highest node above it that has at most `LEVELS` levels."""
    left, right = tree["left_children"], tree["right_children"]
    levels = [0] * len(left)
    for node in reversed(range(len(left))):  # children come after their parent
        if left[node] != -1:
            levels[node] = 1 + max(levels[left[node]], levels[right[node]])
    waiting: list[tuple[int, dict[int, tuple[Condition, float]]]] = [(0, {})]
    while waiting:
        node, above = waiting.pop()
        if levels[node] <= LEVELS:
            yield _branch(tree, node, above)
            continue
        feature = tree["split_indices"][node]
        old, share = above.get(feature, (Condition(feature), 1.0))
        for child, is_left in ((right[node], False), (left[node], True)):
            narrowed = (_narrowed(tree, node, old, is_left), share * _share(tree, node, child))
            waiting.append((child, {**above, feature: narrowed}))


def _branch(tree: Tree, root: int, above: Mapping[int, tuple[Condition, float]]) -> Branch:
    conditions = [condition for condition, _ in above.values()]
    parts = {feature: Part(above[feature][1], 1 << bit, 1 << bit) for bit, feature in enumerate(above)}
    branch = Branch(conditions, [])
    waiting = [(root, parts)]
    while waiting:
        node, parts = waiting.pop()
        if tree["left_children"][node] == -1:
            branch.leaves.append((parts, tree["split_conditions"][node]))
            continue
        feature, bit = tree["split_indices"][node], 1 << len(conditions)
        conditions.append(_narrowed(tree, node, Condition(feature), True))
        old = parts.get(feature, Part(1.0))
        for child, wanted in ((tree["right_children"][node], 0), (tree["left_children"][node], bit)):
            part = Part(old.share * _share(tree, node, child), old.asked | bit, old.wanted | wanted)
            waiting.append((child, {**parts, feature: part}))
    return branch


def _narrowed(tree: Tree, node: int, old: Condition, is_left: bool) -> Condition:
    threshold, empty = tree["split_conditions"][node], old.empty and bool(tree["default_left"][node]) == is_left
    if is_left:
        return replace(old, high=min(old.high, threshold), empty=empty)
    return replace(old, low=max(old.low, threshold), empty=empty)


def _share(tree: Tree, node: int, child: int) -> float:
    return float(tree["sum_hessian"][child] / tree["sum_hessian"][node])
