"""python -m benchmarks.stream_kills: a stream worker that is killed again and again; what becomes of each record.

A stream of Kinesis on a local server holds transactions, duplicates of some of them, and records that nothing can be
decided about. The worker is killed without warning at random moments, then left alone until nothing is new. Each
transaction must have been decided once, each poison record must be kept with its bytes, and mending them must give
exactly what was missing.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import boto3

from benchmarks.serving import ROOT, running, transactions
from mlops.journaling import journal
from mlops.journaling.journal import Journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.streaming import stream
from mlops.streaming.dead_letters import DeadLetters
from modules.fraud_detection import settings
from modules.fraud_detection.replay_dlq import Replay, Replayed
from modules.fraud_detection.settings import NAME, Settings

SHARDS = 4
POISON, DUPLICATES = 0.01, 0.05
LEASE = 1
"""Seconds: whoever comes after the dead takes over soon."""
IDLE = 120
"""Seconds without anything new after which it is given up."""


@dataclass(frozen=True)
class Sent:
    """What was put: the bodies of the transactions by id, and the poison records."""

    valid: Mapping[str, bytes]
    poison: Sequence[bytes]


@dataclass(frozen=True)
class Found:
    """What became of it: how often each id was decided, the bytes that were put away, and how often it was killed."""

    decided: Mapping[str, int]
    letters: Sequence[bytes]
    kills: int


def put(name: str, records: int, draw: random.Random) -> Sent:
    """Make a stream and fill it; duplicates come behind what they repeat, by up to all the others."""
    client, make = boto3.client("kinesis"), transactions(name)
    client.create_stream(StreamName=name, ShardCount=SHARDS)
    client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0})
    valid = {json.loads(body)["transaction_id"]: body for body in (make() for _ in range(round(records * 0.94)))}
    poison = [spoilt(number, draw) for number in range(round(records * POISON))]
    placed = [(float(place), body) for place, body in enumerate(valid.values())]
    again = [placed[draw.randrange(len(placed))] for _ in range(round(records * DUPLICATES))]
    placed += [(draw.uniform(place, len(valid)), body) for place, body in again]
    placed += [(draw.uniform(0, len(valid)), body) for body in poison]
    placed.sort(key=lambda pair: pair[0])
    stream.connect(f"kinesis://{name}").put([(str(draw.random()), body) for _, body in placed])
    return Sent(valid, poison)


def spoilt(number: int, draw: random.Random) -> bytes:
    """A record that nothing can be decided about; no two are the same."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b'{"transaction_id": "p-%d", "amount"' % number,
        lambda: b"\xff\xfe%d" % number,
        lambda: json.dumps({"transaction_id": f"p-{number}", "amount": "much"}).encode(),
        lambda: (
            b'{"transaction_id":"p-%d","timestamp":"2025-05-01T10:00:00","customer_id":1,"terminal_id":1,"amount":-1}'
            % number
        ),
        lambda: b'[{"transaction_id": "p-%d"}]' % number,
        lambda: b'{"transaction_id":"p-%d","amount":NaN}' % number,
        lambda: b"%d " % number + b"[" * 20_000,
    ]
    return draw.choice(kinds)()


