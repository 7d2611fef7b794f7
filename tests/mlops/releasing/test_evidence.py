"""Evidence: it depends on values alone, keeps its error rate however often one looks, and finds what is there."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlops.releasing.evidence import STAKES, Evidence

Floats = NDArray[np.floating[Any]]
LEVEL, SEQUENCES, LENGTH = 0.1, 2_000, 400

values = st.lists(st.floats(-1, 5), max_size=30)


def of(*parts: list[float]) -> Evidence:
    evidence = Evidence(-1.0)
    for part in parts:
        evidence.add(np.array(part, np.float64))
    return evidence


@given(values, values)
def test_order_and_portions_change_nothing(one: list[float], two: list[float]) -> None:
    whole = of(one + two)
    for other in (of(one, two), of(two, one), of(sorted(one + two))):
        assert math.isclose(other.log, whole.log, rel_tol=1e-9, abs_tol=1e-9)
        assert other.count == whole.count == len(one) + len(two)


def test_nothing_seen_is_no_evidence_and_the_worst_values_leave_a_number() -> None:
    assert of([]).log == pytest.approx(0)
    assert not of([]).reaches(0.99)
    assert -1e6 < of([-1.0] * 10_000).log < 0


@given(values, st.floats(1e-6, 0.999))
def test_a_claim_is_refused_where_the_wealth_is_one_over_the_error_rate(seen: list[float], level: float) -> None:
    found = of(seen)
    assert found.reaches(level) == (found.log >= math.log(1 / level)) or math.isclose(found.log, -math.log(level))


def test_winning_all_the_time_refuses_a_claim_at_ever_smaller_error_rates() -> None:
    assert [of([1.0] * count).reaches(level) for count, level in ((10, 0.05), (10, 1e-6), (40, 1e-6))] == [
        True, False, True,
    ]  # fmt: skip


def ever_reached(drawn: Floats, low: float) -> float:
    """The share of sequences (rows) whose wealth reaches 1 / LEVEL at any look."""
    logs = np.stack([np.log1p(stake / -low * drawn).cumsum(axis=1) for stake in STAKES])
    wealth = np.logaddexp.reduce(logs, axis=0) - math.log(len(STAKES))
    last = Evidence(low)
    last.add(drawn[0].astype(np.float64))
    assert math.isclose(last.log, wealth[0, -1], rel_tol=1e-9, abs_tol=1e-9)
    return float((wealth.max(axis=1) >= -math.log(LEVEL)).mean())


def coin(draw: np.random.Generator) -> Floats:
    return (draw.random((SEQUENCES, LENGTH)) < 0.2) - 0.2


def skewed(draw: np.random.Generator) -> Floats:
    return np.where(draw.random((SEQUENCES, LENGTH)) < 0.01, 0.99, -0.01)


def swinging(draw: np.random.Generator) -> Floats:
    """Fair at each step, and wilder after a win."""
    signs = draw.choice([-1.0, 1.0], (SEQUENCES, LENGTH))
    return signs * np.where(np.roll(signs, 1, axis=1) > 0, 0.9, 0.1)


@pytest.mark.parametrize(("world", "low"), [(coin, -0.2), (skewed, -0.01), (swinging, -1.0)])
def test_a_true_claim_is_hardly_ever_refused_though_one_looks_all_the_time(
    world: Callable[[np.random.Generator], Floats], low: float
) -> None:
    assert ever_reached(world(np.random.default_rng(0)), low) <= LEVEL


def test_what_is_there_is_found() -> None:
    draw = np.random.default_rng(1)
    assert ever_reached((draw.random((SEQUENCES, LENGTH)) < 0.3) - 0.2, -0.2) > 0.9
