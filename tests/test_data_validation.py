"""Validation: schema, nulls and ranges, each failure named; good rows untouched; a run stopped when too much is bad."""

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.errors import BadConfiguration, BadData
from modules.fraud_detection.src.data import load_data
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.validation import data_validation
from modules.fraud_detection.src.validation.data_validation import Checked
from modules.fraud_detection.src.validation.limits import Validation

NOW = datetime(2026, 1, 1)
DATA: dict[str, Any] = {
    "id": "id",
    "time": {"column": "time"},
    "entities": ["card"],
    "amount": "amount",
    "numeric": ["score"],
    "categorical": ["channel"],
    "label": {"column": "fraud", "known_at": "known"},
}
LIMITS: dict[str, Any] = {"limits": {"amount": {"min": 0, "max": 1000}, "channel": {"values": ["web", "shop"]}}}
GOOD: dict[str, Any] = {
    "id": "1", "time": "2025-01-01T10:00:00", "card": "007", "amount": "12.5", "score": "0.1", "channel": "web",
    "fraud": "0", "known": "2025-01-08T10:00:00",
}  # fmt: skip


def check(
    rows: list[dict[str, Any]], data: dict[str, Any] | None = None, rules: dict[str, Any] | None = None
) -> Checked:
    """Check rows of text, as they come from a CSV file; ids are given where a row has none of its own."""
    numbered = [GOOD | {"id": str(place)} | row for place, row in enumerate(rows)]
    table = pl.DataFrame(numbered, schema=dict.fromkeys(GOOD, pl.String))
    return data_validation.check(
        table, DataSet.model_validate(data or DATA), Validation.model_validate(rules or LIMITS), NOW
    )


def reasons(checked: Checked) -> list[tuple[Any, ...]]:
    return checked.quarantine.rows()


def test_schema_a_value_of_the_wrong_kind_is_named_by_row_column_value_and_reason() -> None:
    checked = check([{}, {"amount": "twelve"}, {"time": "yesterday"}, {"fraud": "2"}])
    assert reasons(checked) == [
        (1, "amount", "twelve", "is not a number"),
        (2, "time", "yesterday", "is not a time in the declared form"),
        (3, "fraud", "2", "is not 0 or 1"),
    ]
    assert checked.good["id"].to_list() == ["0"]


def test_nulls_a_missing_value_is_named_where_one_is_needed_and_allowed_elsewhere() -> None:
    checked = check([{"amount": None}, {"card": None}, {"score": None, "channel": None, "fraud": None, "known": None}])
    assert reasons(checked) == [(0, "amount", None, "is empty"), (1, "card", None, "is empty")]
    assert checked.good.height == 1


def test_ranges_a_value_outside_its_limit_is_named_with_the_limit() -> None:
    checked = check([{"amount": "-0.01"}, {"amount": "1000.01"}, {"amount": "1000"}, {"channel": "pigeon"}])
    assert reasons(checked) == [
        (0, "amount", "-0.01", "is not between 0 and 1000"),
        (1, "amount", "1000.01", "is not between 0 and 1000"),
        (3, "channel", "pigeon", "is not one of web, shop"),
    ]


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity", "1e400"])
def test_a_number_that_is_not_finite_is_refused(text: str) -> None:
    checked = check([{"amount": text}])
    assert [(row[1], row[3]) for row in reasons(checked)] == [("amount", "is not a finite number")]


def test_nan_in_a_column_that_may_be_empty_is_an_empty_value() -> None:
    checked = check([{"score": "NaN"}])
    assert checked.bad_rows == 0
    assert checked.good["score"].to_list() == [None]


def test_of_rows_with_one_id_the_first_is_kept() -> None:
    checked = check([{"id": "a", "amount": "1"}, {"id": "a", "amount": "2"}, {"id": "b"}, {"id": "a"}])
    assert checked.good["amount"].to_list() == [1.0, 12.5]
    assert {(row[0], row[3]) for row in reasons(checked)} == {
        (1, "is a duplicate of an earlier row"),
        (3, "is a duplicate of an earlier row"),
    }


def test_a_time_in_the_future_is_refused_beyond_the_skew_of_clocks() -> None:
    near, far = "2026-01-01T00:04:59", "2026-01-01T00:05:01"
    checked = check([{"time": near, "known": None}, {"time": far, "known": None}])
    assert [(row[0], row[1], row[3]) for row in reasons(checked)] == [(1, "time", "lies in the future")]


