"""The ledger: what was done with which version, by whom, when and why, and the traffic that follows from it.

It is the truth about releases: an act is done when it stands here, and what stands elsewhere, such as the names of
versions in MLflow, follows it. It is a journal of its own: append-only and chained by hashes.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from mlops.errors import MlopsError, StorageFailed
from mlops.journaling import journal
from mlops.journaling.journal import Entry, Head, Row
from mlops.traffic import Traffic

ACT = "act"
TRIES = 100

encode = msgspec.json.Encoder().encode


def wall() -> int:
    """The time, in microseconds since 1970."""
    return time.time_ns() // 1_000


class Overtaken(MlopsError):
    """Another act came first."""


class Act(msgspec.Struct, frozen=True):
    """What was done: `figures` are the numbers it was done for; `before` and `after` are equal where none was moved."""

    name: str
    act: str
    version: int | None
    who: str
    why: str
    before: Traffic | None
    after: Traffic | None
    figures: Mapping[str, Any] = {}


class Done(NamedTuple):
    """An act in its place: its number among those of the same name, from 1 on, and when (microseconds UTC)."""

    number: int
    at: int
    act: Act


decode = msgspec.json.Decoder(Act).decode
Change = Callable[[Traffic | None], Traffic | None]


class Ledger:
    """The acts of every module in one database; several processes may act at once, and each sees all before it."""

    def __init__(self, url: str, now: Callable[[], int] = wall) -> None:
        self.journal = journal.connect(url)
        self._now, self._read_to = now, 0
        self._acts: dict[str, list[Done]] = {}
        self._lock = Lock()

    def acts(self, name: str) -> list[Done]:
        """Every act of a module, in order."""
        with self._lock:
            for row in self.journal.since(self._read_to):
                self._take(row)
                self._read_to = row.sequence
            return list(self._acts.get(name, []))

    def traffic(self, name: str, at: int | None = None) -> Traffic | None:
        """Who answers now, or at a moment (microseconds UTC); nothing before the first promotion."""
        done = [one for one in self.acts(name) if at is None or one.at <= at]
        return done[-1].act.after if done else None

    def record(
        self, name: str, act: str, version: int | None, who: str, why: str, change: Change = lambda traffic: traffic,
        figures: Mapping[str, Any] | None = None, only_after: int | None = None,
    ) -> Done:  # fmt: skip
        """Write an act down that changes the traffic as it is then; of several at once each sees what the others did.

        With `only_after` it is done only while that act is the last; `Overtaken` is raised where it is not. What
        `change` raises is raised, and nothing is written.
        """
        for _ in range(TRIES):
            done = self.acts(name)
            number = len(done) + 1
            if only_after is not None and only_after != number - 1:
                raise Overtaken(f"act {number - 1} of {name} came first")
            before = done[-1].act.after if done else None
            said = Act(name, act, version, who, why, before, change(before), dict(figures or {}))
            # Clocks of several machines differ a little; the ledger's time never goes back.
            at = max(self._now(), done[-1].at if done else 0)
            # The number makes the id, and an id is given once: of two at the same moment one finds the other's act.
            entry = Entry(ACT, identify(name, f"act {number}"), encode(said), at)
            if self.journal.append([entry])[0].row.entry == entry:
                return Done(number, at, said)
        raise StorageFailed(f"the ledger of {name} was never free for this act; try again")

    def verify(self) -> Head:
        """Check the chain. Raises `Damaged`, naming the first row that is not what was written."""
        return self.journal.verify()

    def close(self) -> None:
        """Let go of the database."""
        self.journal.close()

    def _take(self, row: Row) -> None:
        if row.entry.kind == ACT:
            act = decode(row.entry.body)
            mine = self._acts.setdefault(act.name, [])
            mine.append(Done(len(mine) + 1, row.entry.at, act))


def identify(name: str, what: str) -> bytes:
    """The id of what a module does once. 16 bytes."""
    return hashlib.blake2b(f"{name}\0{what}".encode(), digest_size=16).digest()
