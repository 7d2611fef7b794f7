"""Reports where they are kept: the newest is found, given once, and whatever else lies there is passed over."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mlops.errors import BadData, StorageFailed
from mlops.storage import objects
from mlops.storage.objects import Objects
from monitoring import stored_reports
from monitoring.drift_report import STABLE, DriftReport
from monitoring.stored_reports import Newest

NOW, HOUR = datetime(2025, 2, 1, 2), timedelta(hours=1)


def report(until: datetime, version: int = 3, name: str = "fraud") -> DriftReport:
    return DriftReport(name, version, "1f0c", until - 24 * HOUR, until, 1, 600, STABLE, "Nothing has drifted.", [])


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "file":
        return objects.connect(f"file://{tmp_path}/var")
    return objects.connect(f"s3://{request.getfixturevalue('bucket')}/here")


def test_the_newest_is_given_once_and_again_where_a_newer_one_comes(place: Objects) -> None:
    newest = Newest(place, "fraud")
    assert newest.look(NOW) is None
    for until in (NOW - HOUR, NOW - 20 * HOUR):
        stored_reports.store(report(until), place)
    stored_reports.store(report(NOW, name="fraud_of_others"), place)
    assert newest.look(NOW) == report(NOW - HOUR)
    assert newest.look(NOW) is None
    stored_reports.store(report(NOW), place)
    assert newest.look(NOW) == Newest(place, "fraud").look(NOW) == report(NOW)
    assert newest.look(NOW) is None


def test_of_two_checks_of_one_moment_that_of_the_later_version_counts(place: Objects) -> None:
    for version in (10, 9):
        stored_reports.store(report(NOW, version), place)
    found = Newest(place, "fraud").look(NOW)
    assert found is not None
    assert found.version == 10


def test_a_check_up_to_a_time_to_come_waits_for_it(place: Objects) -> None:
    newest = Newest(place, "fraud")
    stored_reports.store(report(NOW), place)
    stored_reports.store(report(NOW + HOUR), place)
    assert newest.look(NOW) == report(NOW)
    assert newest.look(NOW + HOUR) == report(NOW + HOUR)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"name": "fraud"}', b"\xff"])
def test_one_that_cannot_be_read_is_named_once(tmp_path: Path, data: bytes) -> None:
    place = objects.connect(f"file://{tmp_path}/var")
    key, newest = "drift_reports/fraud/2025-02-01T02-00-00-version-3/report.json", Newest(place, "fraud")
    objects.write(place, "drift_reports/fraud/9999/report.json", b"notes")
    objects.write(place, key, data)
    with pytest.raises(BadData, match=f"{key}: "):
        newest.look(NOW)
    assert newest.look(NOW) is None


def test_one_that_could_not_be_fetched_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = objects.connect(f"file://{tmp_path}/var")
    stored_reports.store(report(NOW), place)
    newest = Newest(place, "fraud")

    @contextmanager
    def gone(_: str) -> Iterator[Path]:
        raise StorageFailed("the network is gone")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(place, "download", gone)
        with pytest.raises(StorageFailed):
            newest.look(NOW)
    assert newest.look(NOW) == report(NOW)
