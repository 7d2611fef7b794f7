"""The log: entities are hashed, card numbers and passwords blackened, and everything else is left as it is."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.logs import JsonLines
from modules.fraud_detection.src.utils import logger
from modules.fraud_detection.src.utils.logger import masked, pseudonym

Write = Callable[..., Mapping[str, Any]]
CARD = "4111 1111 1111 1111"
PLAIN = [
    "242,316 rows in 3.512345678901234 seconds",
    "amount 1234.56, loss 0.0001234567890123",
    "from 2025-03-01T10:00:00.123456 until 2025-03-08 10:00:00+02:00",
    "2025-03-01 10:00:00 trained on 28 days",
    "epoch 1740823200",
    "transaction 123456789012 of customer 42",
    "version 3.2.1 on 127.0.0.1:5000",
    "https://tracking.example.com:5000/#/experiments/0 and s3://bucket/models/3/model.json",
    "sqlite:///var/mlflow.db",
    "request 123e4567-e89b-42d3-a456-426614174000",
    "mail to someone@example.com",
    "sixty digits 123456789012345678901234567890123456789012345678901234567890",
    "from 2025-03-01 2025-04-01",
    "rows 10 20 30 40 50 60 70",
    "epoch 1740823200000",
    "http://localhost:5000/x@y",
    "",
]


@pytest.fixture
def write() -> Iterator[Write]:
    """Log one line with the module's logger and give back what was written."""
    log, stream = logger.start(["customer_id", "terminal_id"]), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log.handlers = [handler]

    def line(message: str, *args: object, **extra: object) -> Mapping[str, Any]:
        log.info(message, *args, extra=extra)
        written: Mapping[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
        return written

    yield line
    logger.start()


def test_an_entity_is_written_as_the_same_short_hash_each_time(write: Write) -> None:
    first = write("scored", customer_id="C-00123", terminal_id=7)
    second = write("declined", customer_id="C-00123", terminal_id=8)
    assert first["customer_id"] == second["customer_id"] == pseudonym("C-00123")
    assert first["terminal_id"] != second["terminal_id"]
    assert "00123" not in json.dumps([first, second])


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_different_entities_have_different_hashes_and_a_number_that_of_its_text(one: int, other: int) -> None:
    assert (pseudonym(one) == pseudonym(other)) == (one == other)
    assert pseudonym(one) == pseudonym(str(one))


def test_fields_that_are_no_entities_are_left_as_they_are(write: Write) -> None:
    line = write("scored", rows=242_316, seconds=3.5, snapshot="customer_id", found=None, good=True)
    assert (line["rows"], line["seconds"], line["snapshot"]) == (242_316, 3.5, "customer_id")
    assert (line["found"], line["good"]) == (None, True)


def test_a_card_number_is_masked_in_the_message_its_arguments_and_the_fields(write: Write) -> None:
    line = write(f"paid with {CARD} and %s by %s", "4111-1111-1111-1111", 4111111111111111, note=f"card {CARD}, old")
    assert line["message"] == "paid with [card] and [card] by [card]"
    assert line["note"] == "card [card], old"
    assert "1111" not in json.dumps(line)


def test_a_card_number_that_only_the_arguments_complete_is_masked(write: Write) -> None:
    assert write("card %s%s", "41111111", "11111111")["message"] == "card [card]"


def test_the_password_of_a_url_is_masked_in_the_message_and_the_fields(write: Write) -> None:
    line = write("connect %s", "postgresql://mlflow:s3cr3t!@db:5432/mlflow", where="https://me:pass:word@host/x")
    assert line["message"] == "connect postgresql://mlflow:***@db:5432/mlflow"
    assert line["where"] == "https://me:***@host/x"


def test_a_percent_sign_in_a_message_without_arguments_is_no_argument(write: Write) -> None:
    assert write("3 % of the rows")["message"] == "3 % of the rows"


@st.composite
def cards(draw: st.DrawFn) -> str:
    """A number that a card could have, plain or in printed groups, with one gap throughout."""
    length = draw(st.integers(13, 19))
    body = draw(st.sampled_from("23456")) + draw(st.text("0123456789", min_size=length - 2, max_size=length - 2))
    doubled = [
        2 * int(digit) - 9 * (int(digit) > 4) if place % 2 == 0 else int(digit)
        for place, digit in enumerate(body[::-1])
    ]
    number = body + str(-sum(doubled) % 10)
    gap = draw(st.sampled_from(["", " ", "-", "  "]))
    return gap.join(number[place : place + 4] for place in range(0, 12, 4)) + gap + number[12:]


@settings(max_examples=200, deadline=None)
@given(
    cards(),
    st.sampled_from(["", "card ", "card=", "card: ", '"', "(", "card"]),
    st.sampled_from(["", " declined", ", declined", '"', ")", "; next", "\n", ".", "e"]),
)
def test_a_card_number_is_masked_however_it_is_grouped_and_the_words_around_stay(
    card: str, before: str, after: str
) -> None:
    assert masked(before + card + after) == f"{before}[card]{after}"


def test_numbers_in_lists_mappings_and_tracebacks_are_masked_too(write: Write) -> None:
    number = 4111111111111111
    line = write("x", card=number, nested={"cards": [str(number), {"terminal_id": 7}], "rows": 3})
    assert line["card"] == "[card]"
    assert line["nested"] == {"cards": ["[card]", {"terminal_id": pseudonym(7)}], "rows": 3}


def test_a_traceback_is_masked_too() -> None:
    log, stream = logger.start(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log.handlers = [handler]
    try:
        raise ValueError("postgresql://me:p@ss@db/x refused 4111111111111111")
    except ValueError:
        log.exception("failed")
    logger.start()
    assert "ValueError: postgresql://me:***@db/x refused [card]" in stream.getvalue()


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_numbers_times_and_addresses_are_left_alone(text: str) -> None:
    assert masked(text) == text


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789abcdef", min_size=64, max_size=64) | st.text("0123456789", min_size=64, max_size=64))
def test_a_hash_of_64_hexadecimal_digits_is_left_alone(hash_: str) -> None:
    for text in (hash_, f"snapshot {hash_}", f"{hash_.upper()}, {hash_}"):
        assert masked(text) == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=20), st.integers(0, 10**12 - 1), st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_no_hash_of_any_bytes_no_short_number_and_no_time_is_masked(data: bytes, number: int, time: datetime) -> None:
    hash_ = hashlib.sha256(data).hexdigest()
    text = f"{hash_} holds {number} rows until {time.isoformat()} or {time.replace(tzinfo=UTC)}"
    assert masked(text) == text


@settings(deadline=None)
@given(st.text(max_size=60))
def test_masking_twice_equals_masking_once(text: str) -> None:
    assert masked(masked(text)) == masked(text)
