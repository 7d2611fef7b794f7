"""Log lines as JSON, one object a line, each with the request that it belongs to and what is known of it."""

import contextlib
import json
import logging
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

RequestId = bytes | int
"""What its caller calls a request; or a number, which costs next to nothing until somebody wants to read it."""

requests: ContextVar[Sequence[RequestId]] = ContextVar("requests", default=())
"""The requests that are being handled, which every line names: one, or those that are decided together."""
about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))
"""What else is known of the request that is being handled, which every line says too."""

PROCESS = secrets.token_hex(4)
"""Tells the numbers of this process from those of others, and from those before a restart."""
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, the request, and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {**known(), **extras(record)}
        if record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def known() -> dict[str, object]:
    """Return what is known of the request that is being handled, its id first; of several, their ids."""
    return {**each("request_id", [named(one) for one in requests.get()]), **about.get()}


def named(request: RequestId) -> str:
    """Return the id of a request as a text."""
    return request.decode() if isinstance(request, bytes) else f"{PROCESS}-{request}"


@contextlib.contextmanager
def handling(request: RequestId) -> Iterator[None]:
    """Let the lines of the block name a request, and what is added within."""
    was = requests.set([request]), about.set({})
    try:
        yield
    finally:
        requests.reset(was[0])
        about.reset(was[1])


def add(**more: object) -> None:
    """Let further lines about the request that is being handled say this too; where none is, nothing changes."""
    if requests.get():
        about.set({**about.get(), **more})


def each(name: str, values: Sequence[object]) -> dict[str, object]:
    """Return one value under its name, several as a list under the name's plural, and for none nothing."""
    if not values:
        return {}
    return {name: values[0]} if len(values) == 1 else {f"{name}s": list(values)}


def extras(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what the caller added to the record with `extra=`."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def start(name: str, stream: TextIO = sys.stderr, mask: logging.Filter | None = None) -> logging.Logger:
    """Return the logger `name`, writing JSON lines to `stream` and to no logger above it; without a name, all loggers.

    `mask` sees each record before it is written. Handlers of another kind are left alone.
    """
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    if mask is not None:
        handler.addFilter(mask)
    others = [other for other in logger.handlers if not isinstance(other.formatter, JsonLines)]
    logger.handlers, logger.propagate = [*others, handler], False
    logger.setLevel(logging.INFO)
    return logger


def stop(name: str) -> None:
    """Let a logger write no more lines; what it says goes to the loggers above it again."""
    logger = logging.getLogger(name)
    logger.handlers = [other for other in logger.handlers if not isinstance(other.formatter, JsonLines)]
    logger.propagate = True
    logger.setLevel(logging.NOTSET if logger.parent else logging.WARNING)
