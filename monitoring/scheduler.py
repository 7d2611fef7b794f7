"""What is due for one module, and when: looks at how it answers, a check a day, an export, and the call to retrain."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlops.alerting import alarms, inbox
from mlops.alerting.alerts import Alert
from mlops.alerting.inbox import Inbox
from mlops.alerting.turns import Turns
from mlops.bootstrap import Connected
from mlops.errors import BadConfiguration, MlopsError, NotFound
from mlops.journaling.journal import Journal
from mlops.journaling.journal_table import JournalTable
from mlops.values import seconds
from monitoring import drift_check, stored_reports, vitals
from monitoring.daily_export import DailyExport
from monitoring.drift_check import Monitoring
from monitoring.drift_metrics import DriftMetrics
from monitoring.drift_report import DRIFTED, TOO_FEW, DriftReport
from monitoring.stored_reports import Newest

ANSWERS = (0, 3, 4)
"""What retraining answers where it did its work: a candidate, one that was refused, or that it is not the time."""
LATELY = timedelta(days=1) // timedelta(microseconds=1)
ORIGIN = datetime(1970, 1, 1)

log = logging.getLogger("scheduler")

KINDS = ("drift", "latency", "failures", "rollback", "failed run")

Retrain = Callable[[Alert], int]
"""Starts the retraining that an alert asks for, and gives its exit code."""


@dataclass(frozen=True)
class Module:
    """A module that is watched, with its connections."""

    name: str
    platform: Connected
    journal: Journal
    words: Monitoring


class Scheduler:
    """Does for one module what is due when it is asked; any number may be asked at once, on any number of hosts."""

    def __init__(self, module: Module, retrain: Retrain, metrics: DriftMetrics | None = None) -> None:
        self._module, self._retrain, self._metrics = module, retrain, metrics
        platform, words = module.platform, module.words.alerting
        self._turns = Turns(platform.ledger, module.name, platform.now, seconds(module.words.lease))
        self._alarms = alarms.connect(words, platform.ledger, module.name, platform.now)
        self._inbox: Inbox = inbox.connect(words.inbox, platform.ledger, module.name, platform.now)
        self._table = JournalTable(module.journal, module.name)
        self._export = DailyExport(self._turns, module.journal, platform.objects)
        self._newest = Newest(platform.objects, module.name)

    def tick(self) -> DriftReport | None:
        """Look how things stand, then do what is due."""
        self.look()
        return self.work()

    def look(self) -> None:
        """Raise or calm what changes from minute to minute, also while `work` is at work in another thread."""
        try:
            self._say_how_it_answers()
            self._tell_of_releases()
        finally:
            self._alarms.deliver()
        if self._metrics is not None:
            self._show(self._metrics)

    def work(self) -> DriftReport | None:
        """Check and export if that is due, tell what is to be told, and retrain, to its end, if that is asked for."""
        report = None
        try:
            report = self._check_if_due()
            self._export_if_due()
        finally:
            self._alarms.deliver()
        if report is not None and self._metrics is not None:
            self._show(self._metrics)
        self._hear(report is not None and report.verdict == DRIFTED)
        return report

    def _say_how_it_answers(self) -> None:
        module = self._module
        found = vitals.look(module.journal, module.name, module.words.vitals, module.platform.now())
        values = {"p99 ms": found.p99, "failures": found.failures, "decisions": found.decisions}
        words = self._module.words.vitals
        slow = f"99 of 100 answers took up to {max(found.p99, default=0):.1f} ms for {words.minutes} minutes"
        self._alarms.say("latency", "answers", found.slow, slow, values)
        failing = f"a candidate failed on up to {max(found.failures, default=0):.1%} of the decisions"
        self._alarms.say("failures", "candidate", found.failing, failing, values)

    def _tell_of_releases(self) -> None:
        done = [one for one in self._module.platform.ledger.acts(self._module.name) if one.act.act == "rolled back"]
        if done:
            last = done[-1]
            lately = self._module.platform.now() - last.at < LATELY
            title = f"version {last.act.version} was taken back: {last.act.why}"
            self._alarms.say("rollback", "release", lately, title, last.act.figures, version=last.act.version)

    def _check_if_due(self) -> DriftReport | None:
        """Run the latest check that is due, unless it was run; those that were missed before it are not made up for."""
        slot = _slot(self._now(), self._module.words.at)
        turn = self._turns.take(f"check {slot:%Y-%m-%dT%H:%M}")
        if turn is None:
            return None
        try:
            with turn.kept():
                report, link = self._check(slot)
        except BaseException as error:
            turn.failed(_said(error))
            self._alarms.say("failed run", "drift check", True, _said(error))
            if not isinstance(error, MlopsError):
                raise
            return None
        drifted = report.verdict == DRIFTED
        self._alarms.say("failed run", "drift check", False, "the check ran")
        values = {column.name: column.psi for column in report.columns if column.verdict == DRIFTED}
        if report.verdict != TOO_FEW:
            self._alarms.say("drift", "data", drifted, report.headline, values | _numbers(report), link, report.version)
        turn.done({"version": report.version, "verdict": report.verdict, "link": link})
        return report

    def _check(self, slot: datetime) -> tuple[DriftReport, str]:
        module = self._module
        self._table.read_on()
        traffic = module.platform.ledger.traffic(module.name)
        if traffic is None:
            raise NotFound(f"no version of '{module.name}' is in production; make one first")
        checked = [work for work in self._turns.known("check ") if work.result.get("version") == traffic.production]
        report = drift_check.check(module.name, module.platform, self._table, module.words, slot, len(checked) + 1)
        return report, stored_reports.store(report, module.platform.objects)

    def _export_if_due(self) -> None:
        """Write the journal of the days that are over; what fails there is told, and stops nothing else."""
        now = self._now()
        try:
            if self._export.write_if_due(_slot(now, self._module.words.at), now) is not None:
                self._alarms.say("failed run", "journal export", False, "the export ran")
        except Exception as error:
            log.error("the journal was not exported: %s", error, exc_info=not isinstance(error, MlopsError))
            self._alarms.say("failed run", "journal export", True, _said(error))

    def _show(self, metrics: DriftMetrics) -> None:
        """Let Prometheus see how things stand, and the newest check, whoever made it and whenever."""
        traffic = self._module.platform.ledger.traffic(self._module.name)
        metrics.stands(self._module.name, KINDS, self._alarms.open(), traffic)
        try:
            report = self._newest.look(self._now())
        except MlopsError as error:
            log.warning("the newest drift report cannot be read: %s", error)
            return
        if report is not None:
            metrics.checked(report)

    def _hear(self, drifted: bool) -> None:
        """Retrain for what was raised; and again after each check that finds it still."""
        received = self._inbox.receive(0)
        heard = [alert for alert in received if alert.kind == "drift"]
        for alert in received:
            # Only drift asks for something here; what else is raised is for people, who hear it over the sinks.
            if alert.kind != "drift" or self._retrain(alert) in ANSWERS:
                self._inbox.done(alert)
        going_on = [alert for alert in self._alarms.open() if alert.kind == "drift"]
        if drifted and not heard and going_on:
            self._retrain(going_on[0])

    def _now(self) -> datetime:
        return ORIGIN + timedelta(microseconds=self._module.platform.now())


def _slot(now: datetime, at: str) -> datetime:
    """The latest time of day `at` (HH:MM, UTC) that has come."""
    try:
        hour, minute = datetime.strptime(at, "%H:%M").timetuple()[3:5]
    except ValueError:
        raise BadConfiguration(f"monitoring.at is '{at}', which is no time of day; write one such as 02:00") from None
    slot = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return slot if slot <= now else slot - timedelta(days=1)


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, MlopsError) else "an error of ours; the log says more"


def _numbers(report: DriftReport) -> dict[str, object]:
    expected = report.estimated.expected.average_precision if report.estimated is not None else None
    return {"rows": report.rows, "snapshot": report.snapshot, "estimated average precision": expected}
