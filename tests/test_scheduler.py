"""The scheduler on a platform that has lived: once a day, wherever it runs; every alarm, and the way to retraining."""

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from msgspec.structs import replace

from mlops import bootstrap
from mlops.alerting import alerts
from mlops.alerting.alarms import KINDS
from mlops.alerting.alerts import Alert
from mlops.bootstrap import Connected
from mlops.contract import Record, Stamp
from mlops.journaling import journal
from mlops.journaling.journal import Entry, Journal
from mlops.journaling.labels import DECISION, encode
from mlops.journaling.ledger import identify
from mlops.traffic import Traffic
from modules.fraud_detection.settings import NAME
from monitoring import drift_report_scheduler
from monitoring.drift_check import Monitoring
from monitoring.drift_metrics import DriftMetrics
from monitoring.drift_report import DRIFTED, STABLE, TOO_FEW, DriftReport
from monitoring.scheduler import Module, Scheduler
from tests.lived import DEMO, STORY, Lived
from tests.mlops.alerting.test_alerts import queue, topic
from tests.test_faults import awaited

__all__ = ["queue", "topic"]
MINUTE = 60_000_000
DAY = timedelta(days=1)


class Place:
    """Schedulers over one lived platform with a new ledger, and a clock that stands where it is told to."""

    def __init__(self, lived: Lived) -> None:
        self.lived, self.start = lived, lived.settings.simulation.start
        url = f"sqlite:///{lived.folder}/new.db"
        lived.environment = {**lived.environment, "MLOPS_PLATFORM__LEDGER": url}
        settings = lived.settings.platform.model_copy(update={"ledger": url})
        self.platform: Connected = bootstrap.connect(settings, lambda: self.now)
        self.at(STORY.live)
        self.platform.ledger.record(NAME, "promoted", 1, "ada", "the first", lambda _: Traffic(1))
        self.journal: Journal = journal.connect(lived.settings.platform.journal)
        self.asked: list[Alert] = []
        self.code = 0
        self.at(STORY.end)

    def at(self, day: int, hours: float = 0) -> None:
        self.now = self.micro(day, hours)

    def micro(self, day: int, hours: float = 0) -> int:
        moment = self.start + day * DAY + timedelta(hours=hours)
        return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)

    def scheduler(self, metrics: DriftMetrics | None = None) -> Scheduler:
        return Scheduler(Module(NAME, self.platform, self.journal, Monitoring(at="02:00")), self.retrain, metrics)

    def retrain(self, alert: Alert) -> int:
        self.asked.append(alert)
        return self.code

    def told(self, kind: str) -> list[Alert]:
        rows = [row for row in self.platform.ledger.journal.since(0) if row.entry.kind == KINDS[Alert]]
        return [alert for row in rows if (alert := alerts.decode(row.entry.body)).kind == kind]

    def decide(self, minute: int, took: int, count: int = 30, instead_of: int | None = None) -> None:
        """Add decisions to the journal in a minute before now, each of which took so many milliseconds."""
        stamp = Stamp(NAME, 9, "production", "h", "c")
        at = self.now - self.now % MINUTE - minute * MINUTE
        entries = []
        for number in range(count):
            key = f"{at} {number} {took}"
            said = {"fraud_probability": 0.01, "decision": "approve"}
            record = Record(key, "d", {"amount": 1.0}, [0.0], said, stamp, took * 1_000, False, instead_of)
            entries.append(Entry(DECISION, identify(NAME, key), encode(record), at + number))
        self.journal.append(entries)

    def repeat(self, since: int, until: int, later: int) -> None:
        """Add the decisions of some days once more, so many days later and under other ids."""
        days, entries = later * DAY // timedelta(microseconds=1), []
        for row in self.journal.between(*(self.micro(day) for day in (since, until))):
            if row.entry.kind == DECISION:
                id_ = identify(NAME, f"again {row.entry.id.hex()}")
                entries.append(replace(row.entry, id=id_, at=row.entry.at + days))
        self.journal.append(entries)


@pytest.fixture
def place(lived: Lived) -> Iterator[Place]:
    made = Place(lived)
    yield made
    made.platform.ledger.verify()
    made.platform.ledger.close()
    made.journal.close()


