"""Requests: one transaction as JSON is held against the limits, and cleaned by the steps, of a row of a table."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.errors import Refused
from mlops.serving.bodies import moment
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.validation import data_validation, transform
from modules.fraud_detection.src.validation.limits import Validation
from modules.fraud_detection.src.validation.requests import Requests
from modules.fraud_detection.src.validation.transform import STEPS, VALUE_STEPS, Step

DATASET = DataSet.model_validate(
    {
        "id": "transaction_id",
        "time": {"column": "timestamp"},
        "entities": ["customer_id", "terminal_id"],
        "amount": "amount",
        "numeric": ["age"],
        "categorical": ["channel"],
        "label": {"column": "is_fraud", "delay": "7d"},
    }
)
RULES = Validation.model_validate(
    {"limits": {"amount": {"min": 0, "max": 100_000}, "channel": {"values": ["web", "shop", "7"]}}}
)
STEPS_OF = (Step(do="round_cents", columns=("amount",)), Step(do="lower", columns=("customer_id",)))
REQUESTS = Requests(DATASET, RULES, STEPS_OF)
NOW = 1_800_000_000_000_000
GOOD: dict[str, Any] = {
    "transaction_id": "t-1", "timestamp": "2026-01-31T12:00:00Z", "customer_id": "C1", "terminal_id": 7,
    "amount": 12.345, "age": None, "channel": "web",
}  # fmt: skip


def read(**changed: Any) -> dict[str, Any]:
    body = {**GOOD, **changed}
    return REQUESTS.read(json.dumps({name: value for name, value in body.items() if value != "left out"}).encode(), NOW)


def test_a_request_becomes_a_cleaned_row() -> None:
    assert read() == {
        "transaction_id": "t-1", "timestamp": 1_769_860_800_000_000, "customer_id": "c1", "terminal_id": "7",
        "amount": 12.34, "age": None, "channel": "web",
    }  # fmt: skip


def test_what_may_be_empty_may_be_left_out() -> None:
    assert read(age="left out", channel="left out")["channel"] is None


def test_an_id_in_digits_is_the_same_as_a_number_and_as_a_text() -> None:
    assert read(transaction_id=17) == read(transaction_id="17")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", -0.01), ("amount", 100_000.01), ("amount", "12.5"), ("amount", True), ("amount", None),
        ("amount", [1]), ("amount", {"a": 1}), ("amount", 10**400), ("amount", "left out"),
        ("age", 2e9), ("age", "x"),
        ("transaction_id", ""), ("transaction_id", "x" * 65), ("transaction_id", "ä"), ("transaction_id", "a\n"),
        ("transaction_id", " a"), ("transaction_id", -1), ("transaction_id", 2**63), ("transaction_id", 1.5),
        ("transaction_id", None), ("transaction_id", "a\x00b"),
        ("customer_id", None), ("terminal_id", False),
        ("timestamp", "yesterday"), ("timestamp", "2026-02-30T00:00:00"), ("timestamp", 1_769_860_800),
        ("timestamp", "2026-1-1"), ("timestamp", "2026-W05-6"), ("timestamp", "1899-12-31"),
        ("timestamp", "9999-12-31"),
        ("timestamp", "0001-01-01T00:00:00+23:59"), ("timestamp", "2026-01-01T00:00:00+99:00"),
        ("timestamp", "٢٠٢٦-01-01"), ("timestamp", None),
        ("channel", "post"), ("channel", 8), ("channel", "w" * 65),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_the_name_of_its_field_and_never_echoed(field: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        read(**{field: value})
    assert caught.value.field == field
    assert caught.value.status == 422
    if isinstance(value, str) and len(value) > 4 and value != "left out":
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"NaN", b"\xff\xfe", b'{"amount": NaN}', b'{"amount": Infinity}', b'{"transaction_id": "\\ud800"}',
        json.dumps(GOOD).encode() + b"x", b"\x00",
    ],
)  # fmt: skip
def test_what_is_not_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        REQUESTS.read(body, NOW)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        REQUESTS.read(body, NOW)


@pytest.mark.parametrize("name", ["note", "4111111111111111", "is_fraud"])
def test_an_unknown_field_is_refused_and_not_quoted(name: str) -> None:
    with pytest.raises(Refused) as caught:
        read(**{name: {"deep": [[[1]]]}})
    assert "known are: transaction_id" in str(caught.value)
    assert name not in str(caught.value)


def test_a_time_in_the_future_is_refused_beyond_the_skew_of_clocks() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    body = json.dumps({**GOOD, "timestamp": "2026-01-31T12:05:00Z"}).encode()
    assert REQUESTS.read(body, int(now.timestamp() * 1e6))
    with pytest.raises(Refused, match="future"):
        REQUESTS.read(body, int(now.timestamp() * 1e6) - 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400), ("1970-01-01T00:01", 60), ("1970-01-01 00:00:01", 1),
        ("1970-01-01T01:00:00+01:00", 0), ("1970-01-01T00:00:00.5", None), ("1970-01-01T00:00:00.500", 0.5),
        ("1970-01-01T00:00:00.000001Z", 1e-6), ("1969-12-31T23:59:59Z", -1),
    ],
)  # fmt: skip
def test_times_are_read_in_utc(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(Refused):
            moment(text, "timestamp")
    else:
        assert moment(text, "timestamp") == round(seconds * 1e6)


def test_a_numeric_time_counts_from_the_origin_of_the_data_set() -> None:
    dataset = DataSet.model_validate(
        {"time": {"column": "t", "unit": "s", "origin": "2013-09-01"}, "label": {"column": "y", "delay": "1d"}}
    )
    reader = Requests(dataset, Validation(), ())
    row = reader.read(b'{"row_number": 1, "t": 1.5}', NOW)
    assert row["t"] == moment("2013-09-01T00:00:01.500Z", "t")
    for value in ("1e300", "1e18", "-1e17"):
        with pytest.raises(Refused):
            reader.read(b'{"row_number": 1, "t": %s}' % value.encode(), NOW)


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(TEXT)
@pytest.mark.parametrize("do", sorted(name for name, (number, _) in VALUE_STEPS.items() if not number))
def test_a_step_does_to_a_text_what_it_does_to_a_column(do: Any, text: str) -> None:
    column = transform.clean(pl.DataFrame({"x": [text]}, schema={"x": pl.String}), [Step(do=do)])["x"][0]
    assert VALUE_STEPS[do][1](text) == column


@settings(max_examples=500)
@given(st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9).map(lambda n: n / 1_000))
@pytest.mark.parametrize("do", sorted(name for name, (number, _) in VALUE_STEPS.items() if number))
def test_a_step_does_to_a_number_what_it_does_to_a_column(do: Any, number: float) -> None:
    column = transform.clean(pl.DataFrame({"x": [number]}), [Step(do=do)])["x"][0]
    assert VALUE_STEPS[do][1](number) == column


def test_every_step_has_a_form_for_one_value() -> None:
    assert VALUE_STEPS.keys() == STEPS.keys()


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {
            "transaction_id": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64),
            "timestamp": st.datetimes(datetime(1890, 1, 1), datetime(2030, 1, 1)).map(
                lambda at: at.isoformat(timespec="microseconds")
            ),
            "customer_id": st.integers(0, 2**63 - 1),
            "terminal_id": st.sampled_from(["a", "B", "7"]),
            "amount": st.floats(-10, 200_000, allow_nan=False),
            "age": st.none() | st.floats(-2e9, 2e9),
            "channel": st.none() | st.sampled_from(["web", "shop", "7", "post"]),
        }
    )
)
def test_a_request_is_refused_exactly_when_a_row_of_a_table_is_bad(values: dict[str, Any]) -> None:
    """The limits are declared once: both readers agree, and agree on the cleaned values."""
    table = pl.DataFrame([{**values, "is_fraud": 0}], schema_overrides={"age": pl.Float64, "channel": pl.String})
    checked = data_validation.check(table, DATASET, RULES, datetime(2027, 1, 15, 8))
    try:
        row = REQUESTS.read(json.dumps(values).encode(), NOW)
    except Refused:
        assert checked.bad_rows == 1
        return
    assert checked.bad_rows == 0
    clean = transform.clean(checked.good, STEPS_OF).row(0, named=True)
    assert {name: clean[name] for name in ("amount", "age", "channel")} == {
        name: row[name] for name in ("amount", "age", "channel")
    }
    assert row["timestamp"] == checked.good["timestamp"].dt.timestamp("us")[0]
