"""Cleaning steps: each does what its name says, touches what it names, and may be repeated."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mlops.errors import BadConfiguration
from modules.fraud_detection.src.validation.transform import STEPS, Step, clean

Name = Literal["strip", "lower", "empty_to_null", "absolute", "round_cents"]
TEXTS = st.none() | st.text(st.sampled_from(" \t\nAbÉİßΣς\u00a0\u2003"), max_size=6) | st.text(max_size=6)
# Validation lets no number through that is larger than 1e9.
NUMBERS = st.none() | st.floats(-1e9, 1e9) | st.just(float("nan"))
FRAMES = st.lists(st.tuples(TEXTS, TEXTS, NUMBERS, NUMBERS, st.integers(-9, 9)), max_size=8).map(
    lambda rows: pl.DataFrame(
        rows,
        schema={"a": pl.String, "b": pl.String, "x": pl.Float64, "y": pl.Float64, "whole": pl.Int64},
        orient="row",
    )
)
SEQUENCES = st.lists(st.sampled_from(list(STEPS)), max_size=5)


def steps(*names: str) -> list[Step]:
    return [Step.model_validate({"do": name}) for name in names]


def done(name: Name, values: Sequence[Any]) -> list[Any]:
    return clean(pl.DataFrame({"column": values}, strict=False), [Step(do=name)])["column"].to_list()


def test_every_step_that_can_be_configured_is_tested_here() -> None:
    assert set(get_args(Name)) == set(STEPS)


@settings(max_examples=150, deadline=None)
@given(FRAMES, SEQUENCES)
def test_cleaning_twice_equals_cleaning_once_and_rows_types_and_columns_stay(
    frame: pl.DataFrame, names: list[str]
) -> None:
    once = clean(frame, steps(*names))
    assert_frame_equal(clean(once, steps(*names)), once)
    assert (once.schema, once.height) == (frame.schema, frame.height)
    assert_frame_equal(once.select("whole"), frame.select("whole"))


@settings(max_examples=50, deadline=None)
@given(FRAMES, SEQUENCES)
def test_a_row_is_cleaned_by_itself_whatever_its_neighbours_and_its_place(
    frame: pl.DataFrame, names: list[str]
) -> None:
    wanted = steps(*names)
    assert_frame_equal(clean(frame.reverse(), wanted).reverse(), clean(frame, wanted))
    alone = [clean(frame[place : place + 1], wanted) for place in range(frame.height)]
    assert_frame_equal(pl.concat([frame.clear(), *alone]), clean(frame, wanted))


def test_strip_removes_blanks_at_both_ends_and_none_within() -> None:
    assert done("strip", ["  a b\t\n", "a", " ", "", None]) == ["a b", "a", "", "", None]


def test_lower_writes_letters_small() -> None:
    assert done("lower", ["AbC 1", "ÉCOLE", "", None]) == ["abc 1", "école", "", None]


def test_empty_to_null_empties_texts_without_a_letter_and_no_others() -> None:
    assert done("empty_to_null", ["", " ", "\t\n", " a ", None]) == [None, None, None, " a ", None]


def test_absolute_drops_the_sign() -> None:
    assert done("absolute", [-1.5, 1.5, 0.0, None]) == [1.5, 1.5, 0.0, None]


def test_round_cents_keeps_two_digits() -> None:
    assert done("round_cents", [1.234, 1.236, -1.236, 7.0, None]) == [1.23, 1.24, -1.24, 7.0, None]


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9))
def test_round_cents_moves_a_number_by_half_a_cent_at_most(number: float) -> None:
    (rounded,) = done("round_cents", [number])
    assert abs(rounded - number) <= 0.005 + 1e-6
    assert rounded == pytest.approx(round(rounded * 100) / 100, rel=1e-15)


def test_a_step_touches_only_the_columns_that_it_names() -> None:
    frame = pl.DataFrame({"a": [" A "], "b": [" B "]})
    cleaned = clean(frame, [Step(do="strip", columns=("a",)), Step(do="lower", columns=("b",))])
    assert cleaned.row(0) == ("A", " b ")


def test_steps_are_done_in_their_order() -> None:
    frame = pl.DataFrame({"x": [-1.005, -0.995]})
    assert clean(frame, steps("absolute", "round_cents"))["x"].to_list() == done("round_cents", [1.005, 0.995])
    assert clean(frame.head(0), steps("round_cents", "absolute"))["x"].to_list() == []


def test_no_steps_change_nothing() -> None:
    frame = pl.DataFrame({"a": [" A "], "x": [-1.234]})
    assert_frame_equal(clean(frame, []), frame)


@pytest.mark.parametrize("name", list(STEPS))
def test_a_step_that_names_a_column_the_data_has_not_is_refused(name: str) -> None:
    step = Step.model_validate({"do": name, "columns": ["amount", "amuont"]})
    with pytest.raises(
        BadConfiguration, match=f"^transform step '{name}' names column 'amuont', which the data has not"
    ):
        clean(pl.DataFrame({"amount": [1.0]}), [step])