def test_it_checks_once_a_day_and_catches_up_with_the_last_that_it_missed(place: Place) -> None:
    scheduler = place.scheduler()
    place.at(110, 1)
    first = scheduler.tick()
    assert isinstance(first, DriftReport)
    assert first.until == place.start + 109 * DAY + timedelta(hours=2)
    assert scheduler.tick() is None
    place.at(110, 3)
    second = scheduler.tick()
    assert second is not None
    assert (second.until, second.look) == (place.start + 110 * DAY + timedelta(hours=2), 2)
    place.at(112, 3)
    third = place.scheduler().tick()
    assert third is not None
    assert (third.until, third.look) == (place.start + 112 * DAY + timedelta(hours=2), 3)
    assert scheduler.tick() is None


def test_of_many_at_once_one_checks(place: Place) -> None:
    schedulers = [place.scheduler() for _ in range(4)]
    reports: list[DriftReport | None] = []
    threads = [threading.Thread(target=lambda one=one: reports.append(one.tick())) for one in schedulers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report is not None for report in reports) == 1
    assert len(place.told("drift")) == 1


def test_drift_is_told_once_with_what_and_where_and_asks_for_retraining_while_it_lasts(place: Place) -> None:
    scheduler = place.scheduler()
    report = scheduler.tick()
    assert report is not None
    assert report.verdict == DRIFTED
    (alert,) = place.told("drift")
    assert (alert.state, alert.version, alert.values["snapshot"]) == ("raised", 1, report.snapshot)
    assert Path(alert.link).read_text().startswith("<!doctype html>")
    assert alert.values["amount"] > 0.2
    assert [each.id for each in place.asked] == [alert.id]
    place.at(STORY.end + 1, 3)
    scheduler.tick()
    assert place.told("drift") == [alert]
    assert len(place.asked) == 2


def test_a_retraining_that_dies_is_asked_for_again(place: Place) -> None:
    scheduler, place.code = place.scheduler(), -9
    scheduler.tick()
    place.code = 3
    place.at(STORY.end, 1)
    scheduler.tick()
    place.at(STORY.end, 1.5)
    scheduler.tick()
    assert len(place.asked) == 2


def test_days_on_which_hardly_anything_was_decided_do_not_clear_the_alarm(place: Place) -> None:
    scheduler = place.scheduler()
    assert scheduler.tick() is not None
    for day in range(11, 15):
        place.at(STORY.end + day, 3)
        report = scheduler.tick()
        assert report is not None
        assert (report.verdict, report.rows) == (TOO_FEW, 0)
    assert [alert.state for alert in place.told("drift")] == ["raised"]


def test_three_calm_days_clear_the_alarm(place: Place) -> None:
    scheduler, later = place.scheduler(), 40
    scheduler.tick()
    # The weeks before the change come back; of what was decided in between no label is waited for any more.
    place.repeat(82, 94, later)
    told = []
    for day in range(91, 94):
        place.at(day + later, 3)
        report = scheduler.tick()
        assert report is not None
        assert report.verdict == STABLE
        told.append([alert.state for alert in place.told("drift")])
    assert told == [["raised"], ["raised"], ["raised", "cleared"]]


def test_a_version_that_is_new_in_production_has_too_few_rows_and_no_alarm(place: Place) -> None:
    place.at(STORY.end, -3)
    place.platform.ledger.record(NAME, "promoted", 2, "ada", "try", lambda _: Traffic(2, 1))
    place.platform.ledger.record(NAME, "rolled back", 2, "ada", "no", lambda _: Traffic(1))
    place.at(STORY.end, 3)
    report = place.scheduler().tick()
    assert report is not None
    assert (report.rows, report.prediction and report.prediction.verdict) == (0, TOO_FEW)


def test_a_check_that_fails_alarms_and_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = place.lived.folder / "mlflow.db"
    kept = gone.read_bytes()
    gone.write_bytes(b"this is no database" * 1_000)
    scheduler = place.scheduler()
    assert scheduler.tick() is None
    (alert,) = place.told("failed run")
    assert "MLflow's store failed" in alert.title
    gone.write_bytes(kept)
    later = place.scheduler()
    assert later.tick() is not None


