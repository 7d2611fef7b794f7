"""The stream worker as it is run: over Kinesis, killed, resharded, beside others; and what becomes of dead letters."""

import asyncio
import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

import boto3
import pytest

from benchmarks import stream_kills
from mlops.journaling import journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.streaming import stream
from mlops.streaming.dead_letters import DeadLetters
from mlops.streaming.stream_memory import Memory
from modules.fraud_detection import __main__ as module
from modules.fraud_detection.consume import feed, worker
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.predictor import Decision
from monitoring.prometheus_metrics import Metrics
from tests.api import processes, settings_of
from tests.infra.event_source_mapping import Context, EventSourceMapping, Options
from tests.redis_server import RedisServer
from tests.test_predict import transaction

PATIENCE = 120
"""Seconds that a test may wait for its worker."""


def made(name: str, shards: int = 1) -> None:
    client = boto3.client("kinesis")
    client.create_stream(StreamName=name, ShardCount=shards)
    client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0})


def put(name: str, bodies: Sequence[dict[str, Any] | bytes]) -> None:
    """Put transactions by their customer, so that each customer's stay in order."""
    records = [
        ("poison", body) if isinstance(body, bytes) else (str(body["customer_id"]), json.dumps(body).encode())
        for body in bodies
    ]
    stream.connect(f"kinesis://{name}").put(records)


def at(second: int) -> str:
    return f"2025-03-13T10:00:{second:02d}"


def streaming(job: Job, folder: Path, name: str, **groups: Any) -> Settings:
    words = {"source": f"kinesis://{name}", "lease": "1s", "poll": 0.05} | groups.pop("streaming", {})
    return settings_of(job, folder, streaming=words, **groups)


def decided(settings: Settings) -> list[str]:
    """The keys in the journal, in its order; the chain is whole."""
    with closing(journal.connect(settings.platform.journal)) as kept:
        kept.verify()
        return [decode_record(row.entry.body).key for row in kept.since(0) if row.entry.kind == DECISION]


def letters(settings: Settings) -> list[bytes]:
    with closing(journal.connect(settings.platform.journal)) as kept:
        return [waiting.letter.data for waiting in DeadLetters(kept, NAME).waiting()]


async def run_until(settings: Settings, count: int) -> Metrics:
    """Let a worker of this process read until so many records have an outcome, then stop it."""
    metrics = Metrics([], get_args(Decision))
    async with worker(settings, stream.connect(settings.streaming.source), metrics) as consumer:
        running = asyncio.create_task(consumer.run())
        while read(metrics) < count:
            await asyncio.sleep(0.02)
        consumer.stop()
        await running
    return metrics


def read(metrics: Metrics) -> float:
    outcomes = ("decided", "repeated", "put away")
    return sum(
        metrics.registry.get_sample_value("stream_records_total", {"outcome": outcome}) or 0 for outcome in outcomes
    )


def test_killed_again_and_again_it_decides_each_record_once_and_loses_none(
    finished: Job, tmp_path: Path, bucket: str
) -> None:
    """A short form of `python -m benchmarks.stream_kills`."""
    draw = random.Random(1)
    sent = stream_kills.put(f"killed-{bucket}", 3_000, draw)
    settings = streaming(finished, tmp_path, f"killed-{bucket}")
    found = stream_kills.kill_and_finish(settings, tmp_path, sent, 3, draw)
    assert found.decided == dict.fromkeys(sent.valid, 1)
    assert sorted(found.letters) == sorted(sent.poison)
    replayed = stream_kills.mend(settings, tmp_path)
    assert (replayed.decided, replayed.repeated, replayed.refused.total()) == (len(sent.poison), 0, 0)
    missing = set(decided(settings)) - set(sent.valid)
    assert len(missing) == len(sent.poison) == len(decided(settings)) - len(sent.valid)
    assert letters(settings) == []


