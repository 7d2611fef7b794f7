"""The scheduler writes the journal of the days that are over beside its daily check, and neither needs the other."""

import shutil

import polars as pl
import pytest

from mlops.journaling import journal_export
from tests.lived import STORY
from tests.test_scheduler import DAY, Place, place

__all__ = ["place"]
LAST = STORY.end - 1
"""The last day on which something was decided."""


def key(place: Place, day: int) -> str:
    return f"monitoring/date={place.start + day * DAY:%Y-%m-%d}/journal.parquet"


def nothing_written(place: Place) -> None:
    """Take away what the scheduler wrote in the life before."""
    shutil.rmtree(place.lived.folder / "files" / "monitoring")


def test_after_the_daily_work_yesterdays_journal_lies_in_the_bucket_row_by_row(place: Place) -> None:
    nothing_written(place)
    place.at(LAST, 3)
    assert place.scheduler().tick() is not None
    assert place.platform.objects.list("monitoring")[-1] == key(place, LAST - 1)
    with place.platform.objects.download(key(place, LAST - 1)) as path:
        table = pl.read_parquet(path)
    rows = list(place.journal.between(place.micro(LAST - 1), place.micro(LAST)))
    assert table["hash"].to_list() == [row.hash.hex() for row in rows]
    assert {"decision", "label"} <= set(table["kind"])
    nothing_written(place)
    for scheduler in (place.scheduler(), place.scheduler()):
        scheduler.tick()
    assert place.platform.objects.list("monitoring") == []
    place.at(LAST + 1, 3)
    place.scheduler().tick()
    assert place.platform.objects.list("monitoring") == [key(place, LAST)]


def test_an_export_that_fails_is_one_line_and_an_alarm_and_stops_no_check(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    nothing_written(place)
    in_the_way = place.lived.folder / "files" / "monitoring"
    in_the_way.write_text("no folder")
    scheduler = place.scheduler()
    assert scheduler.tick() is not None
    (alert,) = place.told("failed run")
    assert (alert.what, alert.state) == ("journal export", "raised")
    (line,) = [record for record in caplog.records if record.name == "scheduler"]
    assert line.getMessage() == f"the journal was not exported: {alert.title}"
    assert (line.levelname, not line.exc_info) == ("ERROR", True)
    assert [alert.kind for alert in place.asked] == ["drift"]
    in_the_way.unlink()
    assert scheduler.tick() is None
    assert place.platform.objects.list("monitoring")[-1] == key(place, STORY.end - 2)
    assert place.told("failed run") == [alert]


def test_the_alarm_of_an_export_ends_after_days_on_which_it_ran(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(journal_export, "write", wrong)
        assert place.scheduler().tick() is not None
    for day in range(3):
        place.at(STORY.end + day, 3)
        place.scheduler().tick()
    states = [(alert.what, alert.state, alert.title) for alert in place.told("failed run")]
    assert states == [
        ("journal export", "raised", "an error of ours; the log says more"),
        ("journal export", "cleared", "the export ran"),
    ]


def test_a_check_that_fails_stops_no_export(place: Place) -> None:
    nothing_written(place)
    (place.lived.folder / "mlflow.db").write_bytes(b"this is no database" * 1_000)
    place.at(STORY.end, 3)
    assert place.scheduler().tick() is None
    assert [alert.what for alert in place.told("failed run")] == ["drift check"]
    assert place.platform.objects.list("monitoring")[-1] == key(place, STORY.end - 1)
