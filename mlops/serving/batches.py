"""What arrives together is done together: how much goes into a batch, and when the next one begins."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from mlops import logs
from mlops.logs import RequestId

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_WORK = 2
"""Batches at once: while one is being written, the next is decided."""
FORGETS = 0.98
"""What is usually under way is forgotten by so much with each batch."""

log = logging.getLogger("batches")


class Unit(NamedTuple, Generic[Item, Result]):
    """Items that came in one call, when, who is told their results, and the request that brought them, if any."""

    items: Sequence[Item]
    arrived: float
    told: Callable[[list[Result]], None]
    request: RequestId | None


class Batches(Generic[Item, Result]):
    """Gathers items and hands them to `go`, with the time when the first of them arrived.

    `go` gives one result for each item, in order, and never raises. `watch` hears of the results of each batch, and how
    many seconds each took, before those who brought the items are told. While `beside` says no, one batch ends before
    the next begins.
    """

    def __init__(
        self, go: Callable[[Sequence[Item], float], Awaitable[list[Result]]],
        watch: Callable[[Sequence[Result], Sequence[float]], None], beside: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._go, self._watch, self._beside = go, watch, beside
        self._waiting: list[Unit[Item, Result]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._queued = self._under_way = 0
        self._usual = 0.0

    def submit(
        self, items: Sequence[Item], told: Callable[[list[Result]], None], request: RequestId | None = None
    ) -> None:
        """Take items into the next batch; `told` is called on the loop. Lines of the log name the `request`."""
        self._waiting.append(Unit(items, time.perf_counter(), told, request))
        self._queued += len(items)
        self._under_way += len(items)
        self._usual = max(self._usual, self._under_way)
        self._schedule()

    async def result(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of the items when they are done."""
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        request = next(iter(logs.requests.get()), None)
        self.submit(items, lambda results: None if future.done() else future.set_result(results), request)
        return await future

    async def finish(self) -> None:
        """Wait until everything that was taken is done."""
        while self._waiting or self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
            await asyncio.sleep(0)

    def _schedule(self) -> None:
        """Begin the next batch, once all that has arrived by now is in it, if it is time for one.

        While nothing is under way it always is. While one batch is being written, the next begins when it has half of
        what usually is under way: two batches of half the size keep both the loop and the disk busy, and smaller ones
        would only cost more.
        """
        beside = len(self._running) < AT_WORK and AT_WORK * self._queued >= self._usual and self._beside()
        if self._waiting and not self._scheduled and (beside or not self._running):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        units, self._waiting, self._queued = self._waiting, [], 0
        self._usual = max(self._usual * FORGETS, self._under_way)
        task = asyncio.get_running_loop().create_task(self._run(units))
        self._running.add(task)
        task.add_done_callback(self._next)

    def _next(self, done: asyncio.Task[None]) -> None:
        self._running.discard(done)
        self._schedule()

    async def _run(self, units: Sequence[Unit[Item, Result]]) -> None:
        items = [item for unit in units for item in unit.items]
        logs.requests.set([unit.request for unit in units if unit.request is not None])
        results = await self._go(items, units[0].arrived)
        self._under_way -= len(items)
        done, place = time.perf_counter(), 0
        with _told_to_the_log("who watches"):
            self._watch(results, [done - unit.arrived for unit in units for _ in unit.items])
        for unit in units:
            with _told_to_the_log("who asked"):
                unit.told(results[place : place + len(unit.items)])
            place += len(unit.items)


@contextlib.contextmanager
def _told_to_the_log(who: str) -> Iterator[None]:
    """Go on with the others when one fails."""
    try:
        yield
    except Exception:
        log.exception("%s could not be told", who)
