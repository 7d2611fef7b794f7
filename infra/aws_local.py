"""python -m infra.aws_local: the profile `aws`, end to end, on a local server that speaks AWS's protocols.

It makes what the platform needs of AWS and runs the module's own words: raw data from S3 to a version whose files lie
in S3; Kinesis through the stream worker into Redis, whose address is a secret, and the journal; and a drift that goes
over SNS and SQS to a retraining. Each step says what it found; the first that fails ends it.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import polars as pl
import yaml

from infra import local_servers
from mlops.errors import MlopsError
from mlops.journaling import journal
from mlops.journaling.ledger import Ledger
from mlops.storage.objects import DRIFT_REPORTS, EXPLANATIONS, MODELS, MONITORING, PROCESSED, RAW

ROOT = Path(__file__).parents[1]
BUCKET, STREAM, NAME, SECRET = "mlops-fraud-dev", "fraud-transactions", "mlops-alerts", "mlops/redis-url"
REPOSITORIES = ("fraud-train", "fraud-serve")
SENT, FACTOR = 3_000, 3.0
"""Transactions that are put into the stream, and by how much their amounts have grown since training."""
AT_ONCE = 500
DAYS = 80
"""Days of transactions up to this one that there are to begin with."""
PATIENCE = 180
"""Seconds that a step may take."""
SMALL = {
    "MLOPS_SIMULATION__CUSTOMERS": "300", "MLOPS_SIMULATION__TERMINALS": "300", "MLOPS_SIMULATION__DAYS": str(DAYS),
    "MLOPS_EVALUATION__RESAMPLES": "20",
}  # fmt: skip
"""A world that is trained on in seconds."""


class Failed(MlopsError):
    """A step did not do what it should."""


class Local:
    """A module's words, run in a folder against a local AWS."""

    def __init__(self, module: str, folder: Path, address: str) -> None:
        self.module, self.folder = module, folder
        self.file = ROOT / "modules" / module / "config" / "config.yaml"
        given = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "AWS_"))}
        self.environment = {
            **given, "PYTHONPATH": str(ROOT), "PROFILE": "aws", "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
            "AWS_DEFAULT_REGION": "us-east-1", **SMALL,
            "MLOPS_SIMULATION__START": f"{datetime.now(UTC).date() - timedelta(days=DAYS)}",
            # What the local AWS has not: PostgreSQL, and a server of MLflow.
            "MLOPS_PLATFORM__JOURNAL": f"sqlite:///{folder}/journal.db",
            "MLOPS_PLATFORM__LEDGER": f"sqlite:///{folder}/ledger.db",
            "MLOPS_PLATFORM__TRACKING": f"sqlite:///{folder}/mlflow.db",
            "MLOPS_PLATFORM__ARTIFACTS": f"s3://{BUCKET}/mlartifacts",
        }  # fmt: skip

    def client(self, service: Any) -> Any:
        """A client of the local AWS."""
        words = self.environment
        return boto3.client(
            service, endpoint_url=words["AWS_ENDPOINT_URL"], region_name=words["AWS_DEFAULT_REGION"],
            aws_access_key_id=words["AWS_ACCESS_KEY_ID"], aws_secret_access_key=words["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip

    def keys(self, prefix: str) -> list[str]:
        """The keys of the bucket that begin so."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def run(self, *command: str, **environment: str) -> str:
        """Run a program of the platform to its end and return what it said. Raises `Failed`."""
        with self.running(*command, **environment) as process:
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise Failed(f"{' '.join(command)} did not end within {PATIENCE} seconds") from None
        if process.returncode != 0:
            raise Failed(f"{' '.join(command)} ended with {process.returncode}: {said.strip()[-1_000:]}")
        return said

    @contextmanager
    def running(self, *command: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
        """Run a program of the platform until the block ends."""
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=self.folder, env={**self.environment, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every step; return 0, or 1 after one line that says what failed."""
    parser = argparse.ArgumentParser(prog="python -m infra.aws_local", description=__doc__)
    parser.add_argument("--module", default="fraud_detection", help="the folder in modules/")
    words = parser.parse_args(arguments)
    try:
        with local_servers.aws() as address, local_servers.redis() as redis, tempfile.TemporaryDirectory() as folder:
            local = Local(words.module, Path(folder), address)
            create(local, redis)
            for step in (train, consume, alert, export):
                step(local)
            look(local, redis)
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def create(local: Local, redis: str) -> None:
    """Make a versioned bucket, a stream, a topic with a queue behind it, image repositories and a secret."""
    s3, sns, sqs = (local.client(service) for service in ("s3", "sns", "sqs"))
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    local.client("kinesis").create_stream(StreamName=STREAM, ShardCount=2)
    topic = sns.create_topic(Name=NAME)["TopicArn"]
    queue = sqs.create_queue(QueueName=NAME)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # The queue takes what a module says, and no alarm that is for people: those have no name of one.
    named = {"FilterPolicy": json.dumps({"name": [{"exists": True}]})}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=named)
    for name in REPOSITORIES:
        local.client("ecr").create_repository(repositoryName=name)
    local.client("secretsmanager").create_secret(Name=SECRET, SecretString=redis)
    local.environment["MLOPS_MONITORING__ALERTING__SINKS"] = json.dumps([f"sns://{topic}"])
    tell(
        "made", f"bucket {BUCKET}, stream {STREAM}, topic and queue {NAME}, secret {SECRET}, {len(REPOSITORIES)} images"
    )


def train(local: Local) -> None:
    """Put raw transactions into the bucket, and make a version of what lies there."""
    local.run(f"modules.{local.module}", "pipeline", "--only", "data")
    raw = next(iter(local.keys(f"{RAW}/")))
    local.run(f"modules.{local.module}", "pipeline", "--data", f"s3://{BUCKET}/{raw}")
    model = local.keys("mlartifacts/")
    check(bool(model), "MLflow has stored nothing in the bucket")
    tell("trained", f"from s3://{BUCKET}/{raw}; {len(model)} files of MLflow lie in s3://{BUCKET}/mlartifacts")


def consume(local: Local) -> None:
    """Put transactions with grown amounts into the stream, and let the stream worker decide them."""
    records = list(grown(local))
    for start in range(0, len(records), AT_ONCE):
        local.client("kinesis").put_records(StreamName=STREAM, Records=records[start : start + AT_ONCE])
    with local.running(f"modules.{local.module}", "consume") as worker:
        kept = journal.connect(local.environment["MLOPS_PLATFORM__JOURNAL"])
        awaited(lambda: kept.head().count >= len(records) or worker.poll() is not None, "the worker decides too little")
        count = kept.verify().count
        kept.close()
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=PATIENCE)
    check(worker.returncode == 0, f"the worker ended with {worker.returncode}: {said[-1_000:]}")
    tell(
        "decided",
        f"{count:,} of {len(records):,} records from kinesis://{STREAM} are in the journal, its chain is whole",
    )


