"""python -m monitoring.drift_check --module NAME: hold what is decided now against what its version was trained on."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from mlops import bootstrap, settings
from mlops.alerting.alerts import Alerting
from mlops.bootstrap import Connected
from mlops.errors import BadInput, MlopsError, NotFound
from mlops.journaling import journal
from mlops.journaling.journal_table import JournalTable
from mlops.releasing.registry import Version
from mlops.settings import Platform
from mlops.storage import manifest, objects
from mlops.values import Duration, Group, seconds
from monitoring import drift, performance, reference, stored_reports
from monitoring.drift import Drift
from monitoring.drift_report import DRIFTED, DriftReport, Estimate, Performance, conclude
from monitoring.reference import Reference
from monitoring.vitals import Vitals

MODULES = Path("modules")
PROFILE = "profile.json"
SCORE = "score"
ORIGIN = datetime(1970, 1, 1)


class Monitoring(Group):
    """How a module is watched."""

    window: Duration = Field("7d", description="How far back a check looks.")
    maturity: Duration = Field("10d", description="How old a decision must be for its label to count.")
    at: str = Field("02:00", description="The time of day (UTC) of the daily check.")
    lease: Duration = Field("5m", description="A check whose process died is begun again after this.")
    vitals: Vitals = Field(default_factory=Vitals, description="When answers are too slow, or fail too often.")
    alerting: Alerting = Field(default_factory=Alerting, description="Who is told, and how calm it must be.")
    drift: Drift = Field(default_factory=Drift, description="When a difference from training counts as drift.")


@dataclass(frozen=True)
class Watched:
    """A version and what it says of itself."""

    version: Version
    in_use_since: int
    profile: Mapping[str, Any]
    reference: Reference


def check(
    name: str, platform: Connected, table: JournalTable, words: Monitoring, until: datetime, look: int,
    since: datetime | None = None,
) -> DriftReport:  # fmt: skip
    """Compare the decisions of the version in production before `until` (UTC) with its training.

    They are those from `since` on, or of a whole window: a version that is in production for less has not enough rows,
    because some days of a week are not like a week. `look` counts the checks of this version, from 1. Labels are those
    of decisions that were old enough at `until`, and known by then.
    """
    watched = _watched(name, platform)
    number, mine = watched.version.number, table.decisions.filter(pl.col("version") == watched.version.number)
    start = until - timedelta(seconds=seconds(words.window)) if since is None else since
    whole = since is not None or _micro(start) >= watched.in_use_since
    rows = _between(mine, start, until) if whole else mine.clear()
    score = f"said.{watched.reference.score}"
    features = [column for column in watched.profile if column != SCORE]
    seen = rows.select("sequence").join(table.seen(number, features), on="sequence", how="left")
    scores = rows[score] if rows.height else pl.Series(score, [], pl.Float64)
    *columns, prediction = drift.compare(
        watched.profile, seen.select(features).with_columns(scores.alias(SCORE)), words.drift, look
    )
    matured = _matured(mine, table.labels, until, words)
    truth = matured["label"].to_numpy()
    told = matured[score].to_numpy() if matured.height else scores.to_numpy()[:0]
    ours = watched.reference
    known = int(truth.sum()), len(truth)
    label = drift.label_drift(ours.label_share, ours.label_rows, *known, words.drift, look, ours.clumping)
    concept = performance.concept_drift(ours.calibration, told, truth, words.drift, look, ours.clumping)
    verdict, headline = conclude(columns, prediction, label, concept)
    return DriftReport(
        name=name, version=number, snapshot=watched.version.tags["snapshot"], since=start, until=until, look=look,
        rows=rows.height, verdict=verdict, headline=headline, columns=columns, prediction=prediction, label=label,
        concept=concept, reference=ours.performance,
        estimated=_estimated(ours, scores.to_numpy(), rows), realised=_realised(ours, told, matured),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Check once; return 0, 2 where something has drifted, or 1 after one line that says what is wrong."""
    words = _parser().parse_args(arguments)
    try:
        file = words.config or module_file(words.module)
        platform = bootstrap.connect(settings.section(Platform, "platform", file, words.profile, os.environ))
        chosen = settings.section(Monitoring, "monitoring", file, words.profile, os.environ)
        until = words.until or datetime.now(UTC).replace(tzinfo=None)
        table = JournalTable(journal.connect(platform.settings.journal), words.module)
        table.read_on()
        report = check(words.module, platform, table, chosen, until, 1, words.since)
        print(f"{report.headline}  version {report.version}, snapshot {report.snapshot}, {report.rows:,} decisions")
        print(stored_reports.store(report, platform.objects))
        return 2 if report.verdict == DRIFTED else 0
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def module_file(name: str) -> Path:
    """The configuration of a module. Raises `BadInput`, naming the modules there are."""
    file = MODULES / name / "config" / "config.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.parts[-3] for path in MODULES.glob("*/config/config.yaml")))
        raise BadInput(f"there is no module '{name}' here; there is: {known or 'none, run this from the project'}")
    return file


