"""Logs: one JSON object a line, whatever is said, with the request it belongs to."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops import logs


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    return logs.start("test", stream)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_grave_who_what_and_what_else(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("%d rows", 3, extra={"version": 7})
    (line,) = lines(stream)
    assert line.pop("time")
    assert line == {"level": "warning", "logger": "test", "message": "3 rows", "version": 7}


def test_lines_of_one_request_carry_its_id_and_others_none(logger: logging.Logger, stream: io.StringIO) -> None:
    token = logs.request_id.set("r-1")
    logger.info("inside")
    logs.request_id.reset(token)
    logger.info("outside")
    assert [line.get("request_id") for line in lines(stream)] == ["r-1", None]


def test_an_exception_stays_on_its_line(logger: logging.Logger, stream: io.StringIO) -> None:
    try:
        raise ValueError("planted\nhere")
    except ValueError:
        logger.exception("failed")
    (line,) = lines(stream)
    assert "ValueError: planted\nhere" in str(line["error"])


def test_starting_a_logger_twice_does_not_say_everything_twice(stream: io.StringIO) -> None:
    logs.start("test", stream)
    logs.start("test", stream).info("once")
    assert len(lines(stream)) == 1


@given(st.text(), st.text())
def test_no_text_breaks_a_line_or_is_lost(message: str, value: str) -> None:
    stream = io.StringIO()
    logs.start("test", stream).info("%s", message, extra={"value": value})
    assert stream.getvalue().count("\n") == 1
    (line,) = lines(stream)
    assert (line["message"], line["value"]) == (message, value)
