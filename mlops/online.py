"""Logs of fixed-size records by key: what live features remember. memory:// keeps them in this process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mlops.errors import BadConfiguration

TRIMMED_FROM = 64


@dataclass(frozen=True)
class Layout:
    """What all records of a place have in common.

    A record begins with its time, microseconds since 1970 as a 64-bit integer. `size` is its bytes, a multiple of 8;
    `keep` is how many microseconds behind its log's newest record it may still matter; `most` is how many a log holds:
    a log of that many counts as cut. `name` stands in keys, so that different layouts never meet.
    """

    name: str
    size: int
    keep: int
    most: int


class Ask(NamedTuple):
    """A record for the log of a key; an empty one only reads."""

    key: str
    record: bytes


class Logs(Protocol):
    """A place for logs. Records of one log are in no order, and none stands twice."""

    async def exchange(self, asks: Sequence[Ask]) -> list[bytes]:
        """Add each record to its log, in order, unless it is there; return each whole log with it."""

    async def forget(self, asks: Sequence[Ask]) -> None:
        """Take records out again."""

    async def fill(self, logs: Iterable[tuple[str, bytes]]) -> None:
        """Add many records at once, any number for a key; those that are there are not added again."""


def connect(url: str, layout: Layout) -> Logs:
    """Open the place that `url` names: `memory://`."""
    if url == "memory://":
        return Memory(layout)
    raise BadConfiguration(f"platform.online is '{url}'; write memory:// or redis://HOST:PORT/NUMBER")


class Memory:
    """Logs in this process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._logs: dict[str, bytearray] = {}

    async def exchange(self, asks: Sequence[Ask]) -> list[bytes]:
        found = []
        for key, record in asks:
            log = self._logs.get(key)
            if log is None:
                if not record:
                    found.append(b"")
                    continue
                log = self._logs[key] = bytearray()
            if record and record not in log:
                log += record
                if due(len(log) // self._layout.size, self._layout.most):
                    log[:] = trimmed(bytes(log), self._layout)
            found.append(bytes(log))
        return found

    async def forget(self, asks: Sequence[Ask]) -> None:
        for key, record in asks:
            log = self._logs.get(key, bytearray())
            place = log.find(record)
            if place >= 0:
                del log[place : place + len(record)]

    async def fill(self, logs: Iterable[tuple[str, bytes]]) -> None:
        size = self._layout.size
        for key, records in logs:
            log = self._logs.setdefault(key, bytearray())
            there = {bytes(log[place : place + size]) for place in range(0, len(log), size)}
            for place in range(0, len(records), size):
                record = records[place : place + size]
                if record not in there:
                    there.add(record)
                    log += record
            log[:] = trimmed(bytes(log), self._layout)


def due(records: int, most: int) -> bool:
    """Tell whether a log of so many records is to be trimmed: over the most, and at powers of two: that is cheap."""
    return records > most or (records >= TRIMMED_FROM and records & (records - 1) == 0)


def trimmed(log: bytes, layout: Layout) -> bytes:
    """The log without the records that can no longer matter, and no more than it may hold: the oldest go first."""
    if len(log) % layout.size or not log:
        return log
    words = np.frombuffer(log, np.int64).reshape(-1, layout.size // 8)
    times = words[:, 0]
    kept = times > times.max() - layout.keep
    if kept.sum() > layout.most:
        kept = np.zeros(times.size, bool)
        kept[np.argsort(times, kind="stable")[-layout.most :]] = True
    return bytes(words[kept].tobytes())
