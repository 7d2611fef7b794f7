"""The past that live features see: in the store that is configured, and in this process while that does not answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from mlops.errors import Damaged, MlopsError, StorageFailed
from mlops.storage.online import Ask, Layout, Logs, Memory
from modules.fraud_detection.src.features.online_features import Built, OnlineFeatures

Row = Mapping[str, Any]
Facts = Sequence[tuple[int, int]]
Replay = Callable[[OnlineFeatures, int], Awaitable[int]]

PROBE = 0.5
"""Seconds between two looks whether the store answers again."""
RECENT = 10_000
"""What happened in this process last: more than can be on its way to the journal at one moment."""

log = logging.getLogger("past")


class Past:
    """Live features over one store of logs, with a spare for the time in which the store fails.

    Both are filled from the training rows and from the journal: `replay` brings what the journal holds after a sequence
    number into features and returns how far it came. What the spare says is exact once it is filled; before that, what
    it builds is marked as cut. When the store answers again it is brought up to date before it is asked again.
    """

    def __init__(
        self, make: Callable[[Logs], OnlineFeatures], layout: Layout, store: Logs, replay: Replay,
        training_rows: Callable[[], pl.DataFrame | None],
    ) -> None:  # fmt: skip
        self._store, self._spare_store = store, Memory(layout)
        self._main, self._spare = make(store), make(self._spare_store)
        self._replay, self._training_rows = replay, training_rows
        self._down = False
        self._spare_filled: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._recent_rows: list[Row] = []
        self._recent_facts: list[tuple[Row, Facts]] = []
        self._suspects: set[str] = set()
        self._up_to = 0

    @property
    def down(self) -> bool:
        """Whether the store does not answer."""
        return self._down

    async def bring_back(self) -> None:
        """Fill the store, or, where it does not answer, the spare."""
        try:
            self._up_to = await self._fill(self._main, self._store)
        except (StorageFailed, Damaged) as error:
            self._go_down(error)
        if self._spare_filled is not None:
            await self._spare_filled

    async def build(self, rows: Sequence[Row], keep: bool = True) -> Built:
        """Make every feature of rows, as `OnlineFeatures.build` does."""
        if not self._down:
            try:
                return await self._main.build(rows, keep)
            except (StorageFailed, Damaged) as error:
                self._go_down(error, rows)
        return await self._from_spare(rows, keep)

    async def forget(self, rows: Sequence[Row]) -> None:
        """Take rows out again."""
        self._recent_rows = [row for row in self._recent_rows if row not in rows]
        await self._each(rows, lambda features: features.forget(rows))

    async def learn(self, row: Row, facts: Facts) -> None:
        """Count the last of the facts about a row from when it was known."""
        if self._down:
            self._recent_facts.append((row, facts))
        await self._each([row], lambda features: features.learn(row, facts))

    async def restore(self, rows: Sequence[Row], labelled: Iterable[tuple[Row, Facts]]) -> None:
        """Bring rows, and all facts about rows, back."""
        facts = list(labelled)
        touched = [*rows, *(row for row, _ in facts)]
        await self._each(touched, lambda features: features.restore(rows, facts))

    async def catch_up(self) -> None:
        """Take in what the journal got since the last time."""
        if not self._down:
            try:
                self._up_to = await self._replay(self._main, self._up_to)
                await self._store.reach(self._up_to)
            except (StorageFailed, Damaged) as error:
                self._go_down(error)

    async def _each(self, rows: Sequence[Row], do: Callable[[OnlineFeatures], Awaitable[None]]) -> None:
        """Do something with rows to the store, and to the spare while it stands in."""
        if not self._down:
            try:
                await do(self._main)
            except (StorageFailed, Damaged) as error:
                self._go_down(error, rows)
        if self._down:
            await do(self._spare)

    def _go_down(self, error: Exception, rows: Sequence[Row] = ()) -> None:
        """From now on the spare answers, and the store is looked after; what is damaged is among the rows' logs."""
        if isinstance(error, Damaged):
            self._suspects |= self._main.keys(rows)
        if self._down:
            return
        log.warning("live features go on from the journal", extra={"reason": str(error)})
        self._down = True
        loop = asyncio.get_running_loop()
        self._spare_filled = loop.create_task(self._fill_spare())
        self._recovering = loop.create_task(self._recover())

    async def _from_spare(self, rows: Sequence[Row], keep: bool) -> Built:
        filled = self._spare_filled is not None and self._spare_filled.done()
        if filled:
            await self._fill_spare()
        built = await self._spare.build(rows, keep)
        if keep:
            self._recent_rows = [*self._recent_rows, *rows][-RECENT:]
        return built if filled else replace(built, cut=[True] * len(rows))

    async def _fill_spare(self) -> None:
        await self._fill(self._spare, self._spare_store)

    async def _fill(self, features: OnlineFeatures, store: Logs) -> int:
        """Fill a store from where it stands: from nothing with the training rows, then with the journal."""
        reached = await store.reached()
        if reached is None:
            table = await asyncio.to_thread(self._training_rows)
            if table is not None:
                await features.seed(table)
        sequence = await self._replay(features, reached or 0)
        await store.reach(sequence)
        return sequence

    async def _recover(self) -> None:
        """Wait until the store answers, bring it up to date, and go back to it."""
        reason = ""
        while self._down:
            await asyncio.sleep(PROBE)
            try:
                await self._mend()
                self._up_to = await self._fill(self._main, self._store)
                # What is on its way to the journal is not in it yet; more may come while the store takes it in.
                while self._recent_rows or self._recent_facts:
                    rows, facts = self._recent_rows, self._recent_facts
                    self._recent_rows, self._recent_facts = [], []
                    await self._main.restore(rows, facts)
                self._down = False
                log.info("live features are back in their store")
            except MlopsError as error:
                if str(error) != reason:
                    reason = str(error)
                    log.info("the store is not back yet", extra={"reason": reason})

    async def _mend(self) -> None:
        """Put what the spare knows in the place of logs that were found damaged."""
        if self._suspects:
            if self._spare_filled is not None:
                await self._spare_filled
            keys = sorted(self._suspects)
            logs = await self._spare_store.exchange([Ask(key, b"") for key in keys])
            await self._store.replace(zip(keys, logs, strict=True))
            self._suspects -= set(keys)
