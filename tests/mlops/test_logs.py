"""Logs: one JSON object a line, whatever is said, with the request it belongs to."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@contextmanager
def written(*names: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Let loggers write for the block alone; yield what gives their lines so far."""
    stream, loggers = io.StringIO(), [logging.getLogger(name) for name in names]
    was = [(each.handlers, each.propagate, each.level) for each in loggers]
    for name in names:
        logs.start(name, stream)
    try:
        yield lambda: lines(stream)
    finally:
        for each, (handlers, propagate, level) in zip(loggers, was, strict=True):
            each.handlers, each.propagate = handlers, propagate
            each.setLevel(level)


def test_a_line_says_when_how_grave_who_what_and_what_else(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("%d rows", 3, extra={"version": 7})
    (line,) = lines(stream)
    assert line.pop("time")
    assert line == {"level": "warning", "logger": "test", "message": "3 rows", "version": 7}


def test_lines_of_one_request_carry_its_id_and_others_none(logger: logging.Logger, stream: io.StringIO) -> None:
    with logs.handling(b"r-1"):
        logger.info("inside")
        with logs.handling(b"r-2"):
            logger.info("further inside")
        logger.info("inside again")
    logger.info("outside")
    assert [line.get("request_id") for line in lines(stream)] == ["r-1", "r-2", "r-1", None]


def test_a_number_is_written_so_that_no_other_process_gives_the_same(
    logger: logging.Logger, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for process in ("one", "other"):
        monkeypatch.setattr(logs, "PROCESS", process)
        with logs.handling(7):
            logger.info("inside")
    assert [line["request_id"] for line in lines(stream)] == ["one-7", "other-7"]


def test_a_line_about_several_requests_names_them_all(logger: logging.Logger, stream: io.StringIO) -> None:
    token = logs.requests.set([b"r-1", b"r-2"])
    logger.info("together", extra=logs.each("decision_id", ["d-1", "d-2"]))
    logs.requests.reset(token)
    (line,) = lines(stream)
    assert "request_id" not in line
    assert (line["request_ids"], line["decision_ids"]) == (["r-1", "r-2"], ["d-1", "d-2"])


def test_what_becomes_known_of_a_request_is_said_from_then_on_and_of_no_other(
    logger: logging.Logger, stream: io.StringIO
) -> None:
    logs.add(version=0)
    for request in (b"r-1", b"r-2"):
        with logs.handling(request):
            logger.info("before")
            logs.add(decision_id=f"of {request.decode()}")
            logs.add(version=3)
            logger.info("after", extra={"version": 4} if request == b"r-2" else {})
    logger.info("outside")
    found = [(line.get("decision_id"), line.get("version")) for line in lines(stream)]
    assert found == [(None, None), ("of r-1", 3), (None, None), ("of r-2", 4), (None, None)]


def test_started_without_a_name_all_loggers_write_and_other_handlers_stay(stream: io.StringIO) -> None:
    class Hide(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg = str(record.msg).replace("secret", "***")
            return True

    root, other = logging.getLogger(), logging.NullHandler()
    with written(""):
        root.addHandler(other)
        logs.start("", stream, Hide())
        logs.start("", stream, Hide())
        logging.getLogger("some library").warning("a secret")
        assert other in root.handlers
    assert [(line["logger"], line["message"]) for line in lines(stream)] == [("some library", "a ***")]


@pytest.mark.parametrize(("name", "level"), [("", logging.WARNING), ("stopped", logging.NOTSET)])
def test_a_logger_that_was_stopped_is_as_it_was_before(name: str, level: int, stream: io.StringIO) -> None:
    found, other = logging.getLogger(name), logging.NullHandler()
    found.addHandler(other)
    before = list(found.handlers)
    logs.start(name, stream)
    assert found.handlers != before
    logs.stop(name)
    assert (found.handlers, found.propagate, found.level) == (before, True, level)
    found.removeHandler(other)


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
