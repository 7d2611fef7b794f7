"""How a candidate is made by itself: all that is known by now, the pipeline over it, the gate, and then the shadow."""

from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl
from rich.console import Console

from mlops.alerting.turns import Turns
from mlops.bootstrap import Connected
from mlops.errors import BadData, MlopsError, NotFound
from mlops.journaling.journal import Journal
from mlops.journaling.ledger import Done
from mlops.progress import Phases
from mlops.releasing.releases import Releases
from mlops.storage import objects, tables
from mlops.storage.objects import RAW
from mlops.traffic import SHADOW
from mlops.values import seconds
from modules.fraud_detection import gate, history, program, run_pipeline
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.utils import logger

WHO, WORK = "retrain", "retraining "


class NotNow(MlopsError):
    """The time for another candidate has not come."""


class Outcome(NamedTuple):
    """The candidate that was made, whether it goes on trial, and why, or why not."""

    version: int
    passed: bool
    why: str


class Retraining:
    """Makes candidates of this module and lets those that pass the gate watch in the shadow."""

    def __init__(self, settings: Settings, platform: Connected, journal: Journal, console: Console) -> None:
        self._settings, self._platform, self._journal, self._console = settings, platform, journal, console
        self._turns = Turns(platform.ledger, NAME, platform.now, seconds(settings.retraining.lease))
        self._releases = Releases(NAME, platform.ledger, lambda: platform.registry)

    def run(self, why: str, now: datetime, force: bool = False) -> Outcome:
        """Make a candidate from what is known at `now` (UTC), and let it watch if it is better for sure.

        One that was cut short is made first: it goes on after the last phase that was finished, with what was known
        then. Raises `NotNow` while another is being made, while a trial runs or when the last candidate is too young;
        where it is forced, only the first counts, and it need not be better either.
        """
        unfinished = [work for work in self._turns.known(WORK) if work.state in ("taken", "failed")]
        if not force and not unfinished:
            self._check(now)
        moment = datetime.fromisoformat(unfinished[0].what.removeprefix(WORK)) if unfinished else now
        turn = self._turns.take(f"{WORK}{moment.isoformat()}")
        if turn is None:
            raise NotNow("another retraining runs; wait for it")
        try:
            with turn.kept():
                outcome = self._make(moment, why, must_gain=not force)
        except MlopsError as error:
            turn.failed(str(error))
            raise
        turn.done({"version": outcome.version, "passed": outcome.passed})
        return outcome

    def _make(self, now: datetime, why: str, must_gain: bool) -> Outcome:
        key = f"{RAW}/retraining/{now:%Y-%m-%dT%H-%M-%S-%f}.parquet"
        if not self._platform.objects.exists(key):
            rows, words = self.known(now), self._settings.retraining
            if rows.is_empty():
                raise BadData(
                    f"no transaction lies within retraining.window {words.window} before {now:%Y-%m-%d %H:%M} with "
                    f"retraining.maturity {words.maturity} left out; wait, or set them longer and shorter"
                )
            self._keep(rows, key)
        return self._try(key, why, now, must_gain)

    def known(self, now: datetime) -> pl.DataFrame:
        """The transactions of the window whose labels had time to become known, with the labels known at `now`."""
        words, production = self._settings.retraining, self._platform.registry.find(NAME, self._production())
        table = history.journalled(self._journal)
        rows = history.known(self._platform, production.tags["snapshot"], table, self._settings.data, now)
        until = now - timedelta(seconds=seconds(words.maturity))
        time = pl.col(self._settings.data.time.column)
        return rows.filter((time < until) & (time >= until - timedelta(seconds=seconds(words.window))))

    def made(self, rows: pl.DataFrame, name: str, settings: Settings) -> int:
        """Make a version from rows like those of `known` under some settings, and return its number."""
        key = f"{RAW}/retraining/{name}.parquet"
        self._keep(rows, key)
        return self._register(key, settings)

    def judged(self, version: int, now: datetime, must_gain: bool) -> Done:
        """Hold a version against production, unless that was done, and return the verdict."""
        known = self._releases.done(gate.JUDGED, version)
        return known or gate.judge(self._settings, self._platform, self._journal, version, WHO, now, must_gain)

    def _check(self, now: datetime) -> None:
        traffic = self._releases.traffic
        if traffic is not None and traffic.candidate is not None:
            raise NotNow(f"version {traffic.candidate} is on trial; end it first, or wait")
        done = self._platform.ledger.acts(NAME)
        made = [one.at for one in done if (one.act.act, one.act.who) == (gate.JUDGED, WHO)]
        waits = self._settings.retraining.cool_down
        if made and history.micro(now) - made[-1] < seconds(waits) * 1_000_000:
            raise NotNow(f"the last candidate was made less than {waits} ago; wait, or say --force")

    def _production(self) -> int:
        traffic = self._releases.traffic
        if traffic is None:
            raise NotFound(f"no version of {NAME} is in production; make one: python -m modules.{NAME} pipeline")
        return traffic.production

    def _keep(self, rows: pl.DataFrame, key: str) -> None:
        with objects.scratch() as folder:
            tables.write(rows, folder / "known.parquet")
            self._platform.objects.upload_once(folder / "known.parquet", key)

    def _try(self, key: str, why: str, now: datetime, must_gain: bool) -> Outcome:
        """Make a version from stored rows, hold it against production, and let it watch if it passes."""
        version = self._register(key, self._settings)
        judged = self.judged(version, now, must_gain)
        passed = bool(judged.act.figures["passed"])
        if passed and self._releases.done(SHADOW, version) is None:
            self._releases.trial(version, "shadow", 0.0, WHO, why)
        return Outcome(version, passed, judged.act.why)

    def _register(self, key: str, settings: Settings) -> int:
        """Run the pipeline over stored rows."""
        changed = {"data": history.recorded(settings.data), "split": settings.retraining.split}
        log, source = logger.start(settings.data.entities), self._platform.objects.url(key)
        job = Job(settings.model_copy(update=changed), self._platform, log, source, once=key)
        with Phases(list(run_pipeline.PHASES), job.logger, self._console) as progress:
            run_pipeline.run(job, progress, resume=True)
        return int(job.records["register"]["version"])


if __name__ == "__main__":
    program.run("retrain")
