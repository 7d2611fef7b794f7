"""The whole loop in time-lapse: the world changes; the platform notices, retrains, tries, promotes and rolls back."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl
from rich.console import Console

from mlops import bootstrap
from mlops.alerting.alerts import Alert
from mlops.contract import Told
from mlops.errors import Refused
from mlops.journaling.journal_table import JournalTable
from mlops.progress import Phases
from mlops.releasing.releases import Releases
from mlops.serving.decider import Decider
from mlops.serving.scoring import Clock
from mlops.storage import objects, tables
from modules.fraud_detection import decider, demo_result, history, run_pipeline
from modules.fraud_detection.demo_result import Event, Result, Story
from modules.fraud_detection.job import Job
from modules.fraud_detection.retrain import NotNow, Retraining
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.features import build_features
from modules.fraud_detection.src.utils import logger
from modules.fraud_detection.watch import artifact_of, watcher
from monitoring.drift_report import DRIFTED
from monitoring.scheduler import Module, Scheduler

STORY = Story(live=90, change=105, broken=139, subtle=140, end=170)
TOGETHER = 200
"""Transactions that are decided, or labels that are recorded, at once."""
DAY = timedelta(days=1)
PERSON, SHARE = "ada", 0.2
PATIENCE = 60
"""Seconds that a new version may take until it answers."""
SENT = ("transaction_id", "timestamp", "customer_id", "terminal_id", "amount")

encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class World:
    """The transactions of the simulation, day by day; labels become known in the night after their time.

    What happened before the platform went live comes as one file, with dated labels.
    """

    def __init__(self, settings: Settings) -> None:
        self.start = settings.simulation.start
        midnight = pl.col("label_known_at").dt.truncate("1d") + DAY
        self.table = synthetic.simulate(settings.simulation).with_columns(midnight)

    def at(self, day: int) -> datetime:
        """When a day begins."""
        return self.start + day * DAY

    def before(self, day: int) -> pl.DataFrame:
        """Everything before a day."""
        return self.table.filter(pl.col("timestamp") < self.at(day))

    def of(self, since: int, until: int) -> pl.DataFrame:
        """The transactions from a day to before another."""
        return self.table.filter(pl.col("timestamp").is_between(self.at(since), self.at(until), closed="left"))

    def told(self, day: int, since: int) -> pl.DataFrame:
        """The transactions from the day `since` on whose labels become known as a day begins."""
        return self.table.filter(pl.col("label_known_at") == self.at(day), pl.col("timestamp") >= self.at(since))


class Demo:
    """One run of a story in a folder of its own, through the code that serves, watches and retrains."""

    def __init__(self, settings: Settings, story: Story, folder: Path, tell: Callable[[str], None]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._settings, self._story, self._folder, self._tell = settings, story, folder, tell
        self._world, self._events, self._now = World(settings), list[Event](), 0
        self._platform = bootstrap.connect(settings.platform, lambda: self._now)
        self._releases = Releases(NAME, self._platform.ledger, lambda: self._platform.registry)
        self._quiet = Console(quiet=True)
        self._bad: int | None = None

    def run(self) -> Result:
        """Train the first version, then live through every day."""
        self._set(self._world.at(self._story.live))
        self._train_first()
        return asyncio.run(self._live())

    async def _live(self) -> Result:
        clock = Clock(lambda: self._now * 1_000)
        kind = decider.kind(self._settings, self._platform)
        self._decider = Decider(kind, self._platform, [], clock, self._folder / "versions")
        await self._decider.start()
        journal = self._decider.journal.journal
        self._table = JournalTable(journal, NAME)
        words = self._settings.monitoring
        self._scheduler = Scheduler(Module(NAME, self._platform, journal, words), self._retrain)
        self._watch = watcher(self._settings, self._platform, journal)
        self._retraining = Retraining(self._settings, self._platform, journal, self._quiet)
        try:
            for day in range(self._story.live, self._story.end):
                await self._night(day)
                await self._decide(day)
            return self._measured()
        finally:
            await self._decider.stop()

    async def _night(self, day: int) -> None:
        """As a day begins labels come, the watch judges, the check looks, and who has to act acts."""
        self._set(self._world.at(day))
        await self._learn(day)
        before = len(self._platform.ledger.acts(NAME))
        await asyncio.to_thread(self._look, day)
        for done in self._platform.ledger.acts(NAME)[before:]:
            what = "refused" if done.act.figures.get("passed") is False else done.act.act
            self._happened(day, what, done.act.version, done.act.why)
        await asyncio.to_thread(self._follow)

    def _look(self, day: int) -> None:
        self._watch.look()
        if day == self._story.broken:
            self._offer_broken(self._world.at(day))
        elif day == self._story.subtle:
            self._offer_careless(self._world.at(day))
        report = self._scheduler.tick()
        if report is not None and report.verdict == DRIFTED and not any(one.what == "drift" for one in self._events):
            self._happened(day, "drift", None, report.headline)

    def _retrain(self, alert: Alert) -> int:
        try:
            return 0 if self._retraining.run(alert.title, self._when()).passed else 3
        except NotNow:
            return 4

    def _offer_broken(self, now: datetime) -> None:
        """Somebody's candidate has learned from labels that were mixed up."""
        rows = self._retraining.known(now).with_columns(pl.col("is_fraud").shuffle(seed=1))
        self._retraining.judged(self._retraining.made(rows, "broken", self._settings), now, must_gain=False)

    def _offer_careless(self, now: datetime) -> None:
        """Somebody's candidate ranks as well as production, but its threshold was chosen with a cost in the wrong unit.

        The gate judges it within the capacity for reviews that there is, and lets it in; its maker leaves the shadow
        out.
        """
        old = self._settings.evaluation
        wrong = {"reviews_per_day": old.reviews_per_day * 100, "review_cost": old.review_cost / 100}
        careless = self._settings.model_copy(update={"evaluation": old.model_copy(update=wrong)})
        self._bad = self._retraining.made(self._retraining.known(now), "careless", careless)
        if self._retraining.judged(self._bad, now, must_gain=False).act.figures["passed"]:
            self._releases.trial(self._bad, "canary", SHARE, PERSON, "it passed, what can happen")

    async def _learn(self, day: int) -> None:
        told = self._world.told(day, self._story.live).select(pl.col("transaction_id").cast(pl.String), "is_fraud")
        learn = self._decider.scorer.learn
        for some in _parts(told.rows()):
            await asyncio.gather(*[learn(Told(key, label, self._now)) for key, label in some])

    async def _decide(self, day: int) -> None:
        rows = self._world.of(day, day + 1).select(SENT).to_dicts()
        for some in _parts(rows):
            self._set(some[-1]["timestamp"])
            for outcome in await self._decider.scorer.decide([encode(row) for row in some]):
                if isinstance(outcome, Refused):
                    raise outcome

    def _follow(self) -> None:
        """Wait until what answers is what the ledger says."""
        live, traffic = self._decider.live, self._releases.traffic
        with live.changed:
            live.changed.wait_for(lambda: live.deployed is not None and live.deployed.traffic == traffic, PATIENCE)

    def _train_first(self) -> None:
        with objects.scratch() as folder:
            tables.write(self._world.before(self._story.live), folder / "before.parquet")
            job = Job(self._settings, self._platform, logger.start(()), str(folder / "before.parquet"))
            with Phases(list(run_pipeline.PHASES), job.logger, self._quiet) as progress:
                run_pipeline.run(job, progress)
        self._happened(self._story.live, "promoted", 1, "the first version")

    def _measured(self) -> Result:
        self._table.read_on()
        decided = self._table.decisions.select(
            pl.col("key").cast(pl.Int64).alias("transaction_id"), "version",
            pl.col("said.fraud_probability").alias("score"), (pl.col("said.decision") != "approve").alias("flagged"),
        )  # fmt: skip
        first, story, world = artifact_of(self._platform, 1), self._story, self._world
        built = build_features.build(world.table, self._settings.data, first.card.features)
        rows = world.of(story.live, story.end).join(decided, on="transaction_id", maintain_order="left")
        seen = rows.select("transaction_id").join(built, on="transaction_id", how="left", maintain_order="left")
        without = first.probability(first.card.encoder.encode(seen))
        return demo_result.measure(
            rows, without, first.card.thresholds.review, story, self._events, self._settings.data,
            self._settings.evaluation, world.start, self._bad,
        )  # fmt: skip

    def _when(self) -> datetime:
        return datetime(1970, 1, 1) + timedelta(microseconds=self._now)

    def _set(self, now: datetime) -> None:
        self._now = max(self._now, history.micro(now))

    def _happened(self, day: int, what: str, version: int | None, why: str) -> None:
        self._events.append(Event(day, what, version))
        named = "" if version is None else f"version {version}: "
        self._tell(f"day {day:3}  {what:12} {named}{why}")


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), TOGETHER):
        yield rows[start : start + TOGETHER]
