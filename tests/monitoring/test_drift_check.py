"""What a check counts: of a journal with a few planted decisions and labels, those that were old enough."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import replace

from mlops.contract import Fact
from mlops.journaling import journal
from mlops.journaling.journal import Entry, Row
from mlops.journaling.journal_table import JournalTable
from mlops.journaling.labels import DECISION, LABEL, encode
from modules.fraud_detection.settings import NAME
from monitoring import drift_check
from monitoring.drift_check import Monitoring
from monitoring.drift_report import DriftReport
from tests.test_scheduler import Place, place

__all__ = ["place"]
DAY, HOUR, ORIGIN = timedelta(days=1), timedelta(hours=1), datetime(1970, 1, 1)
UNTIL = datetime(2026, 11, 23, 2)
WORDS = Monitoring(window="7d", maturity="10d")


def micro(before: timedelta) -> int:
    return (UNTIL - before - ORIGIN) // timedelta(microseconds=1)


class Planted:
    """A journal of its own, into which decisions that a version once made are put under any time, with any labels."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._journal = place, journal.connect(f"sqlite:///{folder}/planted.db")
        decisions = (row for row in place.journal.since(0) if row.entry.kind == DECISION)
        self._made: Iterator[Row] = islice(decisions, 200)

    def decide(self, count: int, age: timedelta, *labels: tuple[int, timedelta]) -> None:
        """Put decisions of an age before the end of the check; of a label it is said when it became known."""
        for row in islice(self._made, count):
            self._journal.append([replace(row.entry, at=micro(age))])
            for label, known in labels:
                fact = Fact(row.entry.id.hex(), label, micro(known))
                id_ = row.entry.id[:14] + self._journal.head().count.to_bytes(2, "big")
                self._journal.append([Entry(LABEL, id_, encode(fact), micro(known), row.entry.id)])

    def check(self, words: Monitoring = WORDS) -> DriftReport:
        table = JournalTable(self._journal, NAME)
        table.read_on()
        return drift_check.check(NAME, self._place.platform, table, words, UNTIL, 1)


@pytest.fixture
def planted(place: Place, tmp_path: Path) -> Planted:
    return Planted(place, tmp_path)


def counted(report: DriftReport) -> tuple[int, int]:
    """Labels and positives that were counted, which is the same in each part of a report."""
    assert report.label and report.concept
    found = report.label.labels, report.label.positives
    assert found == (report.concept.labels, report.concept.whole.positives)
    assert found == ((report.realised.rows, report.realised.positives) if report.realised else (0, 0))
    return found


def test_positives_that_came_early_wait_for_their_neighbours_and_late_labels_count(planted: Planted) -> None:
    planted.decide(5, 3 * DAY, (1, DAY))
    planted.decide(2, 9 * DAY, (1, DAY))
    assert counted(planted.check()) == (0, 0)
    planted.decide(4, 12 * DAY, (1, 11 * DAY))
    planted.decide(3, 12 * DAY, (0, HOUR))
    assert counted(planted.check()) == (7, 4)


def test_a_window_of_decisions_ends_where_they_are_old_enough(planted: Planted) -> None:
    moment = timedelta(microseconds=1)
    planted.decide(1, 10 * DAY, (1, DAY))
    planted.decide(1, 17 * DAY + moment, (1, DAY))
    assert counted(planted.check()) == (0, 0)
    planted.decide(2, 10 * DAY + moment, (1, DAY))
    planted.decide(4, 17 * DAY, (1, DAY))
    assert counted(planted.check()) == (6, 6)


def test_a_label_counts_as_it_was_known_when_the_check_was_due(planted: Planted) -> None:
    planted.decide(2, 12 * DAY, (1, -HOUR))
    planted.decide(3, 12 * DAY, (0, 5 * DAY), (1, 2 * DAY))
    planted.decide(4, 12 * DAY, (0, 5 * DAY), (1, -HOUR))
    assert counted(planted.check()) == (7, 3)


def test_how_old_is_old_enough_is_what_the_settings_say(planted: Planted) -> None:
    planted.decide(5, 3 * DAY, (1, DAY))
    planted.decide(4, 12 * DAY, (1, 11 * DAY))
    assert counted(planted.check(Monitoring(window="7d", maturity="1d"))) == (5, 5)
    assert counted(planted.check(Monitoring(window="7d", maturity="10d"))) == (4, 4)
