"""How a candidate is made by itself: all that is known by now, the pipeline over it, the gate, and then the shadow."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rich.console import Console

from mlops import objects
from mlops.bootstrap import Connected
from mlops.errors import BadInput
from mlops.journal import Journal
from mlops.journal_table import JournalTable
from mlops.ledger import Done
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
from modules.fraud_detection.watch import artifact_of

WHO = "retrain"


class Outcome(NamedTuple):
    """The candidate that was made, whether it goes on trial, and why, or why not."""

    version: int
    passed: bool
    why: str


def retrain(
    settings: Settings, platform: Connected, journal: Journal, why: str, now: datetime, console: Console,
    force: bool = False,
) -> Outcome:  # fmt: skip
    """Make a candidate from what is known at `now` (UTC), and let it watch in the shadow if it passes the gate.

    It is made once for each `why` and moment: when it was cut short and is run again with the same, it goes on after
    the last phase that was finished. Raises `BadInput` while a trial runs or the last candidate is too young, unless
    it is forced.
    """
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    if not force:
        _check(releases, settings, now)
    job = _job(settings, platform, journal, releases, now)
    with Phases(list(run_pipeline.PHASES), job.logger, console) as progress:
        run_pipeline.run(job, progress, resume=True)
    version = int(job.records["register"]["version"])
    judged = releases.done(gate.JUDGED, version)
    if judged is None:
        gate.judge(settings, platform, version, WHO)
        judged = releases.done(gate.JUDGED, version)
    return _released(releases, version, judged, why)


def _check(releases: Releases, settings: Settings, now: datetime) -> None:
    traffic = releases.traffic
    if traffic is not None and traffic.candidate is not None:
        raise BadInput(f"version {traffic.candidate} is on trial; end it first, or wait")
    made = [one.at for one in releases.ledger.acts(NAME) if (one.act.act, one.act.who) == (gate.JUDGED, WHO)]
    waits = settings.retraining.cool_down
    if made and _micro(now) - made[-1] < seconds(waits) * 1_000_000:
        raise BadInput(f"the last candidate was made less than {waits} ago; wait, or say --force")


def _job(settings: Settings, platform: Connected, journal: Journal, releases: Releases, now: datetime) -> Job:
    """The pipeline's job over a table of all that is known, which is stored first."""
    words = settings.retraining
    key = f"{RAW}/retraining/{now:%Y-%m-%dT%H%M%S.%f}.parquet".replace(".", "_", 1)
    production = releases.traffic.production if releases.traffic is not None else None
    if production is None:
        raise BadInput(f"no version of {NAME} is in production; make one: python -m modules.{NAME} pipeline")
    card = artifact_of(platform, production).card
    if not platform.objects.exists(key):
        table = JournalTable(journal)
        table.read_on()
        rows = history.known(platform, card.snapshot, table, settings.data, now)
        until = now - timedelta(seconds=seconds(words.maturity))
        time = rows[settings.data.time.column]
        rows = rows.filter((time < until) & (time >= until - timedelta(seconds=seconds(words.window))))
        with objects.scratch() as folder:
            tables.write(rows, folder / "known.parquet")
            platform.objects.upload(folder / "known.parquet", key)
    mine = settings.model_copy(update={"data": history.recorded(settings.data), "split": words.split})
    return Job(mine, platform, logger.start(settings.data.entities), platform.objects.url(key), once=key)


def _released(releases: Releases, version: int, judged: Done | None, why: str) -> Outcome:
    """Let a version that passed the gate watch, unless that was done before."""
    if judged is None or not judged.act.figures["passed"]:
        return Outcome(version, False, judged.act.why if judged else "not judged")
    if releases.done(SHADOW, version) is None:
        releases.trial(version, "shadow", 0.0, WHO, why)
    return Outcome(version, True, judged.act.why)


def _micro(moment: datetime) -> int:
    return round((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