def test_a_label_known_before_its_transaction_is_refused() -> None:
    checked = check([{"known": "2025-01-01T10:00:00"}, {"known": "2025-01-01T10:00:01"}])
    assert [(row[0], row[3]) for row in reasons(checked)] == [(0, "is not after the transaction")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-02T03:04:05", datetime(2025, 1, 2, 3, 4, 5)),
        ("2025-01-02 03:04:05.25", datetime(2025, 1, 2, 3, 4, 5, 250_000)),
        ("2025-01-02T03:04", datetime(2025, 1, 2, 3, 4)),
        ("2025-01-02", datetime(2025, 1, 2)),
        ("2025-01-02T03:04:05Z", datetime(2025, 1, 2, 3, 4, 5)),
        ("2025-01-02T03:04:05+02:00", datetime(2025, 1, 2, 1, 4, 5)),
    ],
)
def test_a_time_may_be_written_in_any_iso_form_even_mixed_in_one_column(text: str, expected: datetime) -> None:
    checked = check([{"time": text}, {"time": "2025-01-01T00:00:00"}])
    assert checked.good["time"][0] == expected


@pytest.mark.parametrize(
    ("time", "text", "expected"),
    [
        ({"unit": "s", "origin": "2013-09-01"}, "86400.5", datetime(2013, 9, 2, 0, 0, 0, 500_000)),
        ({"unit": "ms"}, "1735700645000", datetime(2025, 1, 1, 3, 4, 5)),
        ({"pattern": "%d/%m/%Y %H:%M"}, "31/12/2024 23:59", datetime(2024, 12, 31, 23, 59)),
    ],
)
def test_a_time_may_be_a_number_or_follow_a_pattern(time: dict[str, str], text: str, expected: datetime) -> None:
    checked = check([{"time": text}], data=DATA | {"time": {"column": "time", **time}})
    assert checked.good["time"].to_list() == [expected]


def test_times_of_a_zone_in_parquet_come_out_in_utc() -> None:
    table = pl.DataFrame([GOOD]).with_columns(
        pl.col("time").str.to_datetime(time_zone="UTC").dt.convert_time_zone("Asia/Tokyo")
    )
    checked = data_validation.check(table, DataSet.model_validate(DATA), Validation(), NOW)
    assert checked.good["time"].to_list() == [datetime(2025, 1, 1, 10)]


faults = st.sampled_from([{}, {}, {}, {"amount": "x"}, {"amount": "-1"}, {"card": None}, {"time": "?"}, {"fraud": "9"}])


@given(st.lists(faults, min_size=1, max_size=30))
@settings(deadline=None, max_examples=60)
def test_every_row_is_either_kept_unchanged_in_order_or_in_quarantine(rows: list[dict[str, Any]]) -> None:
    checked = check(rows)
    kept, away = checked.good["row"].to_list(), set(checked.quarantine["row"])
    assert kept == [place for place, row in enumerate(rows) if not row]
    assert away == {place for place, row in enumerate(rows) if row}
    assert checked.good["amount"].to_list() == [12.5] * len(kept)


def test_too_many_bad_rows_stop_the_run_with_the_commonest_reason_and_an_example() -> None:
    checked = check([{"amount": "-1"}, {"amount": "-2"}, {"card": None}, *[{}] * 7])
    message = (
        r"3 of 10 rows are bad \(30\.0%, more than validation\.max_bad_share 1\.0%\); most often column 'amount' is "
        r"not between 0 and 1000 \(2 rows, first in row 0: '-1\.0'\)"
    )
    with pytest.raises(BadData, match=message):
        data_validation.enforce(checked, Validation())
    data_validation.enforce(checked, Validation(max_bad_share=0.3))


def test_a_limit_for_a_column_that_plays_no_part_is_refused() -> None:
    with pytest.raises(BadConfiguration, match="names column 'amont', which the group 'data' does not"):
        check([{}], rules={"limits": {"amont": {"min": 0}}})


def test_a_column_may_be_allowed_or_forbidden_to_be_empty() -> None:
    rules = {"limits": {"card": {"nullable": True}, "score": {"nullable": False}}}
    assert reasons(check([{"card": None}, {"score": None}], rules=rules)) == [(1, "score", None, "is empty")]


def test_csv_and_parquet_of_one_table_are_checked_alike(tmp_path: Path, transactions: pl.DataFrame) -> None:
    names = {
        "transaction_id": "id",
        "timestamp": "time",
        "customer_id": "card",
        "is_fraud": "fraud",
        "label_known_at": "known",
    }
    data = DataSet.model_validate({**DATA, "numeric": [], "categorical": []})
    table = transactions.head(300).rename(names)
    table.write_csv(tmp_path / "a.csv")
    table.write_parquet(tmp_path / "a.parquet")
    goods = []
    for path in (tmp_path / "a.csv", tmp_path / "a.parquet"):
        with load_data.open_source(str(path)) as source:
            goods.append(data_validation.check(load_data.load(source, data), data, Validation(), NOW).good)
    assert goods[0].drop("id", "card").equals(goods[1].drop("id", "card"))
    assert goods[0].height == 300