def consume(read: Settings, folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a worker, which tells `consume.log` how it goes."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "PYTHONPATH": str(ROOT), "MLOPS_STREAMING__LEASE": read.streaming.lease,
        **{f"MLOPS_PLATFORM__{name.upper()}": value for name, value in read.platform.model_dump().items()},
    }  # fmt: skip
    with (folder / "consume.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "modules.fraud_detection", "consume", "--stream", read.streaming.source, *options],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def kill_and_finish(read: Settings, folder: Path, sent: Sent, kills: int, draw: random.Random) -> Found:
    """Kill workers that have decided some part of what there is, then let the last one finish and end by itself."""
    wanted = len(sent.valid) + len(sent.poison)
    with closing(journal.connect(read.platform.journal)) as kept:
        for _ in range(kills):
            enough = kept.head().count + draw.randrange(1, wanted // (kills + 1))
            process = consume(read, folder)
            awaited(partial(_holds, kept, min(enough, wanted)))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        (folder / "consume.log").unlink()
        process = consume(read, folder)
        awaited(partial(_holds, kept, wanted))
        awaited(lambda: "reading" in (folder / "consume.log").read_text())
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            raise RuntimeError(f"the worker ended with {process.returncode}: {(folder / 'consume.log').read_text()}")
        return Found(decided(kept), [each.letter.data for each in DeadLetters(kept, NAME).waiting()], kills)


def decided(kept: Journal) -> Mapping[str, int]:
    """How often each id was decided; the chain is whole."""
    kept.verify()
    found: dict[str, int] = {}
    for row in kept.since(0):
        if row.entry.kind == DECISION:
            key = decode_record(row.entry.body).key
            found[key] = found.get(key, 0) + 1
    return found


def mend(read: Settings, folder: Path) -> Replayed:
    """Give every dead letter a transaction of its own, and decide those."""
    replay, make = Replay(read), transactions("mended")
    replay.write(folder / "letters.jsonl")
    lines = [json.loads(line) for line in (folder / "letters.jsonl").read_text().splitlines()]
    mended = [json.dumps({"id": line["id"], "record": json.loads(make())}) for line in lines]
    (folder / "mended.jsonl").write_text("\n".join(mended))
    return replay.mended(folder / "mended.jsonl")


def _holds(kept: Journal, count: int) -> bool:
    return kept.head().count >= count


def awaited(done: Callable[[], bool]) -> None:
    """Wait until it is so. Raises `TimeoutError`."""
    deadline = time.monotonic() + IDLE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker decides nothing any more")
        time.sleep(0.01)


def main() -> None:
    """Print what became of every record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    draw = random.Random(words.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-m", "modules.fraud_detection", "pipeline"], cwd=folder, check=True, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with running(["-m", "moto.server"], folder, environment) as port:
            os.environ |= {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
            }  # fmt: skip
            sent = put("killed", words.records, draw)
            read = settings_in(folder)
            began = time.monotonic()
            found = kill_and_finish(read, folder, sent, words.kills, draw)
            show(sent, found, time.monotonic() - began)
            replayed = mend(read, folder)
        refused = replayed.refused.total()
        print(f"mended: {replayed.decided:,} decided, {replayed.repeated:,} had been, {refused:,} refused")


def settings_in(folder: Path) -> Settings:
    """Settings of a worker that keeps all in a folder."""
    platform = {
        "objects": f"file://{folder}/var", "ledger": f"sqlite:///{folder}/var/ledger.db",
        "tracking": f"sqlite:///{folder}/var/mlflow.db", "artifacts": f"{folder}/var/mlartifacts",
        "journal": f"sqlite:///{folder}/var/journal.db",
    }  # fmt: skip
    streaming = {"source": "kinesis://killed", "lease": f"{LEASE}s"}
    return settings.read(None, "local", {}, {"platform": platform, "streaming": streaming})


def show(sent: Sent, found: Found, took: float) -> None:
    """Print the counts."""
    once = sum(count == 1 for count in found.decided.values())
    print(f"{found.kills} kills in {took:.0f} s over {SHARDS} shards")
    print(f"valid: {once:,} of {len(sent.valid):,} decided once, {len(found.decided) - once:,} more than once")
    same = sorted(found.letters) == sorted(sent.poison)
    print(
        f"poison: {len(found.letters):,} of {len(sent.poison):,} kept, {'every byte the same' if same else 'CHANGED'}"
    )
    if not same or once != len(sent.valid) or found.decided.keys() != sent.valid.keys():
        raise SystemExit("records were lost, doubled or changed")


if __name__ == "__main__":
    main()
