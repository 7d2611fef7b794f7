"""Prometheus, Alertmanager and the node exporter as they are: found, started on free ports, and asked."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.services import missing

CONFIGURATION = ROOT / "infra" / "prometheus"
PATIENCE = 30
"""Seconds that a server may take to answer, or a value to be seen."""


def program(*names: str) -> str:
    """The path of a program by its own name or by a distribution's; without it the test is skipped, or fails in CI."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or missing(f"there is no {names[0]}")


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def awaited(done: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Ask until there is an answer that is not empty, and give it; a connection that is refused is none."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if found := done():
                return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def get(url: str) -> Any:
    """What a server says, decoded from JSON, or as text."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.startswith(("{", "[")) else text


@contextmanager
def running(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Keep a program running until the block ends; it writes to a log in the folder."""
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def node_exporter(folder: Path, at: str = "") -> Iterator[str]:
    """The address of a node exporter that shows the root disk, whatever it is mounted as."""
    at = at or f"127.0.0.1:{free_port()}"
    options = [f"--web.listen-address={at}", "--collector.filesystem.fs-types-exclude=^(proc|sysfs|tmpfs)$"]
    with running([program("node_exporter", "prometheus-node-exporter"), *options], folder):
        yield at


class Prometheus:
    """A running Prometheus, asked over its API."""

    def __init__(self, at: str) -> None:
        self.at = at

    def ask(self, path: str, **words: str) -> Any:
        """The data of an answer."""
        return get(f"http://{self.at}/api/v1/{path}?{urllib.parse.urlencode(words)}")["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series, now."""
        found = self.ask("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def value(self, expression: str) -> float | None:
        """The one value of an expression, or nothing."""
        found = self.query(expression)
        assert len(found) < 2, found
        return found[0][1] if found else None

    def targets(self) -> dict[str, str]:
        """The health of each job's target."""
        return {each["labels"]["job"]: each["health"] for each in self.ask("targets", state="active")["activeTargets"]}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str], rules: Sequence[Path] | None = None) -> Iterator[Prometheus]:
    """Run the project's own configuration, every second, with `targets` in the place of the services' names."""
    at = f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(rewritten(folder, {**targets, "localhost:9090": at}, rules)))
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with running([program("prometheus"), *options, f"--web.listen-address={at}"], folder):
        server = Prometheus(at)
        awaited(lambda: get(f"http://{at}/-/ready"), "Prometheus is ready")
        yield server


def rewritten(folder: Path, targets: Mapping[str, str], rules: Sequence[Path] | None) -> dict[str, Any]:
    """The configuration with other addresses and a quicker clock; all else is as it is."""
    found: dict[str, Any] = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8"))
    found["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    found["rule_files"] = [str(path) for path in rules or quickened(folder)]
    for group in [*found["scrape_configs"], *found["alerting"]["alertmanagers"]]:
        for each in group.get("static_configs", []):
            each["targets"] = [targets[name] for name in each["targets"] if name in targets]
    return found


def quickened(folder: Path) -> list[Path]:
    """The rules without the clocks of their own."""
    made = []
    for path in sorted((CONFIGURATION / "rules").glob("*.yml")):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in found["groups"]:
            group.pop("interval", None)
        made.append(folder / path.name)
        made[-1].write_text(yaml.safe_dump(found))
    return made


@contextmanager
def alertmanager(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of an Alertmanager that start.sh has started, as in its container, with a quicker clock."""
    at, found = f"127.0.0.1:{free_port()}", program("alertmanager", "prometheus-alertmanager")
    options = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
    start = ["sh", str(ROOT / "infra" / "alertmanager" / "start.sh")]
    quicker = f"sed -i -E 's/group_(wait|interval): .*/group_\\1: 1s/' {folder}/alertmanager.yml && exec \"$@\""
    command = [*start, "sh", "-c", quicker, "sh", found, *options, f"--web.listen-address={at}"]
    with running(command, folder, {**environment, "TMPDIR": str(folder)}):
        awaited(lambda: get(f"http://{at}/-/ready"), "Alertmanager is ready")
        yield at
