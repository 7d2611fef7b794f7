"""The platform as Prometheus meets it: an API of two workers with a canary, a stream worker, a scheduler, traffic."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import polars as pl

from mlops import bootstrap
from mlops.journaling import journal
from mlops.journaling.ledger import wall
from mlops.releasing.releases import Releases
from mlops.traffic import Traffic
from modules.fraud_detection.settings import NAME, Settings
from monitoring.drift_check import Monitoring
from monitoring.drift_metrics import DriftMetrics
from monitoring.scheduler import Module, Scheduler
from tests.api import Client, processes, settings_of
from tests.conftest import ROOT
from tests.redis_server import RedisServer, program
from tests.test_faults import second_version
from tests.test_predict import transaction

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

AHEAD, DAY = 300_000_000, 86_400_000_000
BATCH, LABELLED = 100, 60
STREAM, WEEK = "watched", timedelta(days=7)


@dataclass
class Sent:
    """What was asked and how it was answered, counted where it was sent."""

    answered: int = 0
    repeated: int = 0
    refused: int = 0
    explained: int = 0
    explained_refused: int = 0
    labels: int = 0
    records: dict[str, int] = field(default_factory=dict)

    @property
    def fresh(self) -> int:
        """Transactions that were new."""
        return self.answered - self.repeated


class World:
    """A running platform; `targets` has the address of each service that Prometheus reads."""

    def __init__(
        self, settings: Settings, client: Client, kinesis: "KinesisClient", targets: Mapping[str, str]
    ) -> None:
        self.client, self.targets, self.sent = client, targets, Sent()
        self._settings, self._kinesis = settings, kinesis

    def ask(self, transactions: pl.DataFrame, name: str) -> None:
        """Send transactions in batches, one by one, again, wrong, to be explained, and with labels."""
        rows = [_body(row, name) for row in transactions.iter_rows(named=True)]
        for start in range(0, len(rows), BATCH):
            bodies = [body for body, _ in rows[start : start + BATCH]]
            assert self.client.post("/predict/batch", {"transactions": bodies}).status == 200
            self.sent.answered += len(bodies)
        for body, _ in rows[:20]:
            assert self.client.post("/predict", body).body["replayed"] is True
            self.sent.answered, self.sent.repeated = self.sent.answered + 1, self.sent.repeated + 1
        assert self.client.post("/predict", transaction(f"{name} wrong", amount=-1.0)).status == 422
        self.sent.refused += 1
        self._explain(f"{name} single")
        # The frauds are among those whose label becomes known.
        for body, label in sorted(rows, key=lambda row: -row[1])[:LABELLED]:
            said = {"transaction_id": body["transaction_id"], "is_fraud": label}
            assert self.client.post("/feedback", said).status == 200
            self.sent.labels += 1

    def _explain(self, name: str) -> None:
        # Of nobody else: what comes late beside it would be decided on an incomplete past.
        decided = self.client.post("/predict", transaction(name, customer_id=name, terminal_id=name))
        assert decided.status == 200
        self.sent.answered += 1
        for _ in range(5):
            asked = {"decision_id": decided.body["decision_id"]}
            assert self.client.post("/explain", asked).status == 200
            self.sent.explained += 1
        assert self.client.post("/explain", {"decision_id": "0" * 32}).status == 404
        self.sent.explained_refused += 1

    @contextmanager
    def scheduler(self) -> Iterator[tuple[Scheduler, str]]:
        """A scheduler whose daily check is due some minutes from now, where its clock stands, and its metrics."""
        due = datetime(1970, 1, 1) + timedelta(microseconds=wall() + AHEAD)
        words = Monitoring.model_validate({"at": f"{due:%H:%M}", "maturity": "1s"})
        platform = bootstrap.connect(self._settings.platform, lambda: wall() + AHEAD)
        metrics, kept = DriftMetrics(0), journal.connect(self._settings.platform.journal)
        try:
            yield Scheduler(Module(NAME, platform, kept, words), lambda _: 0, metrics), f"127.0.0.1:{metrics.port}"
        finally:
            metrics.close()
            kept.close()

    def stream(self, name: str) -> None:
        """Put records before the worker: new ones, one of them again, and one that is no transaction."""
        bodies = [json.dumps(transaction(f"{name} {number}")).encode() for number in range(10)]
        for body in (*bodies, bodies[0], b"no transaction"):
            self._kinesis.put_record(StreamName=STREAM, Data=body, PartitionKey="one")
        for outcome, count in (("decided", 10), ("repeated", 1), ("put away", 1)):
            self.sent.records[outcome] = self.sent.records.get(outcome, 0) + count


@contextmanager
def world(folder: Path, aws: str) -> Iterator[World]:
    """Start all of it; what Prometheus reads is there before the first transaction."""
    job = second_version(folder)
    ledger = f"sqlite:///{folder}/watched.db"
    read = settings_of(job, folder, platform={"ledger": ledger})
    long_ago = bootstrap.connect(read.platform, lambda: wall() - 30 * DAY)
    long_ago.ledger.record(NAME, "promoted", 1, "ada", "the first", lambda _: Traffic(1))
    Releases(NAME, long_ago.ledger, lambda: job.platform.registry).trial(2, "canary", 0.3, "ada", "try it")
    redis = RedisServer(program())
    kinesis = boto3.client("kinesis", **_account(aws))
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.kill)
        at = stack.enter_context(_worker(read, folder, aws))
        online = settings_of(job, folder, platform={"ledger": ledger, "online": redis.patient_url})
        _, client = stack.enter_context(processes(online, folder, 2))
        yield World(read, client, kinesis, {"api:8000": f"127.0.0.1:{client.port}", "worker:9101": at})


def _account(aws: str) -> dict[str, Any]:
    return {
        "endpoint_url": aws, "region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test",
    }  # fmt: skip


@contextmanager
def _worker(settings: Settings, folder: Path, aws: str) -> Iterator[str]:
    """Where the metrics of the word `consume` are; its journal is its own, for beside an API it would need a Redis."""
    platform = settings.platform.model_dump() | {"journal": f"sqlite:///{folder}/stream.db"}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "COVERAGE_"))},
        **{f"MLOPS_PLATFORM__{name.upper()}": value for name, value in platform.items()},
        "MLOPS_STREAMING__POLL": "0.1", "PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": aws,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }  # fmt: skip
    command = [sys.executable, "-m", "modules.fraud_detection", "consume", "--stream", f"kinesis://{STREAM}"]
    with (folder / "consume.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--metrics-port", "0"],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "/metrics" in line, (folder / "consume.log").read_text()
        yield line.split("//")[1].split("/")[0]
    finally:
        process.kill()
        process.communicate()


def _body(row: Mapping[str, Any], name: str) -> tuple[dict[str, Any], int]:
    """A simulated transaction under a new id, a week later than what the version was trained on, and its label."""
    asked = {key: row[key] for key in ("customer_id", "terminal_id", "amount")}
    id_ = f"{name} {row['transaction_id']}"
    return asked | {"transaction_id": id_, "timestamp": (row["timestamp"] + WEEK).isoformat()}, int(row["is_fraud"])