def test_answers_go_to_another_stream_and_metrics_tell_what_became_of_each_record(
    finished: Job, tmp_path: Path, bucket: str
) -> None:
    name = f"in-{bucket}"
    made(name)
    made(f"out-{bucket}")
    settings = streaming(finished, tmp_path, name, streaming={"results": f"kinesis://out-{bucket}"})
    body = transaction("once")
    put(name, [body, b"poison", body, transaction("twice"), transaction("twice", amount=1.0)])
    metrics = asyncio.run(asyncio.wait_for(run_until(settings, 5), PATIENCE))
    out = stream.connect(f"kinesis://out-{bucket}")
    answers = [json.loads(record.data) for record in out.open(out.shards()[0].id, None, None).read(100).records]
    assert [(said["transaction_id"], said["replayed"]) for said in answers] in (
        [("once", False), ("once", True), ("twice", False)],
        [("once", False), ("twice", False), ("once", True)],
    )
    counted = {
        outcome: metrics.registry.get_sample_value("stream_records_total", {"outcome": outcome})
        for outcome in ("decided", "repeated", "put away")
    }
    assert counted == {"decided": 2, "repeated": 1, "put away": 2}
    assert metrics.registry.get_sample_value("stream_batch_records_sum") == 5
    assert metrics.registry.get_sample_value("cache_hits_total") == 1
    with closing(journal.connect(settings.platform.journal)) as kept:
        reasons = {waiting.letter.status: waiting.letter for waiting in DeadLetters(kept, NAME).waiting()}
    assert set(reasons) == {400, 409}
    assert (reasons[409].stream, json.loads(reasons[409].data)["amount"]) == (name, 1.0)


def test_a_second_worker_without_redis_waits_and_then_knows_what_the_first_decided(
    finished: Job, tmp_path: Path, bucket: str
) -> None:
    name = f"alone-{bucket}"
    made(name, 2)
    settings = streaming(finished, tmp_path, name)
    bodies = [transaction(f"first-{number}", customer_id="c1", timestamp=at(number)) for number in range(25)]
    put(name, bodies[:20])

    async def scenario() -> None:
        metrics = [Metrics([], get_args(Decision)) for _ in range(2)]
        source = stream.connect(settings.streaming.source)
        async with worker(settings, source, metrics[0]) as first:
            running = asyncio.create_task(first.run())
            while read(metrics[0]) < 20:
                await asyncio.sleep(0.02)

            async def wait_and_read() -> None:
                async with worker(settings, source, metrics[1]) as second:
                    reading = asyncio.create_task(second.run())
                    while read(metrics[1]) < 1:
                        await asyncio.sleep(0.02)
                    second.stop()
                    await reading

            waiting = asyncio.create_task(wait_and_read())
            for number in range(20, 25):
                put(name, [bodies[number]])
                while read(metrics[0]) <= number:
                    await asyncio.sleep(0.02)
            first.stop()
            await running
        put(name, [transaction("second", customer_id="c1", timestamp=at(30))])
        await asyncio.wait_for(waiting, 60)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert decided(settings) == [*[f"first-{number}" for number in range(25)], "second"]
    with closing(journal.connect(settings.platform.journal)) as kept:
        last = decode_record(list(kept.since(0))[-1].entry.body)
    assert last.key == "second"
    # It counts the customer's transactions of the day, itself included.
    assert 26.0 in last.seen


def test_with_redis_two_workers_and_the_api_share_one_past(
    finished: Job, tmp_path: Path, bucket: str, redis_server: RedisServer
) -> None:
    name = f"shared-{bucket}"
    made(name, 2)
    settings = streaming(finished, tmp_path, name, platform={"online": redis_server.patient_url})

    async def scenario() -> None:
        metrics = [Metrics([], get_args(Decision)) for _ in range(2)]
        source = stream.connect(settings.streaming.source)
        async with worker(settings, source, metrics[0]) as one, worker(settings, source, metrics[1]) as two:
            running = [asyncio.create_task(each.run()) for each in (one, two)]
            while [each.registry.get_sample_value("stream_shards") for each in metrics] != [1, 1]:
                await asyncio.sleep(0.02)
            put(name, [transaction(f"s-{number}", customer_id=f"c{number % 20}") for number in range(100)])
            while sum(map(read, metrics)) < 100:
                await asyncio.sleep(0.02)
            assert min(map(read, metrics)) > 0
            for each in (one, two):
                each.stop()
            await asyncio.gather(*running)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    with processes(settings, tmp_path) as (_, client):
        answer = client.post("/predict", transaction("api", customer_id="c3", timestamp=at(30))).body
        assert 6.0 in client.get(f"/decisions/{answer['decision_id']}").body["features"].values()
        again = client.post("/predict", transaction("s-3", customer_id="c3")).body
    assert again["replayed"]
    assert sorted(decided(settings)) == sorted([*[f"s-{number}" for number in range(100)], "api"])


