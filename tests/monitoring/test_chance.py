"""P-values: known answers, and that chance alone brings small ones no more often than they say."""

import math

import numpy as np
import pytest

from mlops.errors import BadInput
from monitoring import chance


def counts(*numbers: int) -> chance.Counts:
    return np.array(numbers)


def test_all_looks_at_all_parts_together_spend_the_false_alarms_once() -> None:
    spent = chance.PARTS * sum(chance.level(0.03, look) for look in range(1, 100_000))
    assert spent == pytest.approx(0.03, rel=1e-4)
    assert spent < 0.03


def test_a_look_before_the_first_is_refused() -> None:
    with pytest.raises(BadInput, match="look number 0 .* the first is 1"):
        chance.level(0.01, 0)


def test_holm_by_hand_keeps_the_order_and_never_falls() -> None:
    assert chance.holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert chance.holm([0.6, 0.7]) == [1, 1]
    assert chance.holm([]) == []


def test_pearson_by_hand_on_two_bins() -> None:
    # 50 and 50 against 60 and 40: a statistic of 2 * 25 / 55 + 2 * 25 / 45, and erfc(sqrt(x / 2)) for one degree.
    statistic = 50 / 55 + 50 / 45
    expected = math.erfc(math.sqrt(statistic / 2))
    assert chance.of_bins(counts(50, 50), counts(60, 40)) == pytest.approx(expected)
    assert chance.of_bins(counts(50, 50), counts(500, 500)) == 1
    assert chance.of_bins(counts(70), counts(30)) == 1


def test_fisher_by_hand_on_the_lady_who_tastes_tea() -> None:
    # All four of four found: one way of 70; twice that.
    assert chance.of_shares(0, 4, 4, 4) == pytest.approx(2 / 70)
    assert chance.of_shares(3, 10, 3, 10) == 1
    assert chance.of_shares(0, 10_000, 600, 1_000) < 1e-300


def test_new_levels_that_any_sample_would_hold_are_expected_and_likely() -> None:
    # 200 levels of one row, which falls in the second of two equal samples every other time, and 100 known to both.
    then, now = np.array([1] * 100 + [0] * 100 + [1] * 100), np.array([0] * 100 + [1] * 200)
    share, by_chance = chance.of_new_levels(then, now)
    # 200 / 2 of one row; 100 levels of two rows, both in the second nearly every fourth time: 2 * 100 * .249.
    assert share == pytest.approx((100 + 200 * 0.25 * 398 / 399) / 200, rel=1e-3)
    assert by_chance == pytest.approx(1, abs=0.01)


def test_one_new_level_of_many_rows_is_unlikely_as_shuffling_says() -> None:
    share, by_chance = chance.of_new_levels(counts(1_000, 0), counts(990, 10))
    exact = math.comb(1_000, 10) / math.comb(2_000, 10)
    assert share == pytest.approx(10 * exact / 1_000)
    assert by_chance == pytest.approx(exact, rel=1e-6)


def test_no_new_level_is_no_news() -> None:
    assert chance.of_new_levels(counts(100, 3), counts(50, 0))[1] == 1


@pytest.mark.parametrize("limit", [0.2, 0.05])
def test_chance_brings_small_p_values_no_more_often_than_they_say(limit: float) -> None:
    draw, rounds = np.random.default_rng(0), 400
    weights = 1 / np.arange(1, 31)
    found = {"bins": 0, "shares": 0, "levels": 0}
    rare = np.repeat(1 / 2_000, 2_000)
    for _ in range(rounds):
        then, now = draw.multinomial(3_000, weights / weights.sum()), draw.multinomial(1_000, weights / weights.sum())
        found["bins"] += chance.of_bins(then, now) <= limit
        found["shares"] += chance.of_shares(draw.binomial(3_000, 0.01), 3_000, draw.binomial(500, 0.01), 500) <= limit
        found["levels"] += chance.of_new_levels(draw.multinomial(2_000, rare), draw.multinomial(500, rare))[1] <= limit
    # Three deviations above what is stated.
    assert max(found.values()) <= rounds * limit + 3 * math.sqrt(rounds * limit)
    assert found["bins"] >= rounds * limit / 2, "a test that never alarms sees nothing"


def test_frauds_that_come_in_clumps_tell_as_much_as_fewer_that_come_alone() -> None:
    """Counts that come four at a time alarm at the stated rate, where the uncorrected p-value alarms far too often."""
    draw, wrong, stated = np.random.default_rng(0), [0, 0], 0.01
    for _ in range(400):
        then, now = (4 * int(draw.binomial(10_000, 0.0025)) for _ in range(2))
        plain = chance.of_shares(then, 40_000, now, 40_000)
        wrong[0] += plain <= stated
        wrong[1] += chance.clumped(plain, 4.0) <= stated
    assert wrong[0] / 400 > 5 * stated
    assert wrong[1] / 400 <= stated
    assert chance.clumped(0.03, 1.0) == 0.03
