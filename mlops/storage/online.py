"""Logs of fixed-size records by key: what live features remember. memory:// keeps them in this process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

TRIMMED_FROM = 64


@dataclass(frozen=True)
class Layout:
    """What all records of a place have in common.

    A record begins with its time, microseconds since 1970 as a 64-bit integer. `size` is its bytes, a multiple of 8;
    `keep` is how many microseconds behind its log's newest record it may still matter; a log of `most` records counts
    as cut, and with an eighth more it is cut back to so many. `name` stands in keys, so that different layouts never
    meet.
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

    async def replace(self, logs: Iterable[tuple[str, bytes]]) -> None:
        """Put whole logs in the place of what is there."""

    async def reached(self) -> int | None:
        """How far of what happened is in here; nothing for a place that was never filled."""

    async def reach(self, sequence: int) -> None:
        """Say that all up to here is in."""


class Memory:
    """Logs in this process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._logs: dict[str, bytearray] = {}
        self._reached: int | None = None

    async def exchange(self, asks: Sequence[Ask]) -> list[bytes]:
        found = []
        for key, record in asks:
            log = self._logs.get(key)
            if log is None:
                if not record:
                    found.append(b"")
                    continue
                log = self._logs[key] = bytearray()
            if record and found_at(record, log) < 0:
                log += record
                if due(len(log) // self._layout.size, self._layout.most):
                    log[:] = trimmed(bytes(log), self._layout)
            found.append(bytes(log))
        return found

    async def forget(self, asks: Sequence[Ask]) -> None:
        for key, record in asks:
            log = self._logs.get(key, bytearray())
            place = found_at(record, log)
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

    async def replace(self, logs: Iterable[tuple[str, bytes]]) -> None:
        self._logs.update((key, bytearray(log)) for key, log in logs)

    async def reached(self) -> int | None:
        return self._reached

    async def reach(self, sequence: int) -> None:
        self._reached = max(sequence, self._reached or 0)


def found_at(record: bytes, log: bytes | bytearray) -> int:
    """Where a record stands in a log, or below 0; bytes that only look like it across two others do not count."""
    place = log.find(record)
    while place > 0 and place % len(record):
        place = log.find(record, place + 1)
    return place


def due(records: int, most: int) -> bool:
    """Tell whether a log of so many records is to be trimmed: at the most, an eighth over it, and at powers of two.

    To trim at each record that comes would cost more than all else.
    """
    return records == most or records > most + most // 8 or (records >= TRIMMED_FROM and records & (records - 1) == 0)


def trimmed(log: bytes, layout: Layout) -> bytes:
    """The log without the records that can no longer matter, and no more than it may hold: the oldest go.

    A log that is not full has then lost nothing that can matter, in whatever order its records came.
    """
    if len(log) % layout.size or not log:
        return log
    words = np.frombuffer(log, np.int64).reshape(-1, layout.size // 8)
    times = words[:, 0]
    kept = np.flatnonzero(times > times.max() - layout.keep)
    if kept.size > layout.most:
        youngest = np.argsort(times[kept], kind="stable")[-layout.most :]
        kept = kept[np.sort(youngest)]
    return bytes(words[kept].tobytes())
