"""Work that is cheaper together: what callers bring while a thread is busy is done in its next go."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from mlops.errors import StorageFailed

Item = TypeVar("Item")
Result = TypeVar("Result")


class Waiting(NamedTuple, Generic[Item, Result]):
    """The items of one caller, since when they wait, and who waits for their results."""

    items: Sequence[Item]
    since: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[list[Result]]"


class Together(Generic[Item, Result]):
    """Hands items to `work` from one thread, at most `most` at a time; callers wait without holding each other up.

    `work` gives one result for each item, in order. What it raises reaches every caller of that go.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        self._name, self._work, self._most = name, work, most
        self._waiting: list[Waiting[Item, Result]] = []
        self._at_work: list[Waiting[Item, Result]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of the items when they are done."""
        loop = asyncio.get_running_loop()
        waiting: Waiting[Item, Result] = Waiting(items, time.monotonic(), loop, loop.create_future())
        with self._changed:
            if self._closing:
                raise StorageFailed(f"the {self._name} is closed")
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.future

    @property
    def waiting(self) -> int:
        """Items that are not done yet."""
        with self._changed:
            return sum(len(one.items) for one in [*self._at_work, *self._waiting])

    @property
    def seconds_behind(self) -> float:
        """How long the oldest item has been waiting."""
        with self._changed:
            oldest = next(iter([*self._at_work, *self._waiting]), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.since

    def close(self) -> None:
        """Do what was brought, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._at_work = []
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                self._take()
            self._go(self._at_work)

    def _take(self) -> None:
        """Take the callers whose items fit into one go, at least one."""
        size = taken = 0
        while taken < len(self._waiting) and (taken == 0 or size + len(self._waiting[taken].items) <= self._most):
            size += len(self._waiting[taken].items)
            taken += 1
        self._at_work, self._waiting = self._waiting[:taken], self._waiting[taken:]

    def _go(self, group: Sequence[Waiting[Item, Result]]) -> None:
        error: Exception | None = None
        results: Sequence[Result] = []
        try:
            results = self._work([item for one in group for item in one.items])
        except Exception as raised:
            error = raised
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiting[Item, Result], list[Result]]]] = {}
        place = 0
        for one in group:
            by_loop.setdefault(one.loop, []).append((one, list(results[place : place + len(one.items)])))
            place += len(one.items)
        for loop, done in by_loop.items():
            # One call wakes the loop for the whole group: a hand-over between threads costs as much as a row.
            loop.call_soon_threadsafe(_resolve, done, error)


def _resolve(done: Sequence[tuple[Waiting[Item, Result], list[Result]]], error: Exception | None) -> None:
    for one, results in done:
        if not one.future.done():
            if error is None:
                one.future.set_result(results)
            else:
                one.future.set_exception(error)
