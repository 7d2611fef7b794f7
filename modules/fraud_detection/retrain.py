"""How a candidate is made by itself: all that is known by now, the pipeline over it, the gate, and then the shadow."""

from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl
from rich.console import Console

from mlops import objects
from mlops.bootstrap import Connected
from mlops.errors import BadInput, NotFound
from mlops.journal import Journal
from mlops.objects import RAW
from mlops.progress import Phases
from mlops.releases import Releases
from mlops.traffic import SHADOW
from mlops.values import seconds
from modules.fraud_detection import gate, history, run_pipeline
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.data import tables
from modules.fraud_detection.src.utils import logger

WHO = "retrain"


class Outcome(NamedTuple):
    """The candidate that was made, whether it goes on trial, and why, or why not."""

    version: int
    passed: bool
    why: str


class Retraining:
    """Makes candidates of this module and lets those that pass the gate watch in the shadow."""

    def __init__(self, settings: Settings, platform: Connected, journal: Journal, console: Console) -> None:
        self._settings, self._platform, self._journal, self._console = settings, platform, journal, console
        self._releases = Releases(NAME, platform.ledger, lambda: platform.registry)

    def run(self, why: str, now: datetime, force: bool = False) -> Outcome:
        """Make a candidate from what is known at `now` (UTC).

        One is made for each moment: cut short and run again with the same, it goes on after the last phase that was
        finished. It goes on trial if it is better for sure. Raises `BadInput` while a trial runs or the last candidate
        is too young; unless it is forced, and then it need not be better either.
        """
        if not force:
            self._check(now)
        key = f"{RAW}/retraining/{now:%Y-%m-%dT%H-%M-%S-%f}.parquet"
        if not self._platform.objects.exists(key):
            self._keep(self.known(now), key)
        return self._try(key, why, now, must_gain=not force)

    def known(self, now: datetime) -> pl.DataFrame:
        """The transactions of the window whose labels had time to become known, with the labels known at `now`."""
        words, production = self._settings.retraining, self._platform.registry.find(NAME, self._production())
        table = history.journalled(self._journal)
        rows = history.known(self._platform, production.tags["snapshot"], table, self._settings.data, now)
        until = now - timedelta(seconds=seconds(words.maturity))
        time = pl.col(self._settings.data.time.column)
        return rows.filter((time < until) & (time >= until - timedelta(seconds=seconds(words.window))))

    def over(self, rows: pl.DataFrame, name: str, why: str, now: datetime) -> Outcome:
        """Make a candidate from rows like those of `known`."""
        key = f"{RAW}/retraining/{name}.parquet"
        self._keep(rows, key)
        return self._try(key, why, now, must_gain=False)

    def _check(self, now: datetime) -> None:
        traffic = self._releases.traffic
        if traffic is not None and traffic.candidate is not None:
            raise BadInput(f"version {traffic.candidate} is on trial; end it first, or wait")
        done = self._platform.ledger.acts(NAME)
        made = [one.at for one in done if (one.act.act, one.act.who) == (gate.JUDGED, WHO)]
        waits = self._settings.retraining.cool_down
        if made and history.micro(now) - made[-1] < seconds(waits) * 1_000_000:
            raise BadInput(f"the last candidate was made less than {waits} ago; wait, or say --force")

    def _production(self) -> int:
        traffic = self._releases.traffic
        if traffic is None:
            raise NotFound(f"no version of {NAME} is in production; make one: python -m modules.{NAME} pipeline")
        return traffic.production

    def _keep(self, rows: pl.DataFrame, key: str) -> None:
        with objects.scratch() as folder:
            tables.write(rows, folder / "known.parquet")
            self._platform.objects.upload(folder / "known.parquet", key)

    def _try(self, key: str, why: str, now: datetime, must_gain: bool) -> Outcome:
        """Run the pipeline over stored rows, hold the version against production, and let it watch if it passes."""
        settings = self._settings
        mine = settings.model_copy(update={"data": history.recorded(settings.data), "split": settings.retraining.split})
        job = Job(mine, self._platform, logger.start(settings.data.entities), self._platform.objects.url(key), once=key)
        with Phases(list(run_pipeline.PHASES), job.logger, self._console) as progress:
            run_pipeline.run(job, progress, resume=True)
        version = int(job.records["register"]["version"])
        judged = self._releases.done(gate.JUDGED, version)
        if judged is None:
            judged = gate.judge(settings, self._platform, self._journal, version, WHO, now, must_gain)
        passed = bool(judged.act.figures["passed"])
        if passed and self._releases.done(SHADOW, version) is None:
            self._releases.trial(version, "shadow", 0.0, WHO, why)
        return Outcome(version, passed, judged.act.why)
