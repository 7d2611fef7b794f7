"""What validation lets through and what it quarantines: schema, nulls and ranges, each with row, column and reason."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops.errors import BadConfiguration, BadData
from modules.fraud_detection.src.data.dataset import DataSet, Time
from modules.fraud_detection.src.validation.data_validation import QUARANTINE, ROW, Checked, check, enforce
from modules.fraud_detection.src.validation.limits import LARGEST, Validation

NOW = datetime(2026, 1, 1)
DATA = DataSet.model_validate(
    {
        "id": "payment",
        "time": {"column": "time"},
        "entities": ["customer"],
        "amount": "amount",
        "label": {"column": "fraud", "known_at": "known"},
        "numeric": ["age"],
        "categorical": ["channel"],
    }
)
RULES = Validation.model_validate(
    {"limits": {"amount": {"min": 0, "max": 1_000}, "channel": {"values": ["web", "shop"]}}}
)
GOOD: Mapping[str, str | None] = {
    "payment": "p0", "time": "2025-03-01T10:00:00", "customer": "007", "amount": "10.5", "fraud": "0",
    "known": "2025-03-08T10:00:00", "age": "41", "channel": "web",
}  # fmt: skip


def table(*changes: Mapping[str, str | None]) -> pl.DataFrame:
    """A table of text as CSV gives it: one good row for each argument, with its own id, changed as it says."""
    rows = [{**GOOD, "payment": f"p{place}", **change} for place, change in enumerate(changes)]
    return pl.DataFrame(rows, schema=dict.fromkeys(GOOD, pl.String))


def checked(frame: pl.DataFrame, rules: Validation = RULES, dataset: DataSet = DATA) -> Checked:
    return check(frame, dataset, rules, NOW)


def timed(value: Any, **words: Any) -> list[datetime]:
    """The times that come out of a column that holds `value` alone."""
    dataset = DataSet.model_validate({"time": {"column": "time", **words}, "label": {"column": "fraud", "delay": "7d"}})
    frame = pl.DataFrame({"row_number": [0], "time": [value], "fraud": [0]})
    return checked(frame, Validation(), dataset).good["time"].to_list()


@pytest.fixture
def schema_failures() -> pl.DataFrame:
    """Values of the wrong kind."""
    return table(
        {}, {"amount": "many"}, {"age": "old"}, {"time": "soon"}, {"fraud": "2"}, {"known": "never"}, {"payment": "p0"}
    )


@pytest.fixture
def null_failures() -> pl.DataFrame:
    """Empty values where none may be."""
    return table({}, {"payment": None}, {"time": None}, {"customer": None}, {"amount": None})


@pytest.fixture
def range_failures() -> pl.DataFrame:
    """Values of the right kind outside their limits."""
    return table(
        {},
        {"amount": "-0.01"},
        {"amount": "1000.01"},
        {"age": "1000000001"},
        {"channel": "phone"},
        {"time": "2026-01-02T00:00:00", "known": None},
        {"known": "2025-03-01T10:00:00"},
    )


def test_values_that_break_the_schema_are_quarantined_with_row_column_value_and_reason(
    schema_failures: pl.DataFrame,
) -> None:
    found = checked(schema_failures)
    assert found.good[ROW].to_list() == [0]
    assert found.quarantine.rows() == [
        (1, "amount", "many", "is not a number"),
        (2, "age", "old", "is not a number"),
        (3, "time", "soon", "is not a time in the declared form"),
        (4, "fraud", "2", "is not 0 or 1"),
        (5, "known", "never", "is not a time in the declared form"),
        (6, "payment", "p0", "is a duplicate of an earlier row"),
    ]


def test_empty_values_where_none_may_be_are_quarantined_with_row_column_and_reason(null_failures: pl.DataFrame) -> None:
    found = checked(null_failures)
    assert found.good[ROW].to_list() == [0]
    assert found.quarantine.rows() == [
        (1, "payment", None, "is empty"),
        (2, "time", None, "is empty"),
        (3, "customer", None, "is empty"),
        (4, "amount", None, "is empty"),
    ]


def test_values_outside_their_limits_are_quarantined_with_row_column_value_and_reason(
    range_failures: pl.DataFrame,
) -> None:
    found = checked(range_failures)
    assert found.good[ROW].to_list() == [0]
    assert found.quarantine.rows() == [
        (1, "amount", "-0.01", "is not between 0 and 1000"),
        (2, "amount", "1000.01", "is not between 0 and 1000"),
        (3, "age", "1000000001.0", "is not between -1e+09 and 1e+09"),
        (4, "channel", "phone", "is not one of web, shop"),
        (5, "time", "2026-01-02 00:00:00.000000", "lies in the future"),
        (6, "known", "2025-03-01 10:00:00.000000", "is not after the transaction"),
    ]


def test_both_ends_of_a_limit_are_allowed() -> None:
    assert checked(table({"amount": "0"}, {"amount": "1000"}, {"age": f"{-LARGEST}"})).bad_rows == 0


def test_every_bad_value_of_a_row_is_named() -> None:
    found = checked(table({"amount": "many", "customer": None, "fraud": "yes", "channel": "phone"}))
    assert found.quarantine["column"].to_list() == ["amount", "channel", "customer", "fraud"]
    assert (found.rows, found.bad_rows) == (1, 1)


@pytest.mark.parametrize("text", ["NaN", "nan", "inf", "-inf", "Infinity", "1e400", "-1e400"])
def test_a_number_that_is_not_finite_is_quarantined_also_where_csv_spells_it(text: str) -> None:
    found = checked(table({"amount": text}), Validation())
    assert found.quarantine.select("column", "reason").rows() == [("amount", "is not a finite number")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_quarantined_where_parquet_holds_it(value: float) -> None:
    found = checked(table({}).with_columns(amount=pl.lit(value)), Validation())
    assert found.quarantine.select("column", "reason").rows() == [("amount", "is not a finite number")]


def test_not_a_number_in_a_column_that_may_be_empty_is_empty_and_infinity_is_still_refused() -> None:
    found = checked(table({"age": "NaN"}, {"age": "inf"}, {"age": None}))
    assert found.good["age"].to_list() == [None, None]
    assert found.quarantine.rows() == [(1, "age", "inf", "is not a finite number")]


def test_of_rows_with_one_id_the_first_is_kept() -> None:
    found = checked(table({"payment": "a", "amount": "1"}, {"payment": "b"}, *[{"payment": "a", "amount": "2"}] * 2))
    assert found.good.select(ROW, "amount").rows() == [(0, 1.0), (1, 10.5)]
    assert found.quarantine["row"].to_list() == [2, 3]


def test_ids_that_are_whole_numbers_stay_numbers_and_duplicates_are_found() -> None:
    frame = table({}, {}, {}).with_columns(payment=pl.Series([7, 8, 7]))
    found = checked(frame)
    assert found.good["payment"].to_list() == [7, 8]
    assert found.quarantine.rows() == [(2, "payment", "7", "is a duplicate of an earlier row")]


def test_a_time_may_lie_as_far_in_the_future_as_clocks_may_differ() -> None:
    near, far = NOW + timedelta(minutes=5), NOW + timedelta(minutes=5, microseconds=1)
    found = checked(table({"time": near.isoformat(), "known": None}, {"time": far.isoformat(), "known": None}))
    assert found.good["time"].to_list() == [near]
    assert found.quarantine.select("row", "reason").rows() == [(1, "lies in the future")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0", "1", "0.0", "1.0", "false", "TRUE", None], [0, 1, 0, 1, 0, 1, None]),
        ([0, 1, 0, 1, 0, 1, None], [0, 1, 0, 1, 0, 1, None]),
        ([0.0, 1.0, float("nan"), 1.0, 0.0, 1.0, None], [0, 1, None, 1, 0, 1, None]),
        ([False, True, False, True, False, True, None], [0, 1, 0, 1, 0, 1, None]),
    ],
)
def test_labels_come_out_as_0_1_or_empty_however_they_are_written(
    values: list[Any], expected: list[int | None]
) -> None:
    found = checked(table(*[{}] * 7).with_columns(fraud=pl.Series(values)))
    assert found.good["fraud"].to_list() == expected
    assert found.good.schema["fraud"] == pl.Int8


@pytest.mark.parametrize("value", ["2", "-1", "0.5", "yes", " 1", 2, -1, 0.5])
def test_a_label_that_is_not_0_or_1_is_quarantined_as_it_was_written(value: str | float) -> None:
    found = checked(table({}).with_columns(fraud=pl.Series([value])))
    assert found.quarantine.rows() == [(0, "fraud", str(value), "is not 0 or 1")]


def test_a_label_known_at_or_before_its_transaction_is_quarantined() -> None:
    times = ("2025-03-01T09:59:59.999999", "2025-03-01T10:00:00", "2025-03-01T10:00:00.000001")
    found = checked(table(*({"known": time} for time in times)))
    assert found.good[ROW].to_list() == [2]
    assert set(found.quarantine["reason"]) == {"is not after the transaction"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-01T10:00:00", datetime(2025, 3, 1, 10)),
        ("2025-03-01 10:00:00", datetime(2025, 3, 1, 10)),
        ("2025-03-01T10:00", datetime(2025, 3, 1, 10)),
        ("2025-03-01 10:00:00.5", datetime(2025, 3, 1, 10, 0, 0, 500_000)),
        ("2025-03-01T10:00:00.123456", datetime(2025, 3, 1, 10, 0, 0, 123_456)),
        ("2025-03-01T10:00:00Z", datetime(2025, 3, 1, 10)),
        ("2025-03-01 10:00:00.25Z", datetime(2025, 3, 1, 10, 0, 0, 250_000)),
        ("2025-03-01T10:00:00+02:00", datetime(2025, 3, 1, 8)),
        ("2025-03-01 23:30:00-05:00", datetime(2025, 3, 2, 4, 30)),
        ("2025-03-01", datetime(2025, 3, 1)),
        (" 2025-03-01 10:00:00 ", datetime(2025, 3, 1, 10)),
    ],
)
def test_iso_text_becomes_a_time_in_utc(text: str, expected: datetime) -> None:
    assert timed(text) == [expected]


@pytest.mark.parametrize("text", ["", "soon", "2025-02-30", "2025-13-01T00:00:00", "01/03/2025", "1740823200", "10:00"])
def test_text_that_is_no_iso_time_is_refused(text: str) -> None:
    assert timed(text) == []


@pytest.mark.parametrize(
    ("value", "words", "expected"),
    [
        (1_740_823_200, {"unit": "s"}, datetime(2025, 3, 1, 10)),
        (1_740_823_200.25, {"unit": "s"}, datetime(2025, 3, 1, 10, 0, 0, 250_000)),
        ("1740823200", {"unit": "s"}, datetime(2025, 3, 1, 10)),
        (1_740_823_200_001, {"unit": "ms"}, datetime(2025, 3, 1, 10, 0, 0, 1_000)),
        (1_740_823_200_000_001, {"unit": "us"}, datetime(2025, 3, 1, 10, 0, 0, 1)),
        (90_061, {"unit": "s", "origin": "2013-09-01"}, datetime(2013, 9, 2, 1, 1, 1)),
        (-1, {"unit": "s"}, datetime(1969, 12, 31, 23, 59, 59)),
        ("01/03/2025 10:05", {"pattern": "%d/%m/%Y %H:%M"}, datetime(2025, 3, 1, 10, 5)),
        ("03.2025.01", {"pattern": "%m.%Y.%d"}, datetime(2025, 3, 1)),
    ],
)
def test_a_time_is_read_by_its_unit_and_origin_or_its_pattern(
    value: Any, words: dict[str, str], expected: datetime
) -> None:
    assert timed(value, **words) == [expected]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2025-03-01", {"unit": "s"}),
        (1e30, {"unit": "s"}),
        ("2025-03-01", {"pattern": "%d/%m/%Y"}),
        (1_740_823_200, {}),
    ],
)
def test_a_time_in_another_form_than_the_declared_one_is_refused(value: Any, words: dict[str, str]) -> None:
    assert timed(value, **words) == []


def test_times_of_every_parquet_type_come_out_as_microseconds_in_utc_without_a_zone() -> None:
    zoned = datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    columns = [
        pl.Series([datetime(2025, 3, 1, 10)], dtype=pl.Datetime("ms")),
        pl.Series([datetime(2025, 3, 1, 10)], dtype=pl.Datetime("ns")),
        pl.Series([zoned.astimezone(UTC)]).dt.convert_time_zone("Europe/Amsterdam"),
    ]
    for column in columns:
        good = checked(table({}).with_columns(time=column)).good
        assert good["time"].to_list() == [datetime(2025, 3, 1, 10)]
        assert good.schema["time"] == pl.Datetime("us")
    days = checked(table({}).with_columns(time=pl.Series([date(2025, 3, 1)]))).good["time"]
    assert days.to_list() == [datetime(2025, 3, 1)]


@pytest.mark.parametrize("column", ["age", "channel", "fraud", "known"])
def test_further_columns_and_the_label_may_be_empty(column: str) -> None:
    assert checked(table({column: None})).good[column].to_list() == [None]


@pytest.mark.parametrize(
    ("column", "nullable"), [("customer", True), ("amount", True), ("age", False), ("fraud", False)]
)
def test_a_limit_says_whether_a_column_may_be_empty_whatever_its_part(column: str, nullable: bool) -> None:
    rules = Validation.model_validate({"limits": {column: {"nullable": nullable}}})
    assert checked(table({column: None}), rules).bad_rows == (0 if nullable else 1)


def test_limits_for_a_column_that_the_data_does_not_name_are_refused() -> None:
    rules = Validation.model_validate({"limits": {"amuont": {"min": 0}}})
    with pytest.raises(
        BadConfiguration, match=r"validation\.limits names column 'amuont', which the group 'data' does"
    ):
        checked(table({}), rules)


def test_nothing_bad_leaves_a_quarantine_that_is_empty_and_has_its_columns() -> None:
    assert checked(table({}, {})).quarantine.schema == QUARANTINE
    assert checked(table({}, {})).quarantine.is_empty()


def test_a_table_without_any_label_is_checked_for_all_the_rest() -> None:
    frame = table({}, {"amount": "-1"}).with_columns(fraud=None, known=None)
    found = checked(frame)
    assert found.good[ROW].to_list() == [0]
    assert found.quarantine["column"].to_list() == ["amount"]


def test_over_the_share_the_run_stops_and_the_line_names_column_reason_count_and_share() -> None:
    found = checked(table({"customer": None}, {"amount": "9999"}, {"amount": "1234.5"}, *[{}] * 97))
    with pytest.raises(BadData) as stopped:
        enforce(found, RULES)
    assert str(stopped.value) == (
        "3 of 100 rows are bad (3.0%, more than validation.max_bad_share 1.0%); most often column 'amount' is not "
        "between 0 and 1000 (2 rows, first in row 1: '9999.0'); correct the data, the limits or the share"
    )


@pytest.mark.parametrize(("bad", "stops"), [(0, False), (1, False), (2, False), (3, True)])
def test_the_run_goes_on_up_to_the_share(bad: int, stops: bool) -> None:
    rules = RULES.model_copy(update={"max_bad_share": 0.02})
    found = checked(table(*[{"amount": "many"}] * bad, *[{}] * (100 - bad)), rules)
    assert found.bad_rows == bad
    if stops:
        with pytest.raises(BadData, match="3 of 100 rows"):
            enforce(found, rules)
    else:
        enforce(found, rules)


FAULTS: list[tuple[str, str | None]] = [
    ("payment", None), ("payment", "p0"), ("time", "soon"), ("time", None), ("time", "2030-01-01"), ("customer", None),
    ("amount", "many"), ("amount", "nan"), ("amount", "1e400"), ("amount", "-1"), ("amount", None), ("fraud", "7"),
    ("known", "?"), ("known", "1999-01-01"), ("age", "x"), ("age", "inf"), ("channel", "phone"),
]  # fmt: skip
FAULTY = st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3, unique_by=lambda fault: fault[0]).map(dict)
SOUND = st.fixed_dictionaries(
    {
        "time": st.datetimes(datetime(2000, 1, 1), datetime(2025, 1, 1)).map(lambda time: time.isoformat()),
        "known": st.none()
        | st.datetimes(datetime(2025, 1, 2), datetime(2040, 1, 1)).map(lambda time: time.isoformat()),
        "customer": st.text("abc 0123é,", max_size=5),
        "amount": st.floats(0, 1_000).map(str),
        "fraud": st.sampled_from(["0", "1", None]),
        "age": st.none() | st.integers(-1_000, 1_000).map(str),
        "channel": st.sampled_from(["web", "shop", None]),
    }
)


@settings(max_examples=60, deadline=None)
@example([(GOOD, {})])
@given(st.lists(st.tuples(SOUND, st.just({}) | FAULTY), min_size=1, max_size=12))
def test_good_and_bad_rows_are_told_apart_and_the_good_keep_order_and_values(
    drawn: list[tuple[Mapping[str, str | None], dict[str, str | None]]],
) -> None:
    # The first row is good, so that its id is there to be repeated.
    rows = [(drawn[0][0], {}), *drawn[1:]]
    found = checked(table(*({**sound, "payment": f"p{n}", **faults} for n, (sound, faults) in enumerate(rows))))
    bad = {place for place, (_, faults) in enumerate(rows) if faults}
    expected = [place for place in range(len(rows)) if place not in bad]

    assert found.good[ROW].to_list() == expected
    assert set(found.quarantine["row"]) == bad
    assert found.good.height + len(bad) == found.rows == len(rows)
    named = set(found.quarantine.select("row", "column").rows())
    for place, (_, faults) in enumerate(rows):
        # Whether a label is known too early cannot be told where the time is unreadable.
        judged = faults.keys() - ({"known"} if faults.get("time", "2030-01-01") != "2030-01-01" else set())
        assert {(place, column) for column in judged} <= named
    assert found.quarantine["reason"].null_count() == 0
    for place, kept in zip(expected, found.good.iter_rows(named=True), strict=True):
        sound = rows[place][0]
        assert kept["time"].isoformat() == sound["time"]
        assert kept["amount"] == float(sound["amount"] or "nan")
        assert (kept["customer"], kept["channel"]) == (sound["customer"], sound["channel"])
        assert kept["fraud"] == (None if sound["fraud"] is None else int(sound["fraud"]))
        assert kept["age"] == (None if sound["age"] is None else float(sound["age"]))


def test_a_whole_number_that_became_a_float_is_the_name_it_was() -> None:
    """Parquet from pandas holds ids as floats where one is missing; the same customer must not become another."""
    found = checked(
        table(*[{}] * 3).with_columns(customer=pl.Series([7.0, 8.5, 2e15]), channel=pl.Series(["web", "web", "shop"]))
    )
    assert found.good["customer"].to_list() == ["7", "8.5", "2000000000000000"]
    missing = checked(table({}).with_columns(customer=pl.Series([float("nan")])))
    assert missing.quarantine.select("column", "reason").rows() == [("customer", "is empty")]


def test_the_categories_of_a_limit_hold_for_whole_numbers_too() -> None:
    rules = Validation.model_validate({"limits": {"customer": {"values": ["1", "2"]}}})
    found = checked(table(*[{}] * 2).with_columns(customer=pl.Series([1, 3])), rules)
    assert found.quarantine.rows() == [(1, "customer", "3", "is not one of 1, 2")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("01/03/2025 12:00 +0200", {"pattern": "%d/%m/%Y %H:%M %z"}),
        ("2025-03-01T10:00Z", {}),
        ("2025-03-01T12:00+02:00", {}),
    ],
)
def test_a_time_with_a_zone_comes_out_in_utc_without_one(text: str, words: dict[str, str]) -> None:
    dataset = DATA.model_copy(update={"time": Time.model_validate({"column": "time", **words})})
    assert checked(table({"time": text}), dataset=dataset).good["time"].to_list() == [datetime(2025, 3, 1, 10)]


@pytest.mark.parametrize("seconds", ["-1e12", "9.2233e12", "-2.3e9"])
def test_a_numeric_time_before_1900_or_beyond_all_calendars_is_refused(seconds: str) -> None:
    dataset = DATA.model_copy(update={"time": Time.model_validate({"column": "time", "unit": "s"})})
    found = checked(table({"time": seconds, "known": None}), dataset=dataset)
    assert found.quarantine["column"].to_list() == ["time"]


def test_a_limit_whose_ends_are_swapped_is_refused() -> None:
    with pytest.raises(ValueError, match="min 5 is above max 1"):
        Validation.model_validate({"limits": {"amount": {"min": 5, "max": 1}}})


def test_a_column_may_be_called_row() -> None:
    dataset = DATA.model_copy(update={"categorical": ("row",)})
    found = checked(table({}).with_columns(row=pl.lit("x")).drop("channel"), Validation(), dataset=dataset)
    assert found.good["row"].to_list() == ["x"]
