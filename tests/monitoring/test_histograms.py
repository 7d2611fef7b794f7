"""Distances of two histograms: known answers, and what holds for any two."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from monitoring import histograms
from monitoring.profile import profile

ROWS = st.integers(0, 300)
PAIRS = st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=25).filter(
    lambda pairs: all(sum(side) > 0 for side in zip(*pairs, strict=True))
)


def both(pairs: list[tuple[int, int]]) -> tuple[histograms.Counts, histograms.Counts]:
    return np.array([then for then, _ in pairs]), np.array([now for _, now in pairs])


def described(values: np.ndarray) -> dict[str, object]:
    found: dict[str, object] = profile(pl.DataFrame({"x": values}), ["x"])["x"]
    return found


def test_the_stability_index_by_hand() -> None:
    # Shares of .5, .5 and .6, .4: .1 ln(6 / 5) + .1 ln(5 / 4).
    found = histograms.stability(np.array([500_000, 500_000]), np.array([600_000, 400_000]))
    assert found == pytest.approx(0.1 * math.log(1.5), rel=1e-4)


def test_an_empty_bin_holds_half_a_row_of_the_smaller_sample() -> None:
    # 200 rows in one bin against 50 and 50: half a row of 100 is a share of .005, twice.
    p, q = np.array([1.005, 0.005]) / 1.01, np.array([0.505, 0.505]) / 1.01
    expected = sum((q - p) * np.log(q / p))
    assert histograms.stability(np.array([200, 0]), np.array([50, 50])) == pytest.approx(expected)


@given(PAIRS)
def test_the_index_is_never_negative_and_0_between_equal_shares(pairs: list[tuple[int, int]]) -> None:
    then, now = histograms.pooled(*both(pairs))
    assert histograms.stability(then, now) >= 0
    assert histograms.stability(*histograms.pooled(then, 3 * then)) == pytest.approx(0, abs=1e-12)


@given(PAIRS, st.randoms())
def test_the_order_of_bins_and_of_samples_changes_no_index(pairs: list[tuple[int, int]], draw: object) -> None:
    then, now = both(pairs)
    found = histograms.stability(*histograms.pooled(then, now))
    draw.shuffle(pairs)  # type: ignore[attr-defined]
    assert histograms.stability(*histograms.pooled(*both(pairs))) == pytest.approx(found, abs=1e-12)
    assert histograms.stability(*histograms.pooled(now, then)) == pytest.approx(found, abs=1e-12)


@given(PAIRS)
def test_pooling_loses_no_row_and_leaves_no_thin_bin_beside_another(pairs: list[tuple[int, int]]) -> None:
    then, now = both(pairs)
    pooled = histograms.pooled(then, now)
    assert [counts.sum() for counts in pooled] == [then.sum(), now.sum()]
    together = pooled[0] + pooled[1]
    smaller = min(then.sum(), now.sum())
    assert together.size == 1 or min(together) * smaller / together.sum() >= histograms.THIN
    assert min(together) > 0


def test_thick_bins_stay_and_thin_ones_become_one() -> None:
    then, now = np.array([50, 1, 30, 3, 2]), np.array([50, 2, 30, 4, 1])
    assert [counts.tolist() for counts in histograms.pooled(then, now)] == [[50, 30, 6], [50, 30, 7]]
    then, now = np.array([50, 1, 30, 0]), np.array([50, 0, 30, 1])
    assert [counts.tolist() for counts in histograms.pooled(then, now)] == [[50, 31], [50, 31]]


def test_the_kolmogorov_smirnov_distance_by_hand() -> None:
    # Cumulated: .1, .3, .6, 1 and .4, .7, .9, 1.
    then, now = np.array([10, 20, 30, 40]), np.array([4, 3, 2, 1])
    assert histograms.kolmogorov_smirnov(then, now) == pytest.approx(0.4)


def test_values_are_counted_where_training_counted_its_own_and_outside_apart() -> None:
    values = np.random.default_rng(1).exponential(size=500).round(1)
    then, now = histograms.counted(described(values), values)
    assert then.tolist() == now.tolist()
    _, now = histograms.counted(described(values), np.array([-1.0, -2.0, 99.0, 0.1]))
    assert (now[0], now[-1], now.sum()) == (2, 1, 4)


@pytest.mark.parametrize(("name", "within"), [("shifted", 1e-9), ("far out", 1e-9), ("wider", 0.1), ("both", 0.1)])
def test_the_wasserstein_distance_is_near_the_true_one_and_exact_where_rows_move_one_way(
    name: str, within: float
) -> None:
    draw = np.random.default_rng(2)
    then = draw.normal(10, 3, 20_000)
    now = {
        "shifted": then + 2,
        "far out": np.where(then > 12, then + 500, then),
        "wider": draw.normal(10, 6, 20_000),
        "both": np.where(then > 12, then + 4, then - 1),
    }[name]
    true = wasserstein_distance(then, now) / then.std()
    assert histograms.wasserstein(described(then), now) == pytest.approx(true, rel=within)


def test_a_sample_is_not_at_all_away_from_itself_and_a_constant_has_no_scale() -> None:
    values = np.random.default_rng(3).normal(size=999).round(1)
    assert histograms.wasserstein(described(values), values) == pytest.approx(0, abs=1e-12)
    assert histograms.wasserstein(described(np.repeat(0.1, 30)), values) is None
