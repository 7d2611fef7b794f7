"""A platform that has lived for some weeks up to this day: decisions, labels and a change in the world, in a folder."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modules.fraud_detection import settings
from modules.fraud_detection.demo import Demo
from modules.fraud_detection.demo_result import Result, Story
from modules.fraud_detection.settings import Settings

ROOT = Path(__file__).parents[1]
NEVER = 10_000
STORY = Story(live=80, change=95, broken=NEVER, subtle=NEVER, end=112)
DEMO = settings.FILE.with_name("demo.yaml")


@dataclass
class Lived:
    """A folder, what must be in the environment to work on it, and the settings that say the same."""

    folder: Path
    environment: Mapping[str, str]
    settings: Settings

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a Python program on it."""
        return subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, **self.environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a Python program on it to its end: exit code, output and errors."""
        process = self.start(*command)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def module(self, *words: str) -> tuple[int, str, str]:
        """Run a word of the module."""
        return self.run("-m", "modules.fraud_detection", words[0], "--config", str(DEMO), *words[1:])


def platform_in(folder: Path) -> dict[str, str]:
    """Where a platform in a folder keeps what it makes."""
    return {
        "objects": f"file://{folder}/files", "journal": f"sqlite:///{folder}/journal.db",
        "ledger": f"sqlite:///{folder}/ledger.db", "tracking": f"sqlite:///{folder}/mlflow.db",
        "artifacts": f"{folder}/artifacts",
    }  # fmt: skip


def small_story(folder: Path, story: Story, start: datetime) -> Settings:
    """The demo's settings for a small world."""
    world = {
        "customers": 200, "terminals": 400, "days": story.end, "start": start, "drift_from": story.change,
        "new_pattern_from": story.change,
    }  # fmt: skip
    return settings.read(DEMO, "local", {}, {"simulation": world, "platform": platform_in(folder)})


@pytest.fixture(scope="session")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, Result]:
    """One life, from which tests take copies."""
    folder = tmp_path_factory.mktemp("lived") / "demo"
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    read = small_story(folder, STORY, today - timedelta(days=STORY.end))
    return folder, read, Demo(read, STORY, folder, lambda _: None).run()


@pytest.fixture
def lived(lived_once: tuple[Path, Settings, Result], tmp_path: Path) -> Lived:
    """A copy of that life; what was made for MLflow's runs is read from where it was made."""
    original, read, _ = lived_once
    folder = tmp_path / "demo"
    shutil.copytree(original / "files", folder / "files")
    for name in ("journal.db", "ledger.db", "mlflow.db"):
        with sqlite3.connect(original / name) as source, sqlite3.connect(folder / name) as copy:
            source.backup(copy)
    values = platform_in(folder)
    environment = {f"MLOPS_PLATFORM__{name.upper()}": value for name, value in values.items()}
    mine = read.model_copy(update={"platform": read.platform.model_copy(update=values)})
    return Lived(folder, environment | {"PYTHONPATH": str(ROOT)}, mine)
