"""Columns then and now: what has drifted, what has not, what cannot be told; and how often chance alone alarms."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops.errors import BadData
from monitoring.drift import Drift, compare, label_drift
from monitoring.drift_report import ColumnDrift, LabelDrift, Moments
from monitoring.profile import profile

WORDS = Drift()
ANY = Drift(psi=1e-9, null_share=1e-9, new_share=1e-9, label_ratio=1 + 1e-9, rows=50, labels=50, false_alarm=0.6)
"""Calls every difference large, so that chance alone stands between it and an alarm."""
VALUES = st.lists(st.none() | st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


def one(then: Any, now: Any, words: Drift = WORDS, looks: int = 1) -> ColumnDrift:
    """Compare one column, given as values or as a series."""
    before, after = (pl.DataFrame({"x": values}, strict=False) for values in (then, now))
    (found,) = compare(profile(before, ["x"]), after, words, looks)
    return found


def normal(rows: int, seed: int, mean: float = 0.0) -> list[float]:
    values: list[float] = np.random.default_rng(seed).normal(mean, 1, rows).tolist()
    return values


def test_two_samples_of_one_distribution_are_stable() -> None:
    found = one(normal(5_000, 0), normal(2_000, 1))
    assert (found.verdict, found.reasons) == ("stable", [])
    assert found.psi is not None and found.psi < 0.05
    assert found.chance is not None and found.chance > 0.01


def test_a_planted_shift_is_found_and_said() -> None:
    found = one(normal(5_000, 0), normal(2_000, 1, mean=0.6))
    assert found.verdict == "drifted"
    assert found.reasons == [f"its values moved: PSI {found.psi:.2f}, limit 0.2"]
    assert found.wasserstein == pytest.approx(0.6, abs=0.08)
    # Two normals that are .6 apart are 2 Phi(.3) - 1 apart at most.
    assert found.kolmogorov_smirnov == pytest.approx(0.236, abs=0.03)
    assert found.then and found.now and found.now.mean - found.then.mean == pytest.approx(0.6, abs=0.08)


def test_the_numbers_that_sum_up_a_column_are_those_of_then_and_of_now() -> None:
    found = one([0.0, 10.0] * 500, [-1.0, 7.0, None] * 300)
    assert found.then == Moments(mean=5, std=5, min=0, max=10)
    assert found.now == Moments(mean=3, std=4, min=-1, max=7)


def test_a_difference_that_is_certain_but_small_is_stable() -> None:
    found = one(normal(100_000, 0), normal(50_000, 1, mean=0.1))
    assert found.chance is not None and found.chance < 1e-9
    assert found.verdict == "stable"


def test_a_difference_that_is_large_but_likely_is_stable() -> None:
    few = Drift(rows=40)
    found = one(normal(40, 4), normal(40, 5), few)
    assert found.psi is not None and found.psi > few.psi
    assert found.verdict == "stable"


@pytest.mark.parametrize(("then", "now"), [(499, 5_000), (5_000, 499)])
def test_too_few_rows_then_or_now_are_not_judged(then: int, now: int) -> None:
    found = one(normal(then, 0), normal(now, 1, mean=9))
    assert (found.verdict, found.chance, found.reasons) == ("not enough rows", None, [])


def test_no_rows_at_all_are_too_few() -> None:
    found = one(normal(1_000, 0), pl.Series([], dtype=pl.Float64))
    assert (found.verdict, found.rows, found.psi, found.now) == ("not enough rows", 0, None, None)


@pytest.mark.parametrize("values", [[None], [float("nan")], [float("inf"), None]])
def test_a_column_that_became_empty_has_drifted_and_has_no_index(values: list[float | None]) -> None:
    found = one(normal(2_000, 0), pl.Series(values * 1_000, dtype=pl.Float64))
    assert (found.verdict, found.psi, found.now) == ("drifted", None, None)
    assert found.reasons == ["100.0% is empty, 0.0% was"]


def test_a_column_that_was_empty_and_is_not_has_drifted() -> None:
    found = one(pl.Series([None] * 1_000, dtype=pl.Float64), normal(1_000, 0))
    assert (found.verdict, found.psi, found.then) == ("drifted", None, None)
    assert found.reasons == ["0.0% is empty, 100.0% was"]
    assert one(pl.Series([None] * 1_000, dtype=pl.String), ["a"] * 1_000).verdict == "drifted"


def test_a_column_that_stays_empty_is_stable() -> None:
    empty = pl.Series([None] * 1_000, dtype=pl.Float64)
    assert one(empty, empty).verdict == "stable"


def test_more_empty_rows_are_drift_also_where_the_values_stay() -> None:
    then = [None if place % 50 == 0 else value for place, value in enumerate(normal(5_000, 0))]
    now = [None if place % 5 == 0 else value for place, value in enumerate(normal(2_000, 1))]
    assert one(then, now).reasons == ["20.0% is empty, 2.0% was"]
    assert one(now, then).reasons == ["2.0% is empty, 20.0% was"]


@pytest.mark.parametrize("value", [0.1 * 3 + 1e9, 0.1, 0.0])
@pytest.mark.parametrize("step", [-1.0, 1.0])
def test_a_constant_stays_or_moves_to_either_side(value: float, step: float) -> None:
    then = [value] * 1_001
    assert one(then, then[:600]).verdict == "stable"
    moved = one(then, [value + step] * 600)
    assert (moved.verdict, moved.wasserstein) == ("drifted", None)
    assert sum(bin_.then for bin_ in moved.bins) == sum(bin_.now for bin_ in moved.bins) == 1


def test_whole_numbers_and_truth_values_are_numbers() -> None:
    then = pl.Series([True, False] * 500)
    assert one(then, then).verdict == "stable"
    assert one(then, pl.Series([True] * 900 + [False] * 100)).verdict == "drifted"
    assert one(pl.Series([1, 2, 3] * 400), pl.Series([3] * 1_000)).verdict == "drifted"


def test_a_level_never_seen_is_drift_and_named() -> None:
    found = one(["web", "shop"] * 1_000, ["web", "shop"] * 400 + ["<app>"] * 200)
    assert found.verdict == "drifted"
    assert "20.0% has levels never seen: '<app>'" in found.reasons
    assert found.new_share == pytest.approx(0.2)
    assert found.new_expected == pytest.approx(0, abs=1e-9)


def test_levels_as_rare_as_any_sample_leaves_out_are_no_drift() -> None:
    draw = np.random.default_rng(7)
    then, now = (pl.Series(draw.integers(0, 5_000, rows)).cast(pl.String) for rows in (5_000, 2_000))
    found = one(then, now)
    assert found.new_share is not None and found.new_share > 0.3
    assert found.new_expected == pytest.approx(found.new_share, abs=0.05)
    assert found.verdict == "stable"


def test_new_levels_count_beyond_those_that_chance_brings() -> None:
    draw = np.random.default_rng(8)
    then, now = (pl.Series(draw.integers(0, 20_000, rows)).cast(pl.String) for rows in (50_000, 19_000))
    found = one(then, now.append(pl.Series(["new"] * 500)))
    assert found.chance is not None and found.chance < 1e-9
    assert found.new_share is not None and found.new_share > WORDS.new_share
    assert found.verdict == "stable", "a fortieth more than chance brings is less than the limit"


def test_levels_that_change_places_are_drift_without_any_new_one() -> None:
    found = one(["a"] * 800 + ["b"] * 200, ["a"] * 400 + ["b"] * 600)
    # (.4 - .2) and back: .4 ln(.4 / .8) and .4 ln(.6 / .2).
    assert found.psi == pytest.approx(0.4 * np.log(2) + 0.4 * np.log(3), rel=0.01)
    assert (found.verdict, found.new_share) == ("drifted", 0)


def test_of_many_levels_the_others_are_shown_as_one() -> None:
    levels = [str(place % 40) for place in range(4_000)]
    found = one(levels, levels)
    assert [bin_.label for bin_ in found.bins][-1] == "28 others"
    assert sum(bin_.now for bin_ in found.bins) == pytest.approx(1)


@pytest.mark.parametrize(("then", "now"), [([1.0], ["a"]), (["a"], [1.0])])
def test_a_column_of_another_kind_than_in_training_is_refused(then: list[Any], now: list[Any]) -> None:
    with pytest.raises(BadData, match="column 'x' was (numbers|text) in training and is (String|Float64) now"):
        one(then, now)


def test_only_columns_that_are_there_are_compared_in_the_order_of_the_profile() -> None:
    table = pl.DataFrame({"a": normal(600, 0), "b": normal(600, 1), "score": normal(600, 2), "other": normal(600, 3)})
    found = compare(profile(table, ["score", "b", "a"]), table.drop("b"), WORDS)
    assert [column.name for column in found] == ["score", "a"]


def test_the_same_difference_needs_more_the_more_columns_and_looks_there_are() -> None:
    then, now = normal(1_000, 0), normal(500, 1, mean=0.22)
    alone = one(then, now, ANY)
    table = {f"c{place}": normal(1_000, 100 + place) for place in range(40)}
    among = compare(
        profile(pl.DataFrame({"x": then, **table}), ["x", *table]),
        pl.DataFrame({"x": now, **{name: normal(500, 200 + place) for place, name in enumerate(table)}}), ANY,
    )  # fmt: skip
    assert alone.verdict == "drifted" and alone.chance and among[0].chance
    assert among[0].chance > 10 * alone.chance
    assert one(then, now, ANY, looks=1_000).verdict == "stable"


@given(VALUES, st.randoms())
@settings(max_examples=50)
def test_the_order_of_rows_changes_nothing(values: list[float | None], draw: Any) -> None:
    then = normal(60, 0)
    shuffled = list(values)
    draw.shuffle(shuffled)
    found, again = (one(then, pl.Series(rows, dtype=pl.Float64), ANY) for rows in (values, shuffled))
    assert (found.psi, found.bins, found.verdict) == (again.psi, again.bins, again.verdict)


@given(VALUES)
@settings(max_examples=50)
def test_a_table_has_not_drifted_from_itself(values: list[float | None]) -> None:
    column = pl.Series(values * 60, dtype=pl.Float64)
    found = one(column, column, ANY)
    assert found.verdict == "stable"
    assert not found.psi
    assert not found.wasserstein or found.wasserstein == pytest.approx(0, abs=1e-9)


def test_over_repeated_looks_at_many_columns_chance_alarms_no_more_often_than_stated() -> None:
    draw, sequences, alarms = np.random.default_rng(11), 100, 0
    levels = np.array(["a", "b", "c", "d", "e"])

    def table(rows: int) -> pl.DataFrame:
        half = pl.Series(draw.normal(size=rows)).set(pl.Series(draw.random(rows) < 0.5), None)
        texts = levels[np.minimum(draw.geometric(0.5, rows) - 1, 4)]
        counts = draw.poisson(0.3, rows).astype(float)
        return pl.DataFrame({"a": draw.normal(size=rows), "b": draw.exponential(size=rows), "c": counts, "d": half,
                             "e": texts})  # fmt: skip

    for _ in range(sequences):
        then = table(2_000)
        described = profile(then, then.columns)
        looks = (compare(described, table(400), ANY, look) for look in range(1, 5))
        alarms += any(column.verdict == "drifted" for look in looks for column in look)
    # The columns' third of .6 is .2; three deviations above it.
    assert alarms <= 0.2 * sequences + 3 * (0.2 * 0.8 * sequences) ** 0.5


def label(positives: int, labels: int, looks: int = 1) -> LabelDrift:
    return label_drift(0.01, 50_000, positives, labels, WORDS, looks)


def test_the_share_of_positives_is_judged_by_its_ratio_and_by_chance() -> None:
    assert label(101, 10_000).verdict == "stable"
    assert label(200, 10_000).verdict == "drifted"
    assert label(40, 10_000).verdict == "drifted"
    assert label(9, 500).verdict == "stable", "nearly twice as many, which five rows more can be"
    assert label(0, 10_000).verdict == "drifted"
    small = label(2_600, 200_000)
    assert small.chance is not None and small.chance < 1e-6
    assert small.verdict == "stable"


def test_labels_that_have_not_matured_yet_are_waited_for() -> None:
    found = label(400, 499)
    assert (found.verdict, found.chance, found.share_now) == ("not enough rows", None, 400 / 499)
    assert label(0, 0).share_now is None


def test_a_later_look_asks_for_more() -> None:
    assert label(72, 4_000).verdict == "drifted"
    assert label(72, 4_000, looks=10_000).verdict == "stable"


@pytest.mark.parametrize("wrong", [{"psi": 0}, {"false_alarm": 1.0}, {"label_ratio": 1.0}, {"bins": 3}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Drift.model_validate(wrong)
