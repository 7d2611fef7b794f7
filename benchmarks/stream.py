"""python -m benchmarks.stream: the stream worker beside a loop that only reads the same stream and parses each record.

Both read a stream of Kinesis from a local server that speaks its protocol, in turns. The loop does what any reader must
do; the worker decides each record on live features in memory and keeps it in the journal.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import boto3
import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.serving import ROOT, running, transactions
from mlops.streaming import stream
from modules.fraud_detection import settings
from modules.fraud_detection.consume import worker
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.predictor import Decision
from monitoring.prometheus_metrics import Metrics

NAME, SHARDS = "transactions", 4
BARE, OURS = "read and parse", "the worker, memory://"


def main() -> None:
    """Fill a stream once, read it in turns, print rates and their ratio within each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=500)
    words = parser.parse_args()
    rates: dict[str, list[float]] = {BARE: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "modules.fraud_detection", "pipeline"], cwd=folder, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with running(["-m", "moto.server"], Path(folder), dict(os.environ)) as port:
            fill(port, words.records)
            for turn in track(range(words.rounds), "rounds", console=Console(stderr=True)):
                rates[BARE].append(words.records / read_and_parse(words.batch))
                rates[OURS].append(words.records / decide(read_settings(folder, turn, words.batch), words.records))
    show(rates)


def fill(port: int, records: int) -> None:
    """Make the stream, with one transaction a record."""
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    client, make = boto3.client("kinesis"), transactions("s")
    client.create_stream(StreamName=NAME, ShardCount=SHARDS)
    client.get_waiter("stream_exists").wait(StreamName=NAME, WaiterConfig={"Delay": 0})
    stream.connect(f"kinesis://{NAME}").put([(str(number), make()) for number in range(records)])


def read_and_parse(batch: int) -> float:
    """Seconds to read every record of every shard and parse it."""
    client, decode = boto3.client("kinesis"), msgspec.json.Decoder().decode
    began = time.perf_counter()
    for shard in client.list_shards(StreamName=NAME)["Shards"]:
        place = client.get_shard_iterator(StreamName=NAME, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
            "ShardIterator"
        ]
        while records := (answer := client.get_records(ShardIterator=place, Limit=batch))["Records"]:
            for record in records:
                decode(record["Data"])
            place = answer["NextShardIterator"]
    return time.perf_counter() - began


def decide(read: Settings, records: int) -> float:
    """Seconds until the worker has decided every record, from when it begins to read."""
    return asyncio.run(_decide(read, records))


async def _decide(read: Settings, records: int) -> float:
    metrics = Metrics([], get_args(Decision))
    async with worker(read, stream.connect(read.streaming.source), metrics) as consumer:
        began = time.perf_counter()
        running_ = asyncio.create_task(consumer.run())
        while metrics.registry.get_sample_value("stream_records_total", {"outcome": "decided"}) != records:
            await asyncio.sleep(0.01)
        took = time.perf_counter() - began
        consumer.stop()
        await running_
    return took


def read_settings(folder: str, turn: int, batch: int) -> Settings:
    """Settings of a worker whose journal is new."""
    platform = {
        "objects": f"file://{folder}/var", "ledger": f"sqlite:///{folder}/var/ledger.db",
        "tracking": f"sqlite:///{folder}/var/mlflow.db", "artifacts": f"{folder}/var/mlartifacts",
        "journal": f"sqlite:///{folder}/journal-{turn}.db",
    }  # fmt: skip
    streaming = {"source": f"kinesis://{NAME}", "batch": batch}
    return settings.read(None, "local", {}, {"platform": platform, "streaming": streaming})


def show(rates: dict[str, list[float]]) -> None:
    """Print medians over the rounds."""
    table = Table(title=f"records a second from {SHARDS} shards", title_justify="left")
    for heading in ("", "a second", "of the loop", "least", "most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in rates.items():
        shares = [mine / bare for mine, bare in zip(found, rates[BARE], strict=True)]
        table.add_row(
            name, f"{statistics.median(found):,.0f}", f"{statistics.median(shares):.2f}", f"{min(shares):.2f}",
            f"{max(shares):.2f}",
        )  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
