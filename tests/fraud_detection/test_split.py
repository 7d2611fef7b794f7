"""The four periods of an honest run: where they lie, what they keep apart, and whose labels were known in time."""

from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlops.errors import BadData
from modules.fraud_detection.src.models.split import Period, Periods, Split, periods

FIRST, LAST = datetime(2025, 1, 1), datetime(2025, 4, 10, 15, 30)
DAYS = st.integers(1, 40)
SPLITS = st.builds(
    lambda train, delay, valid, test: Split(train=f"{train}d", delay=f"{delay}d", valid=f"{valid}d", test=f"{test}d"),
    DAYS, st.integers(0, 20), DAYS, DAYS,
)  # fmt: skip


def laid(split: Split, first: datetime = FIRST, last: datetime = LAST) -> Periods:
    return periods(split, first, last)


def rows(table: pl.DataFrame, period: Period) -> list[int]:
    return period.rows(table, "time", "fraud", "known")["id"].to_list()


def test_the_periods_lie_back_from_the_midnight_after_the_last_row() -> None:
    found = laid(Split(train="28d", delay="7d", valid="7d", test="7d"))
    spans = [(period.since, period.until) for period in (found.choose_train, found.valid, found.train, found.test)]
    assert spans == [
        (datetime(2025, 2, 14), datetime(2025, 3, 14)),
        (datetime(2025, 3, 21), datetime(2025, 3, 28)),
        (datetime(2025, 2, 28), datetime(2025, 3, 28)),
        (datetime(2025, 4, 4), datetime(2025, 4, 11)),
    ]
    assert found.choose_train.known_by == datetime(2025, 3, 21)
    assert found.train.known_by == datetime(2025, 4, 4)


@given(SPLITS)
def test_training_ends_the_delay_before_its_judge_begins_and_no_test_row_is_trained_or_chosen_on(split: Split) -> None:
    first = LAST - timedelta(days=200)
    found = laid(split, first)
    delay = timedelta(days=int(split.delay[:-1]))
    assert found.choose_train.until + delay == found.valid.since == found.choose_train.known_by
    assert found.train.until + delay == found.test.since == found.train.known_by
    assert found.valid.until <= found.test.since
    for period in (found.choose_train, found.valid, found.train, found.test):
        assert first - timedelta(days=1) <= period.since < period.until
    assert found.test.until - timedelta(days=1) <= LAST < found.test.until
    for name, period in (("train", found.choose_train), ("valid", found.valid), ("train", found.train)):
        assert period.until - period.since == timedelta(days=int(getattr(split, name)[:-1]))


TABLES = st.lists(
    st.tuples(st.integers(0, 99 * 24), st.sampled_from([0, 1, None]), st.integers(1, 30 * 24)), min_size=1, max_size=60
).map(
    lambda drawn: pl.DataFrame(
        {
            "id": range(len(drawn)),
            "time": [FIRST + timedelta(hours=hour) for hour, _, _ in drawn],
            "fraud": [label for _, label, _ in drawn],
            "known": [FIRST + timedelta(hours=hour + later) for hour, _, later in drawn],
        },
        schema_overrides={"fraud": pl.Int8},
    )
)


@given(TABLES, SPLITS)
def test_a_model_sees_no_row_it_is_judged_on_and_no_label_that_was_unknown_when_judging_began(
    table: pl.DataFrame, split: Split
) -> None:
    assume(sum(int(length[:-1]) for length in (split.train, split.delay, split.valid, split.delay, split.test)) < 100)
    found = laid(split)
    for learned, judged in ((found.choose_train, found.valid), (found.train, found.test)):
        taught, asked = rows(table, learned), rows(table, judged)
        assert not set(taught) & set(asked)
        assert all(table["known"][row] <= judged.since for row in taught)
        assert all(table["fraud"][row] is not None for row in [*taught, *asked])
    assert not set(rows(table, found.valid)) & set(rows(table, found.test))


def test_a_label_known_too_late_leaves_its_row_out_of_training_and_not_out_of_the_test() -> None:
    found = laid(Split(train="28d", delay="7d", valid="7d", test="7d"))
    begun = found.test.since
    times = [found.train.since, found.train.until - timedelta(seconds=1), found.train.until, found.test.since]
    known = [begun, begun + timedelta(microseconds=1), begun, begun + timedelta(days=90)]
    table = pl.DataFrame({"id": range(4), "time": times, "fraud": [0, 1, 1, 1], "known": known})
    assert rows(table, found.train) == [0]
    assert rows(table, found.test) == [3]


def test_rows_without_a_label_or_whose_label_never_became_known_are_left_out() -> None:
    period = Period(FIRST, LAST, datetime.max)
    table = pl.DataFrame(
        {"id": [0, 1, 2], "time": [FIRST] * 3, "fraud": [None, 1, 0], "known": [FIRST, None, FIRST]},
        schema_overrides={"known": pl.Datetime("us")},
    )
    assert rows(table, period) == [2]


def test_a_row_at_the_beginning_of_a_period_is_in_it_and_one_at_the_end_is_not() -> None:
    period = Period(FIRST, LAST, datetime.max)
    table = pl.DataFrame({"id": [0, 1], "time": [FIRST, LAST], "fraud": [0, 0], "known": [LAST, LAST]})
    assert rows(table, period) == [0]


def test_too_little_data_gives_one_line_with_what_there_is_and_what_is_needed() -> None:
    with pytest.raises(BadData) as failed:
        laid(Split(train="28d", delay="7d", valid="7d", test="7d"), LAST - timedelta(days=50))
    assert str(failed.value) == (
        "the data covers 50 days and the split needs 56: train 28d, delay 7d, valid 7d, delay 7d, test 7d; "
        "shorten the group 'split'"
    )


def test_data_that_is_just_long_enough_is_enough() -> None:
    split = Split(train="28d", delay="7d", valid="7d", test="7d")
    first = datetime(2025, 4, 11) - timedelta(days=56)
    assert laid(split, first).choose_train.since == first
    lengths = [timedelta(days=day) for day in (56, 57, 80)]
    assert all(one == other for one, other in pairwise([laid(split, datetime(2025, 4, 11) - x) for x in lengths]))
