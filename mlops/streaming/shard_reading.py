"""Reading one shard: its records are decided in their order, and the next ones are fetched meanwhile, but no more."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlops.errors import MlopsError, Refused
from mlops.serving.scoring import Decided, Outcome
from mlops.streaming.dead_letters import DeadLetter
from mlops.streaming.leases import Lease, Leases
from mlops.streaming.records import Page, Record
from mlops.streaming.stream import Reader, Stream

OURS = 500
"""The status from which on the reason is ours and not the record's."""
PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before records that failed are tried again: at first, and at most."""
CHECKPOINT = 1.0
"""Seconds between two times that the place in the shard is written down."""

Decide = Callable[[Sequence[bytes]], Awaitable[Sequence[Outcome]]]
PutAway = Callable[[Sequence[DeadLetter]], Awaitable[None]]
Publish = Callable[[Sequence[Decided]], None]


class Told(Protocol):
    """Hears how a stream is going."""

    def read(self, shard: str, outcomes: Sequence[Outcome], behind: float) -> None:
        """Some records were decided or put away; the newest is so many seconds ahead of the last of them."""

    def holds(self, shards: Sequence[str]) -> None:
        """These shards are read here, and no others."""

    def troubled(self, shard: str) -> None:
        """A shard is in trouble, and is tried again."""


@dataclass(frozen=True)
class Handling:
    """What becomes of records.

    `decide` gives one outcome for each; `put_away` keeps dead letters for good; `publish` hands decisions on, some of
    them twice. A record that fails alone for a reason of ours is tried so many `tries`, then it is put away as well.
    """

    decide: Decide
    put_away: PutAway
    publish: Publish | None
    told: Told
    tries: int
    now: Callable[[], int]


class Stopped(Exception):
    """The reading is to end."""


class ShardReading:
    """Reads a shard from where its lease says, until it ends, is stopped, or another worker has the lease.

    After an error it can be read on: `position` is behind the last record that is decided and kept.
    """

    def __init__(
        self, stream: Stream, lease: Lease, leases: Leases, handling: Handling, batch: int, poll: float
    ) -> None:
        self._stream, self._lease, self._leases, self._handling = stream, lease, leases, handling
        self._batch, self._poll = batch, poll
        self._stopping = asyncio.Event()
        self._written, self._when = lease.position, time.monotonic()
        self.position = lease.position
        self.closed = False

    def stop(self) -> None:
        """End after what is being decided."""
        self._stopping.set()

    async def read(self) -> None:
        """Read on. Raises `MlopsError` where the stream, the journal or the leases fail."""
        reader = await asyncio.to_thread(self._stream.open, self._lease.shard, self.position, self._lease.since)
        following = self._fetch(reader)
        try:
            while not self._stopping.is_set():
                page, closed = await following
                ended = page.ended or (closed and not page.records and not page.behind)
                if page.records and not ended:
                    following = self._fetch(reader)
                if page.records:
                    await self._handle(page)
                if not await self._is_mine(ended) or ended:
                    return
                if not page.records:
                    await self._pause(self._poll)
                    following = self._fetch(reader)
        except Stopped:
            return
        finally:
            await asyncio.gather(following, return_exceptions=True)
            with contextlib.suppress(MlopsError):
                await asyncio.to_thread(self._leases.keep, self._lease.shard, self.position)

    def _fetch(self, reader: Reader) -> "asyncio.Task[tuple[Page, bool]]":
        """Begin to fetch the next page; with it comes whether the shard was closed before, and nothing could follow."""

        async def fetch(closed: bool) -> tuple[Page, bool]:
            return await asyncio.to_thread(reader.read, self._batch), closed

        return asyncio.create_task(fetch(self.closed))

    async def _handle(self, page: Page) -> None:
        handling, shard = self._handling, self._lease.shard
        outcomes = await self._sure([record.data for record in page.records])
        refused = [pair for pair in zip(page.records, outcomes, strict=True) if isinstance(pair[1], Refused)]
        if refused:
            await handling.put_away([self._letter(record, why) for record, why in refused if isinstance(why, Refused)])
        decided = [outcome for outcome in outcomes if isinstance(outcome, Decided)]
        if handling.publish is not None and decided:
            await asyncio.to_thread(handling.publish, decided)
        self.position = page.records[-1].sequence
        handling.told.read(shard, outcomes, page.behind / 1e6)

    async def _sure(self, bodies: Sequence[bytes]) -> list[Outcome]:
        """Decide until every outcome is an answer, or a refusal that will stay one."""
        outcomes = list(await self._handling.decide(bodies))
        pause, tried = PAUSE, 1
        while failed := [place for place, outcome in enumerate(outcomes) if _is_ours(outcome)]:
            if tried >= self._handling.tries and len(bodies) == 1 and not _may_pass(outcomes[0]):
                return outcomes
            await self._pause(pause)
            if self._stopping.is_set():
                raise Stopped
            if tried >= self._handling.tries and len(bodies) > 1:
                # One of them may break all: each has to stand for itself.
                for place in failed:
                    outcomes[place] = (await self._sure([bodies[place]]))[0]
                return outcomes
            again = await self._handling.decide([bodies[place] for place in failed])
            for place, outcome in zip(failed, again, strict=True):
                outcomes[place] = outcome
            pause, tried = min(2 * pause, LONGEST_PAUSE), tried + 1
        return outcomes

    def _letter(self, record: Record, why: Refused) -> DeadLetter:
        return DeadLetter(
            self._stream.name, self._lease.shard, record.sequence, record.data, why.field, why.reason, why.status,
            self._handling.now(),
        )  # fmt: skip

    async def _is_mine(self, ended: bool) -> bool:
        """Write the place down, now and then and at the end, and tell whether the lease is still ours."""
        early = self.position == self._written or time.monotonic() - self._when < CHECKPOINT
        if early and not ended:
            return True
        self._written, self._when = self.position, time.monotonic()
        return await asyncio.to_thread(self._leases.keep, self._lease.shard, self.position, ended)

    async def _pause(self, length: float) -> None:
        """Wait, or less long where the reading is to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), length)


def _is_ours(outcome: Outcome) -> bool:
    return isinstance(outcome, Refused) and outcome.status >= OURS


def _may_pass(outcome: Outcome) -> bool:
    """Whether it fails because something is not there for now, and not because of an error."""
    return isinstance(outcome, Refused) and outcome.status > OURS
