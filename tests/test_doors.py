"""One scorer, four doors: the same events get the same decisions, row by row, through whichever they come."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from benchmarks.serving import transactions
from mlops.journaling import journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.streaming.stream_memory import Memory
from modules.fraud_detection.consume import worker
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.predictor import Decision
from monitoring.prometheus_metrics import Metrics
from tests.api import serving, settings_of
from tests.infra.event_source_mapping import Options
from tests.infra.test_lambda_handler import forget, mapped

pytestmark = pytest.mark.no_cover

EVENTS, AT_ONCE = 10_000, 100
Bodies = Sequence[bytes]


class Row(NamedTuple):
    """A decision as the journal has it, without what differs from run to run."""

    id: str
    key: str
    seen: Sequence[Any]
    said: Mapping[str, Any]
    version: int
    arm: str


def rows(settings: Settings) -> list[Row]:
    """Every decision in the order in which it was made."""
    found = []
    with closing(journal.connect(settings.platform.journal)) as kept:
        for row in kept.since(0):
            if row.entry.kind == DECISION:
                record = decode_record(row.entry.body)
                model = record.model
                found.append(Row(row.entry.id.hex(), record.key, record.seen, record.said, model.version, model.arm))
    return found


def over_http(settings: Settings, bodies: Bodies) -> None:
    with serving(settings) as client:
        for body in bodies:
            assert client.post("/predict", body).status == 200


def over_invocations(settings: Settings, bodies: Bodies) -> None:
    with serving(settings) as client:
        for start in range(0, len(bodies), AT_ONCE):
            assert client.post("/invocations", many(bodies[start : start + AT_ONCE])).status == 200


def over_the_stream(settings: Settings, bodies: Bodies) -> None:
    source = Memory()
    source.put([("", body) for body in bodies])
    source.close()

    async def read() -> None:
        async with worker(settings, source, Metrics([], get_args(Decision))) as consumer:
            await consumer.run()

    asyncio.run(read())


def over_lambda(settings: Settings, bodies: Bodies) -> None:
    with serving(settings) as client, pytest.MonkeyPatch.context() as environment:
        names = {
            "TARGET": "api", "API_URL": f"http://127.0.0.1:{client.port}", "API_KEY": "of-nobody",
            "DEAD_LETTERS": "s3://no-bucket", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        for name, value in names.items():
            environment.setenv(name, value)
        mapping = mapped(bodies, Options(batch_size=500, report_batch_item_failures=True))
        mapping.run()
        forget()


def many(bodies: Bodies) -> bytes:
    return b'{"transactions":[' + b",".join(bodies) + b"]}"


DOORS: Mapping[str, Callable[[Settings, Bodies], None]] = {
    "the stream worker": over_the_stream, "Lambda": over_lambda, "/invocations": over_invocations,
}  # fmt: skip


def test_ten_thousand_events_get_the_same_decisions_through_every_door(finished: Job, tmp_path: Path) -> None:
    make = transactions("door")
    bodies = [make() for _ in range(EVENTS)]

    def through(door: Callable[[Settings, Bodies], None], some: Bodies = bodies) -> list[Row]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        settings = settings_of(finished, folder)
        door(settings, some)
        return rows(settings)

    first = through(over_http)
    assert [row.key for row in first] == [json.loads(body)["transaction_id"] for body in bodies]
    # Without those before them the last are others, or this would compare doors that remember nothing.
    assert through(over_the_stream, bodies[-AT_ONCE:]) != first[-AT_ONCE:]
    for name, door in DOORS.items():
        for mine, theirs in zip(through(door), first, strict=True):
            assert mine == theirs, name
