"""The journal as dated files, day by day: once, whoever is asked; later, where it was missed; whatever is broken."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import polars as pl
import pytest

from mlops.alerting.turns import Turns
from mlops.errors import Damaged, StorageFailed
from mlops.journaling import journal
from mlops.journaling.journal import Entry
from mlops.journaling.ledger import Ledger
from mlops.storage import objects
from monitoring.daily_export import MISSED, DailyExport

TODAY, ORIGIN = datetime(2026, 11, 23), datetime(1970, 1, 1)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def micro(moment: datetime) -> int:
    return (moment - ORIGIN) // timedelta(microseconds=1)


class World:
    """A journal with rows on every day, a ledger, a folder, and a clock that stands where it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = TODAY + 2 * HOUR
        self.journal = journal.connect(f"sqlite:///{folder}/journal.db")
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", lambda: micro(self.now))
        self.place = objects.connect(f"file://{folder}/var")
        days = [TODAY + number * DAY for number in range(-20, 20)]
        self.write(*(day + HOUR for day in days), *(day + 23 * HOUR for day in days))

    def write(self, *moments: datetime, body: bytes = b"{}") -> None:
        count = self.journal.head().count
        numbered = enumerate(moments, count)
        self.journal.append([Entry("decision", n.to_bytes(16, "big"), body, micro(moment)) for n, moment in numbered])

    def another(self) -> DailyExport:
        return DailyExport(Turns(self.ledger, "fraud", lambda: micro(self.now)), self.journal, self.place)

    def run(self, after: timedelta = 2 * HOUR, at: timedelta = 2 * HOUR) -> list[str] | None:
        """Ask another process so long after midnight, where the daily work is due at some time of day."""
        self.now = TODAY + after
        slot = TODAY + after // DAY * DAY + at
        return self.another().write_if_due(slot, self.now)

    def break_place(self) -> Path:
        """Put a file where the folder should be, so that nothing can be stored."""
        (self.folder / "var").mkdir(exist_ok=True)
        (self.folder / "var" / "monitoring").write_text("in the way")
        return self.folder / "var" / "monitoring"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()
    made.journal.close()


def named(days: Sequence[int]) -> list[str]:
    return [f"monitoring/date={TODAY + day * DAY:%Y-%m-%d}/journal.parquet" for day in days]


def test_each_day_is_written_once_whoever_is_asked(world: World) -> None:
    assert world.run() == named(range(-MISSED, 0))
    assert world.run() is world.run(20 * HOUR) is None
    assert world.run(DAY + 2 * HOUR) == named([0])
    assert world.run(2 * DAY + 2 * HOUR) == named([1])
    assert world.place.list("monitoring") == named(range(-MISSED, 2))


def test_a_file_holds_every_row_of_its_day(world: World) -> None:
    world.run()
    with world.place.download(*named([-1])) as path:
        table = pl.read_parquet(path)
    kept = [row for row in world.journal.since(0) if micro(TODAY - DAY) <= row.entry.at < micro(TODAY)]
    assert table["hash"].to_list() == [row.hash.hex() for row in kept]
    assert table["at"].to_list() == [TODAY - 23 * HOUR, TODAY - HOUR]


def test_days_that_were_missed_are_made_up_for_as_far_back_as_a_week(world: World) -> None:
    world.run()
    assert world.run(4 * DAY + 2 * HOUR) == named(range(4))
    assert world.run(14 * DAY + 2 * HOUR) == named(range(7, 14))


def test_of_many_at_once_one_writes(world: World) -> None:
    found: list[list[str] | None] = []
    some = [world.another() for _ in range(4)]
    threads = [Thread(target=lambda one=one: found.append(one.write_if_due(world.now, world.now))) for one in some]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in found if each is not None] == [named(range(-MISSED, 0))]
    assert len(found) == 4


def test_a_day_waits_until_what_was_decided_at_its_end_is_written_down(world: World) -> None:
    midnight = timedelta()
    assert world.run(midnight, at=midnight) == named(range(-MISSED - 1, -1))
    world.write(TODAY - timedelta(microseconds=1))
    assert world.run(HOUR - timedelta(seconds=1), at=midnight) is None
    assert world.run(HOUR, at=midnight) == named([-1])
    with world.place.download(*named([-1])) as path:
        assert pl.read_parquet(path).height == 3


def test_a_day_without_rows_is_no_file_and_is_not_asked_for_again(world: World) -> None:
    world.run(25 * DAY)
    assert world.run(26 * DAY + 2 * HOUR) == []
    assert world.run(26 * DAY + 3 * HOUR) is None


def test_what_could_not_be_stored_is_tried_again_and_at_the_latest_the_day_after(world: World) -> None:
    in_the_way = world.break_place()
    for attempt in range(3):
        with pytest.raises(StorageFailed):
            world.run(2 * HOUR + attempt * timedelta(minutes=1))
    assert world.run(3 * HOUR) is None, "it was given up for this day"
    with pytest.raises(StorageFailed):
        world.run(DAY + 2 * HOUR)
    in_the_way.unlink()
    assert world.run(DAY + 2 * HOUR) == named(range(1 - MISSED, 1))


def test_a_damaged_day_is_told_and_does_not_hold_back_those_after_it(world: World) -> None:
    world.write(TODAY - 3 * DAY, body=b"\xff")
    with pytest.raises(Damaged, match="is not text"):
        world.run()
    others = [day for day in range(-MISSED, 0) if day != -3]
    assert world.place.list("monitoring") == named(others)
    assert world.run(5 * DAY + 2 * HOUR) == named(range(-2, 5)), "it is too long ago to be asked for"