def test_as_a_program_it_serves_metrics_and_ends_well_when_told(finished: Job, tmp_path: Path, bucket: str) -> None:
    made(f"told-{bucket}")
    settings = streaming(finished, tmp_path, f"told-{bucket}")
    put(f"told-{bucket}", [transaction("told"), b"poison"])
    process = stream_kills.consume(settings, tmp_path, "--metrics-port", "0", "--metrics-host", "127.0.0.2")
    with closing(journal.connect(settings.platform.journal)) as kept:
        stream_kills.awaited(lambda: kept.head().count == 2)
    # What it tells stands between what it logs.
    told = (tmp_path / "consume.log").read_text().splitlines()
    url = next(line for line in told if line.startswith("http://127.0.0.2:"))
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    assert "dead_letters_waiting 1.0" in lines
    assert 'stream_records_total{outcome="decided"} 1.0' in lines
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def lines_of(finished: Job, folder: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> Settings:
    """Let the word `consume` read lines from standard input, in this process."""
    settings = settings_of(finished, folder)
    for name, value in settings.platform.model_dump().items():
        monkeypatch.setenv(f"MLOPS_PLATFORM__{name.upper()}", value)
    (folder / "in.jsonl").write_bytes(text)
    with (folder / "in.jsonl").open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert module.main(["consume"]) == 0
    return settings


@pytest.fixture
def poisoned(finished: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """One decision and two dead letters, from lines of standard input, with an empty one and one without an end."""
    bodies = [json.dumps(transaction("good")).encode(), b"", b"\xff not text", b'{"transaction_id": "bad"}']
    yield lines_of(finished, tmp_path, monkeypatch, b"\n".join(bodies))


def test_a_line_is_put_when_it_has_come_and_not_with_the_next() -> None:
    comes_from, goes_to = os.pipe()
    source = Memory()
    with os.fdopen(comes_from, "rb") as lines:
        feeding = threading.Thread(target=feed, args=(source, lines))
        feeding.start()
        for text, there in ((b"one\ntw", [b"one"]), (b"o\n\n", [b"one", b"two"]), (b" last", [b"one", b"two"])):
            os.write(goes_to, text)
            stream_kills.awaited(partial(has, source, there))
        os.close(goes_to)
        feeding.join()
    assert has(source, [b"one", b"two", b"last"])
    assert source.page("shard-0", 0, 10).ended


def has(source: Memory, lines: Sequence[bytes]) -> bool:
    return [record.data for record in source.page("shard-0", 0, 10).records] == lines


def test_lines_of_standard_input_are_decided_until_they_end(poisoned: Settings) -> None:
    assert decided(poisoned) == ["good"]
    assert letters(poisoned) == [b"\xff not text", b'{"transaction_id": "bad"}']


def test_letters_are_listed_mended_and_decided_and_then_they_are_gone(
    poisoned: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert module.main(["replay-dlq", "--list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("10 bytes  -: the body is not one JSON object in UTF-8")
    assert "timestamp" in second
    assert module.main(["replay-dlq"]) == 3
    assert capsys.readouterr().out.startswith("0 decided, 0 had been decided before, 2 refused\n")
    file = tmp_path / "letters.jsonl"
    assert module.main(["replay-dlq", "--out", str(file)]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"id", "reason", "base64"}, {"id", "reason", "field", "record"}]
    lines[1]["record"] = transaction("mended")
    lines[0] = {"id": lines[0]["id"], "record": transaction("good")}
    file.write_text("\n".join(map(json.dumps, lines)))
    capsys.readouterr()
    assert module.main(["replay-dlq", "--mended", str(file)]) == 0
    assert capsys.readouterr().out == "1 decided, 1 had been decided before, 0 refused\n"
    assert letters(poisoned) == []
    assert decided(poisoned) == ["good", "mended"]


def test_a_letter_is_thrown_away_only_with_a_reason(poisoned: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    module.main(["replay-dlq", "--list"])
    id_ = capsys.readouterr().out.splitlines()[-2].split()[0]
    assert module.main(["replay-dlq", "--drop", id_]) == 1
    assert "needs a reason: --why TEXT" in capsys.readouterr().err
    assert module.main(["replay-dlq", "--drop", id_, "--who", "ada", "--why", "noise"]) == 0
    assert letters(poisoned) == [b'{"transaction_id": "bad"}']
    assert module.main(["replay-dlq", "--drop", "00" * 16, "--why", "x"]) == 1
    assert "there is no dead letter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json", "line 1 of letters.jsonl is no dead letter"),
        (b'{"id": "00"}', "line 1 of letters.jsonl has no 'record'"),
        (b'{"id": "xy", "record": {}}', "'xy' is no id of a dead letter"),
        (b'{"id": "' + b"00" * 16 + b'", "record": {}}', "there is no dead letter 0000"),
    ],
)
def test_mended_lines_that_make_no_sense_are_one_clear_line_and_decide_nothing(
    poisoned: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes, said: str
) -> None:
    (tmp_path / "letters.jsonl").write_bytes(line)
    capsys.readouterr()
    assert module.main(["replay-dlq", "--mended", "letters.jsonl"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert len(letters(poisoned)) == 2


def test_what_other_doors_left_among_the_files_is_taken_in_once(poisoned: Settings) -> None:
    folder = Path(poisoned.platform.objects.removeprefix("file://")) / "monitoring/dead_letters/s/shard-1"
    folder.mkdir(parents=True)
    letter = {
        "stream": "s", "shard": "shard-1", "sequence": "7", "data": "AAH/", "field": None, "reason": "no",
        "status": 400, "at": 1,
    }  # fmt: skip
    for _ in range(2):
        (folder / "7.json").write_text(json.dumps(letter))
        assert module.main(["replay-dlq", "--list"]) == 0
        assert letters(poisoned)[2:] == [b"\x00\x01\xff"]
        assert list(folder.iterdir()) == []
    (folder / "8.json").write_text("{}")
    assert module.main(["replay-dlq", "--list"]) == 1


def test_what_lambda_gave_up_lies_whole_in_the_bucket_and_is_decided_from_there(
    finished: Job, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(finished, tmp_path)
    for name, value in settings.platform.model_dump().items():
        monkeypatch.setenv(f"MLOPS_PLATFORM__{name.upper()}", value)
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECTS", f"s3://{bucket}")

    def fails(_: Any, __: Context) -> Any:
        raise RuntimeError("nobody decides today")

    mapping = EventSourceMapping(fails, Options(maximum_retry_attempts=0, on_failure=f"arn:aws:s3:::{bucket}"))
    for number in range(5):
        mapping.put(json.dumps(transaction(f"given-up-{number}")).encode())
    mapping.put(b"poison")
    assert mapping.run()
    assert module.main(["replay-dlq"]) == 3
    said = capsys.readouterr().out
    assert said.startswith("5 decided, 0 had been decided before, 1 refused")
    assert sorted(decided(settings)) == [f"given-up-{number}" for number in range(5)]
    assert letters(settings) == [b"poison"]
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix="aws/lambda/")
    assert module.main(["replay-dlq"]) == 3
    assert capsys.readouterr().out.startswith("0 decided, 0 had been decided before, 1 refused")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stream", "kinesis://nowhere"], "there is no kinesis://nowhere"),
        (["--stream", "kafka://x"], "'kafka://x' is no stream; write kinesis://NAME or memory://"),
    ],
)
def test_a_stream_that_is_not_there_is_one_clear_line(
    bucket: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert module.main(["consume", *words]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