def grown(local: Local) -> Iterator[Mapping[str, Any]]:
    """The latest raw transactions once more, under other ids, without labels and with amounts that have grown."""
    data = yaml.safe_load((ROOT / "modules" / local.module / "config" / "config.yaml").read_text(encoding="utf-8"))[
        "data"
    ]
    body = local.client("s3").get_object(Bucket=BUCKET, Key=next(iter(local.keys(f"{RAW}/"))))["Body"].read()
    id_, time_, label = data["id"], data["time"]["column"], data["label"]
    table = pl.read_parquet(BytesIO(body)).sort(time_).tail(SENT).drop(label["column"], label["known_at"])
    for row in table.with_columns(pl.col(time_).dt.to_string("%Y-%m-%dT%H:%M:%S")).to_dicts():
        sent = {**row, id_: f"stream-{row[id_]}", data["amount"]: round(row[data["amount"]] * FACTOR, 2)}
        yield {"PartitionKey": str(row[data["entities"][0]]), "Data": json.dumps(sent).encode()}


def alert(local: Local) -> None:
    """Check for drift as the scheduler does; what it finds goes over the topic and the queue to a retraining."""
    ledger = Ledger(local.environment["MLOPS_PLATFORM__LEDGER"])
    acts = ledger.acts(local.module)
    live = datetime.fromtimestamp(acts[-1].at / 1e6, UTC)
    # The daily check is due at a whole minute, and looks back to when the version went live.
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    awaited(lambda: datetime.now(UTC) >= due, "the minute does not end")
    said = local.run(
        "monitoring.drift_report_scheduler", "--module", local.module, "--once", "--config", str(local.file),
        MLOPS_MONITORING__AT=f"'{due:%H:%M}'", MLOPS_MONITORING__WINDOW=f"{int((due - live).total_seconds())}s",
        MLOPS_MONITORING__ALERTING__INBOX=f"sqs://{NAME}",
    )  # fmt: skip
    after = ledger.acts(local.module)[len(acts) :]
    ledger.verify()
    ledger.close()
    found = [done.act for done in after]
    check(any(act.act == "registered" for act in found), f"the alert started no retraining: {said[-1_000:]}")
    tell("alerted", f"drift went over SNS and SQS; the ledger has: {', '.join(act.act for act in found)}")


def export(local: Local) -> None:
    """Write the day on which the worker decided, for which the scheduler waits until it is over."""
    kept = journal.connect(local.environment["MLOPS_PLATFORM__JOURNAL"])
    day = datetime.fromtimestamp(next(kept.since(0)).entry.at / 1e6, UTC).date()
    kept.close()
    tell("exported", local.run(f"modules.{local.module}", "export", "--day", f"{day}").strip())


def look(local: Local, redis: str) -> None:
    """Look at what lies where: every folder of the layout, the live state, and the secret nowhere."""
    folders = (RAW, PROCESSED, MODELS, MONITORING, DRIFT_REPORTS, EXPLANATIONS)
    counts = {name: len(local.keys(f"{name}/")) for name in folders}
    check(all(counts.values()), f"a folder of the bucket is empty: {counts}")
    tell("stored", ", ".join(f"{name}/ {count}" for name, count in counts.items()))
    live = local_servers.keys_of(redis)
    check(live > 0, "Redis holds nothing")
    tell("live", f"Redis holds {live:,} keys of what the worker has seen")
    password = str(urlsplit(redis).password).encode()
    leaks = [path.name for path in local.folder.rglob("*") if path.is_file() and password in path.read_bytes()]
    s3 = local.client("s3")
    leaks += [key for key in local.keys("") if password in s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()]
    check(not leaks, f"the secret stands in {', '.join(leaks)}")
    tell("secret", "the address of Redis stands in no file of the folder and in none of the bucket")


def tell(what: str, said: str) -> None:
    """Say what a step found."""
    print(f"{what:8} {said}", flush=True)


def check(is_so: bool, otherwise: str) -> None:
    """Raise `Failed` where it is not so."""
    if not is_so:
        raise Failed(otherwise)


def awaited(done: Callable[[], bool], otherwise: str) -> None:
    """Wait until it is so. Raises `Failed`."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        check(time.monotonic() < deadline, otherwise)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
