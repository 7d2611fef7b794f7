"""The stream worker: reads the shards that it holds, each by itself, and follows what becomes of the stream.

A record that is read again after a crash finds its decision in the journal: whatever happens, each is decided once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from mlops.errors import MlopsError
from mlops.journaling.ledger import Overtaken
from mlops.streaming.leases import Lease, Leases
from mlops.streaming.shard_reading import Handling, ShardReading
from mlops.streaming.stream import Stream, Streaming
from mlops.values import seconds

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a shard in trouble is tried again: at first, and at most."""
LOOKS = 2.0
"""Seconds between two looks at leases and shards, at most."""

log = logging.getLogger("stream")


class Consumer:
    """One worker on one stream; one that is `alone` reads only where no other does."""

    def __init__(
        self, stream: Stream, leases: Leases, handling: Handling, words: Streaming, alone: bool = False
    ) -> None:
        self._stream, self._leases, self._handling, self._words, self._alone = stream, leases, handling, words, alone
        self._since = handling.now() if words.start == "LATEST" else None
        self._every = min(seconds(words.lease) / 3, LOOKS)
        self._stopping = asyncio.Event()
        self._readings: dict[str, ShardReading] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Read until told to stop, or until every shard has ended; what is being decided then is finished first.

        Raises `Overtaken` where one that must be alone is not.
        """
        try:
            while not self._stopping.is_set() and not await self._is_over():
                await self._pause(self._every)
        finally:
            for reading in self._readings.values():
                reading.stop()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            with contextlib.suppress(MlopsError):
                await asyncio.to_thread(self._leases.release)

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()

    async def _is_over(self) -> bool:
        """Renew what is held, begin with what is new, and tell whether nothing will ever come."""
        try:
            held, closed, over = await asyncio.to_thread(self._look)
        except Overtaken:
            raise
        except MlopsError as error:
            log.warning("the stream or its leases cannot be looked at", extra={"reason": str(error)})
            return False
        for shard, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[shard], self._readings[shard]
        for lease in held:
            if lease.shard not in self._tasks:
                self._begin(lease)
        mine = {lease.shard for lease in held}
        for shard, reading in self._readings.items():
            reading.closed = shard in closed
            if shard not in mine:
                reading.stop()
        self._handling.told.holds(sorted(self._tasks))
        return over

    def _look(self) -> tuple[Sequence[Lease], set[str], bool]:
        """What is held, which shards get no more records, and whether all have ended."""
        # First what is held: it must not be lost because the stream cannot be asked.
        self._leases.renew()
        if self._alone and self._leases.others():
            raise Overtaken("another worker reads the stream by now, and what it decides is not known here; start anew")
        shards = self._stream.shards()
        self._leases.know(shards, self._since)
        self._leases.take(self._alone)
        return self._leases.held(), {shard.id for shard in shards if shard.closed}, self._leases.over()

    def _begin(self, lease: Lease) -> None:
        words = self._words
        reading = ShardReading(self._stream, lease, self._leases, self._handling, words.batch, words.poll)
        self._readings[lease.shard] = reading
        self._tasks[lease.shard] = asyncio.create_task(self._follow(lease.shard, reading))

    async def _follow(self, shard: str, reading: ShardReading) -> None:
        """Read a shard; its trouble is its own, and it is tried again for as long as it takes."""
        pause, before = FIRST_PAUSE, reading.position
        while True:
            try:
                await reading.read()
                return
            except MlopsError as error:
                log.warning("a shard is in trouble", extra={"shard": shard, "reason": str(error)})
            except Exception:
                log.exception("a shard is in trouble", extra={"shard": shard})
            self._handling.told.troubled(shard)
            pause = min(2 * pause, LONGEST_PAUSE) if reading.position == before else FIRST_PAUSE
            before = reading.position
            await self._pause(pause)
            if self._stopping.is_set():
                return

    async def _pause(self, length: float) -> None:
        """Wait, or less long where the worker is to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), length)
