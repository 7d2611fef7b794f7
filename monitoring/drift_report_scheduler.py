"""python -m monitoring.drift_report_scheduler: check every day, tell who has to know, and ask for retraining."""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlops import bootstrap, logs, settings
from mlops.alerting.alerts import Alert
from mlops.errors import MlopsError
from mlops.journaling import journal
from mlops.settings import Platform
from monitoring import drift_check
from monitoring.drift_check import MODULES, Monitoring
from monitoring.drift_metrics import DriftMetrics
from monitoring.scheduler import Module, Retrain, Scheduler

if TYPE_CHECKING:
    from apscheduler.schedulers.blocking import BlockingScheduler

EVERY = 60
"""Seconds between two looks at what is due."""

log = logging.getLogger("scheduler")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the modules until told to stop, or do once what is due; return 0, or 1 after one line."""
    words = _parser().parse_args(arguments)
    try:
        found = sorted(path.parts[-3] for path in MODULES.glob("*/config/config.yaml"))
        names = [words.module] if words.module else found
        metrics = None if words.metrics_port is None else DriftMetrics(words.metrics_port, words.metrics_host)
        schedulers = [Scheduler(_module(name, words), _starter(name, words), metrics) for name in names]
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name in ("alerts", "scheduler"):
        logs.start(name)
    if words.once:
        return max(_tick(scheduler) for scheduler in schedulers)
    clock(schedulers).start()
    return 0


def clock(schedulers: Sequence[Scheduler]) -> "BlockingScheduler":
    """Make what looks and works every minute, each in a thread of its own: a retraining takes longer than a minute."""
    # It takes a moment to import, and a single run does not need it.
    from apscheduler.schedulers.blocking import BlockingScheduler

    made = BlockingScheduler(
        timezone=UTC, executors={"default": {"type": "threadpool", "max_workers": 2 * len(schedulers)}}
    )
    for done in (_look, _work):
        for scheduler in schedulers:
            made.add_job(
                done, "interval", [scheduler], seconds=EVERY, next_run_time=datetime.now(UTC), coalesce=True,
                max_instances=1, misfire_grace_time=None,
            )  # fmt: skip
    return made


def _tick(scheduler: Scheduler) -> int:
    return max(_look(scheduler), _work(scheduler))


def _look(scheduler: Scheduler) -> int:
    try:
        scheduler.look()
    except MlopsError as error:
        log.error("%s", error)
        return 1
    return 0


def _work(scheduler: Scheduler) -> int:
    try:
        report = scheduler.work()
    except MlopsError as error:
        log.error("%s", error)
        return 1
    log.info("nothing was due" if report is None else report.headline)
    return 0


def _module(name: str, words: argparse.Namespace) -> Module:
    file = words.config or drift_check.module_file(name)
    platform = bootstrap.connect(settings.section(Platform, "platform", file, words.profile, os.environ))
    chosen = settings.section(Monitoring, "monitoring", file, words.profile, os.environ)
    return Module(name, platform, journal.connect(platform.settings.journal), chosen)


def _starter(name: str, words: argparse.Namespace) -> Retrain:
    """Start the module's own word, by its name."""

    def start(alert: Alert) -> int:
        command = [sys.executable, "-m", f"modules.{name}", "retrain", "--why", f"drift: {alert.title}"]
        options = ["--profile", words.profile, *(["--config", str(words.config)] if words.config else [])]
        return subprocess.run([*command, *options], check=False).returncode

    return start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift_report_scheduler", description=__doc__)
    parser.add_argument("--module", help="only this one; without it every folder in modules/ with a configuration")
    parser.add_argument("--once", action="store_true", help="do what is due and end")
    parser.add_argument("--metrics-port", type=int, help="serve metrics for Prometheus here")
    parser.add_argument("--metrics-host", default="127.0.0.1", help="the address that they are served at")
    parser.add_argument("--config", type=Path, help="a YAML file instead of the module's config/config.yaml")
    parser.add_argument("--profile", default=os.environ.get("PROFILE", "local"), help="local or aws")
    return parser


if __name__ == "__main__":
    sys.exit(main())
