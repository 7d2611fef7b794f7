"""Group commit: what many write goes to disk together, by a process that may die; nothing is lost or doubled."""

import asyncio
import os
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mlops.errors import MlopsError, StorageFailed, Unreachable
from mlops.journaling import group_commit, journal
from mlops.journaling.group_commit import GroupCommit
from mlops.journaling.journal import Entry, Journal, Kept
from mlops.journaling.journal_process import Write, Writer, Written
from tests.conftest import ROOT
from tests.mlops.journaling.test_journal import entry


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[GroupCommit]:
    group = GroupCommit(url)
    try:
        yield group
    finally:
        await group.close()


def writing_process(group: GroupCommit) -> int:
    assert group._line is not None
    return group._line._process.pid


def test_many_write_at_once_and_each_id_once(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as group:
            names = [[f"{number} a", f"{number % 50} b"] for number in range(300)]
            kept = await asyncio.gather(*[group.keep([entry(name) for name in pair]) for pair in names])
            assert [two[0].fresh for two in kept] == [True] * 300
            assert sum(two[1].fresh for two in kept) == 50
            assert all(one.row == group.journal.find(one.row.entry.id) for two in kept[::40] for one in two)
            assert (group.waiting, group.seconds_behind) == (0, 0)
            assert group.journal.verify().count == 350

    asyncio.run(scenario())


def test_the_writing_process_finds_the_core_wherever_its_parent_stands() -> None:
    assert str(ROOT) == group_commit.ROOT


def test_what_waits_is_written_in_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Journal.append

    def counted(self: Journal, entries: Sequence[Entry]) -> list[Kept]:
        sizes.append(len(entries))
        return real(self, entries)

    monkeypatch.setattr(Journal, "append", counted)
    writer = Writer(f"sqlite:///{tmp_path}/journal.db", 0)
    said = writer.write([Write([entry(f"{number} a"), entry(f"{number} b")], 0) for number in range(100)])
    assert [[place.sequence for place in one.places] for one in said] == [[2 * n + 1, 2 * n + 2] for n in range(100)]
    assert sizes == [200]


def test_what_was_made_before_a_failure_was_known_is_not_written(tmp_path: Path) -> None:
    """It counts on what was under way before it, and that was refused."""
    writer = Writer(f"sqlite:///{tmp_path}/journal.db", 0)
    assert refused(writer.write([Write([entry("first")], 0)])) == [False]
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert refused(writer.write([Write([entry("a")], 0), Write([entry("b")], 0)])) == [True, True]
    other.execute("COMMIT")
    other.close()
    stale, counting_on_it, knowing = Write([entry("c")], 1), Write([entry("d")], 2), Write([entry("e")], 4)
    assert refused(writer.write([stale, counting_on_it, knowing])) == [True, True, False]
    kept = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    assert [row.entry for row in kept.since(0)] == [entry("first"), entry("e")]
    kept.close()


def test_an_error_reaches_all_who_waited_and_the_next_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite:///{tmp_path}/journal.db") as group:
            await group.keep([entry("first")])
            other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            waiting = [asyncio.ensure_future(group.keep([entry(str(number))])) for number in range(3)]
            await asyncio.sleep(0)
            assert group.waiting == 3
            assert group.seconds_behind > 0
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(one) for one in found[:1]] == [Unreachable]
            assert all(isinstance(one, StorageFailed) for one in found)
            assert group.failures == 3
            other.execute("COMMIT")
            other.close()
            with pytest.raises(StorageFailed, match="before it"):
                await group.keep([entry("stale")], failures=0)
            assert (await group.keep([entry("again")], failures=3))[0].fresh
            assert group.journal.verify().count == 2

    asyncio.run(scenario())


def test_a_killed_writing_process_loses_and_doubles_nothing(database: str) -> None:
    """Twenty times without warning: what was acknowledged is there, once; what failed can be given again."""
    draw = random.Random(1)
    acknowledged: set[str] = set()

    async def client(group: GroupCommit, number: int) -> None:
        for turn in range(120):
            name = f"{number} {turn}"
            while name not in acknowledged:
                try:
                    kept = (await group.keep([entry(name)]))[0]
                    assert kept.row.entry == entry(name)
                    acknowledged.add(name)
                except MlopsError:
                    await asyncio.sleep(0.01)

    async def scenario() -> None:
        async with opened(database) as group:
            clients = [asyncio.ensure_future(client(group, number)) for number in range(20)]
            for wanted in sorted(draw.sample(range(1, 2_300), 20)):
                while len(acknowledged) < wanted or group._line is None:
                    await asyncio.sleep(0.001)
                os.kill(writing_process(group), signal.SIGKILL)
                while group._line is not None:
                    await asyncio.sleep(0.001)
                group._not_before = 0.0
            await asyncio.gather(*clients)
            rows = [row.entry for row in group.journal.since(0)]
            assert len(rows) == group.journal.verify().count == len(acknowledged) == 2_400
            assert {row.id for row in rows} == {entry(name).id for name in acknowledged}

    asyncio.run(scenario())


def test_a_process_that_dies_at_once_is_not_started_again_and_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite:///{tmp_path}/journal.db") as group:
            await group.open()
            os.kill(writing_process(group), signal.SIGKILL)
            while group._line is not None:
                await asyncio.sleep(0.001)
            with pytest.raises(Unreachable, match="gone"):
                await group.keep([entry("too soon")])

    asyncio.run(scenario())


def test_closing_writes_what_was_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        group = GroupCommit(f"sqlite:///{tmp_path}/journal.db")
        await group.open()
        process = writing_process(group)
        waiting = [asyncio.ensure_future(group.keep([entry(str(number), "x" * 10_000)])) for number in range(400)]
        await asyncio.sleep(0)
        await group.close()
        assert all([(await one)[0].fresh for one in waiting])
        assert not Path(f"/proc/{process}").exists()
        with pytest.raises(StorageFailed, match="closed"):
            await group.keep([entry("late")])

    asyncio.run(scenario())


def refused(said: Sequence[Written]) -> list[bool]:
    return [one.error is not None for one in said]