@pytest.mark.parametrize(
    ("bad_minutes", "fires"), [(range(1, 6), True), (range(1, 5), False), ([3], False), ([], False)]
)
def test_answers_that_are_slow_for_minutes_alarm_and_a_slow_one_does_not(
    place: Place, bad_minutes: range | list[int], fires: bool
) -> None:
    for minute in range(1, 6):
        place.decide(minute, took=400 if minute in bad_minutes else 2)
    place.decide(2, took=5_000, count=1)
    place.scheduler().tick()
    told = place.told("latency")
    assert bool(told) is fires
    if fires:
        assert "99 of 100 answers took up to 5000.0 ms for 5 minutes" in told[0].title or "400.0 ms" in told[0].title


def test_slowness_is_told_once_and_again_when_it_is_over(place: Place) -> None:
    scheduler = place.scheduler()
    for round_ in range(3):
        place.at(STORY.end + 1, round_ * 0.2)
        for minute in range(1, 6):
            place.decide(minute, took=400)
        scheduler.tick()
    assert [alert.state for alert in place.told("latency")] == ["raised"]
    for round_ in range(3):
        place.at(STORY.end + 2, round_ * 0.2)
        for minute in range(1, 6):
            place.decide(minute, took=2)
        scheduler.tick()
    assert [alert.state for alert in place.told("latency")] == ["raised", "cleared"]


def test_a_candidate_that_fails_alarms(place: Place) -> None:
    for minute in range(1, 6):
        place.decide(minute, took=2, instead_of=2)
    place.scheduler().tick()
    (alert,) = place.told("failures")
    assert "a candidate failed on up to 100.0% of the decisions" in alert.title


def test_a_rollback_is_told(place: Place) -> None:
    place.platform.ledger.record(
        NAME, "rolled back", 2, "watch", "against the candidate: it costs more", figures={"it costs more": 5.2}
    )
    place.scheduler().tick()
    (alert,) = place.told("rollback")
    assert (alert.title, alert.version) == ("version 2 was taken back: against the candidate: it costs more", 2)
    place.at(STORY.end + 2, 3)
    scheduler = place.scheduler()
    for _ in range(3):
        scheduler.tick()
    assert [each.state for each in place.told("rollback")] == ["raised", "cleared"]


def test_drift_goes_to_a_topic_and_from_its_queue_to_a_real_retraining(place: Place, topic: str, queue: str) -> None:
    """SNS to SQS to the module's own word, in its own process; what else the queue hears asks for nothing and goes."""
    for minute in range(1, 6):
        place.decide(minute, took=400)

    def retrain(alert: Alert) -> int:
        place.asked.append(alert)
        return place.lived.module("retrain", "--why", f"drift: {alert.title}")[0]

    words: Mapping[str, Any] = {"alerting": {"sinks": (topic,), "inbox": queue}}
    module = Module(NAME, place.platform, place.journal, Monitoring.model_validate({"at": "02:00", **words}))
    scheduler = Scheduler(module, retrain)
    assert scheduler.tick() is not None
    assert [alert.kind for alert in place.asked] == ["drift"]
    acts = [done.act for done in place.platform.ledger.acts(NAME)]
    assert [act.act for act in acts[-3:-1]] == ["registered", "judged"] or acts[-1].act == "judged"
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=queue.removeprefix("sqs://"))["QueueUrl"]
    left = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")


def test_while_a_retraining_runs_it_still_looks_and_tells(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()

    def retrain(_: Alert) -> int:
        begun.set()
        over.wait(120)
        return 0

    monkeypatch.setattr(drift_report_scheduler, "EVERY", 0.2)
    module = Module(NAME, place.platform, place.journal, Monitoring(at="02:00"))
    clock = drift_report_scheduler.clock([Scheduler(module, retrain)])
    served = threading.Thread(target=clock.start)
    served.start()
    try:
        assert begun.wait(60)
        for minute in range(1, 6):
            place.decide(minute, took=400)
        awaited(lambda: [alert.state for alert in place.told("latency")] == ["raised"])
    finally:
        over.set()
        clock.shutdown()
        served.join()


def test_as_a_program_it_does_what_is_due_and_then_nothing(lived: Lived) -> None:
    command = ("-m", "monitoring.drift_report_scheduler", "--module", NAME, "--config", str(DEMO), "--once")
    code, out, err = lived.run(*command)
    assert (code, out) == (0, ""), err
    assert '"message": "Drift in ' in err
    code, _, err = lived.run(*command)
    assert code == 0
    assert '"message": "nothing was due"' in err