def _watched(name: str, platform: Connected) -> Watched:
    traffic = platform.ledger.traffic(name)
    if traffic is None:
        raise NotFound(f"no version of '{name}' is in production; make one: python -m modules.{name} pipeline")
    version = platform.registry.find(name, traffic.production)
    with objects.scratch() as folder:
        home = platform.registry.fetch(version, folder)
        manifest.verified(home, (PROFILE, reference.FILE))
        profile = json.loads((home / PROFILE).read_bytes())
        said = reference.decode((home / reference.FILE).read_bytes(), f"{name} {version.number}")
    return Watched(version, _in_use_since(platform, name, traffic.production), profile, said)


def _in_use_since(platform: Connected, name: str, version: int) -> int:
    """When a version came into production the last time, in microseconds since 1970."""
    since = 0
    for done in platform.ledger.acts(name):
        before, after = done.act.before, done.act.after
        if after is not None and after.production == version and (before is None or before.production != version):
            since = done.at
    return since


def _between(rows: pl.DataFrame, since: datetime, until: datetime) -> pl.DataFrame:
    return rows.filter((pl.col("at") >= _micro(since)) & (pl.col("at") < _micro(until)))


def _matured(mine: pl.DataFrame, labels: pl.DataFrame, until: datetime, words: Monitoring) -> pl.DataFrame:
    """The decisions of a window that lies so far back that their labels are known, with the latest label of each."""
    end = until - timedelta(seconds=seconds(words.maturity))
    rows = _between(mine, end - timedelta(seconds=seconds(words.window)), end)
    known = labels.filter(pl.col("known_at") <= _micro(until)).sort("known_at", "sequence").group_by("about").last()
    return rows.join(known.select("about", "label"), left_on="id", right_on="about", how="inner", maintain_order="left")


def _estimated(ours: Reference, scores: performance.Floats, rows: pl.DataFrame) -> Estimate | None:
    if not rows.height:
        return None
    return performance.estimate(ours.calibration, scores, ours.decisions(scores, _amounts(rows, ours)))


def _realised(ours: Reference, told: performance.Floats, matured: pl.DataFrame) -> Performance | None:
    if not matured.height:
        return None
    return performance.realised(told, matured["label"].to_numpy(), ours.decisions(told, _amounts(matured, ours)))


def _amounts(rows: pl.DataFrame, ours: Reference) -> pl.Series | None:
    return rows[f"row.{ours.amount}"] if ours.amount is not None and f"row.{ours.amount}" in rows.columns else None


def _micro(moment: datetime) -> int:
    return (moment - ORIGIN) // timedelta(microseconds=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift_check", description=__doc__)
    parser.add_argument("--module", required=True, help="the folder in modules/, such as fraud_detection")
    parser.add_argument("--since", type=datetime.fromisoformat, help="UTC; without it a window before the end")
    parser.add_argument("--until", type=datetime.fromisoformat, help="UTC; without it now")
    parser.add_argument("--config", type=Path, help="a YAML file instead of the module's config/config.yaml")
    parser.add_argument("--profile", default=os.environ.get("PROFILE", "local"), help="local or aws")
    return parser


if __name__ == "__main__":
    sys.exit(main())
