"""What must not happen when things break: nothing acknowledged is lost or doubled, nothing is silently wrong."""

import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops.journaling import journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.releasing.releases import Releases
from mlops.serving.scoring import Clock
from mlops.serving.shared_answers import SharedAnswers
from mlops.storage.online_redis import SCRIPTS
from mlops.storage.redis_pipe import RedisPipe
from modules.fraud_detection import train
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.live_predictor import LivePredictor
from tests.api import Client, Process, children, processes, serving, settings_of
from tests.conftest import run, small_job
from tests.mlops.test_logs import written
from tests.redis_server import RedisServer
from tests.services import LONG
from tests.test_predict import transaction

pytestmark = pytest.mark.no_cover

START = "2025-05-01T10:00:00"
FAILED = 'request_errors_total{kind="failed"}'


def awaited(done: Callable[[], bool], seconds: float = 20) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"


def seen(client: Client, decided: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/decisions/{decided['decision_id']}").body
    return found


@pytest.fixture
def with_redis(finished: Job, tmp_path: Path, redis_server: RedisServer) -> Iterator[Client]:
    # On a busy machine the time-out of service would be a fault that the test did not plan.
    url = f"{redis_server.url}?socket_timeout=0.5"
    with serving(settings_of(finished, tmp_path, platform={"online": url})) as client:
        yield client


def history(client: Client, customer: str, count: int, name: str = "h") -> None:
    for number in range(count):
        asked = transaction(f"{name} {customer} {number}", customer_id=customer, timestamp=START[:-2] + f"{number:02d}")
        assert client.post("/predict", asked).status == 200


def whole(client: Client, customer: str, name: str) -> dict[str, Any] | None:
    """What a new transaction of a customer sees, or nothing while answers are marked as degraded."""
    decided = client.post("/predict", transaction(name, customer_id=customer, timestamp="2025-05-01T11:00:00")).body
    return None if decided.get("degraded") else seen(client, decided)["features"]


@pytest.mark.parametrize(
    ("fault", "mend"),
    [("kill", "start"), ("freeze", "thaw"), ("slow_down", "speed_up"), ("fill_up", "make_room")],
)
def test_without_redis_answers_go_on_and_are_right_or_marked(
    with_redis: Client, redis_server: RedisServer, fault: str, mend: str
) -> None:
    """Redis dies, hangs, crawls or is full: answers go on at once, marked until the journal has filled the gap."""
    history(with_redis, "c-gone", 3)
    assert with_redis.metric("cache_errors_total") == 0
    getattr(redis_server, fault)()
    began = time.monotonic()
    first = with_redis.post(
        "/predict", transaction("while gone", customer_id="c-gone", timestamp="2025-05-01T10:30:00")
    )
    assert first.status == 200
    assert time.monotonic() - began < 5
    tries = iter(range(10_000))
    found: dict[str, Any] = {}

    def right() -> bool:
        place = next(tries)
        features = whole(with_redis, "c-gone", f"gone {place}")
        if features is not None:
            # Every earlier one of this customer is in it: three, the first without Redis, and those asked since.
            assert features["customer_id_amount_count_1d"] == 3 + 1 + place + 1
            found.update(features)
        return features is not None

    awaited(right)
    assert with_redis.get("/ready").status == 200
    if fault in ("kill", "freeze"):
        assert with_redis.metric("cache_errors_total") > 0
    getattr(redis_server, mend)()
    before = int(found["customer_id_amount_count_1d"])
    with redis_server.client() as server:
        awaited(lambda: bool(server.keys("*customer_id=c-gone*")))

        def back() -> bool:
            asked = next(tries)
            whole(with_redis, "c-gone", f"gone {asked}")
            key = server.keys("*{customer_id=c-gone}*")[0]
            return bool(len(server.get(key)) // record_size(with_redis) >= before)

        awaited(back)


def record_size(client: Client) -> int:
    """Bytes of one record of the default data set: 11 words and the amount."""
    return 8 * 12


def test_a_redis_that_lost_everything_is_filled_again(with_redis: Client, redis_server: RedisServer) -> None:
    history(with_redis, "c-lost", 3)
    with redis_server.client() as server:
        server.flushall()
        tries = iter(range(1_000))
        awaited(lambda: whole(with_redis, "c-lost", f"lost {next(tries)}") is not None)
        awaited(lambda: bool(server.keys("*{customer_id=c-lost}*")))


@pytest.mark.parametrize("kind", ["another's", "no log"])
def test_a_poisoned_value_is_noticed_mended_and_never_believed(
    with_redis: Client, redis_server: RedisServer, kind: str
) -> None:
    history(with_redis, "c-poison", 3)
    history(with_redis, "c-other", 1)
    with redis_server.client() as server:
        key, other = server.keys("*{customer_id=c-poison}*")[0], server.keys("*{customer_id=c-other}*")[0]
        wrong = server.get(other)
        if kind == "no log":
            server.delete(key)
            server.lpush(key, wrong)
        else:
            server.set(key, wrong)
        tries = iter(range(1_000))
        counts: list[float] = []

        def right() -> bool:
            features = whole(with_redis, "c-poison", f"poison {next(tries)}")
            if features is not None:
                counts.append(features["customer_id_amount_count_1d"])
            return features is not None

        awaited(right)
        assert counts[-1] >= 4
        awaited(lambda: server.type(key) == b"string" and len(server.get(key)) > 3 * record_size(with_redis))


def test_a_label_is_taken_where_what_is_remembered_is_no_log(with_redis: Client, redis_server: RedisServer) -> None:
    """The fact is in the journal: it is answered, and the log is put right from there."""
    place = {"customer_id": "c-fact", "terminal_id": "t-fact", "timestamp": START}
    for name in ("fact", "later fact"):
        assert with_redis.post("/predict", transaction(name, **place)).status == 200
    with redis_server.client() as server:
        told = {"is_fraud": True, "known_at": "2025-05-01T12:00:00"}
        assert with_redis.post("/feedback", {"transaction_id": "fact", **told}).body["recorded"] is True
        key = server.keys("*{terminal_id:facts=t-fact}*")[0]
        server.delete(key)
        server.lpush(key, b"no log")
        assert with_redis.post("/feedback", {"transaction_id": "later fact", **told}).body["recorded"] is True
        awaited(lambda: server.type(key) == b"string" and len(server.get(key)) == 2 * record_size(with_redis))


def test_a_locked_journal_is_told_to_come_again_and_nothing_is_half_done(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        found = client.post("/predict", transaction("locked", customer_id="c-locked"))
        assert found.status == 503
        assert found.headers["retry-after"] == "1"
        assert client.get("/health").status == 200
        other.execute("COMMIT")
        other.close()
        after = client.post(
            "/predict", transaction("free", customer_id="c-locked", timestamp="2025-03-13T10:00:01")
        ).body
        again = client.post(
            "/predict", transaction("free 2", customer_id="c-locked", timestamp="2025-03-13T10:00:02")
        ).body
        # What was refused is not in the past of what came after.
        assert seen(client, again)["features"]["customer_id_amount_count_1d"] == 2
        assert after["replayed"] is False


def test_the_api_is_not_ready_while_its_journal_cannot_be_reached(
    finished: Job, tmp_path: Path, postgres: Callable[[], str], postgres_server: str
) -> None:
    """The database lets nobody in for a while, and nothing but the journal keeps the API from being ready."""
    url = postgres()
    name = url.split("?")[0].rsplit("/", 1)[1]
    settings = settings_of(finished, tmp_path, platform={"journal": url})
    with serving(settings) as client, psycopg.connect(postgres_server, autocommit=True) as server:
        assert client.post("/predict", transaction("with")).status == 200
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for path in ("/ready", "/ping"):
            found = client.get(path)
            assert (found.status, found.body["ready"], found.body["version"]) == (503, False, 1)
            assert "does not answer" in found.body["problem"]
        assert client.get("/health").status == 200
        assert client.post("/predict", transaction("without")).status == 503
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        client.wait_ready()
        awaited(lambda: client.post("/predict", transaction("without")).status == 200)


def test_an_explanation_that_fails_is_answered_logged_and_counted_and_the_next_works(
    finished: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings_of(finished, tmp_path)) as client, written("serving") as lines:
        decided = client.post("/predict", transaction("decided")).body["decision_id"]

        def counted() -> list[float]:
            return [client.metric(line) for line in ('explain_requests_total{status="500"}', FAILED)]

        for asked in ({"decision_id": decided}, transaction("decided"), transaction("not decided")):
            before, said = counted(), len(lines())
            with monkeypatch.context() as patch:
                patch.setattr(LivePredictor, "explain", broken)
                failed = client.post("/explain", asked, **{"X-Request-ID": "shop-1"})
            assert failed.status == 500
            assert failed.body == {"error": {"field": None, "reason": "an error of ours; it was logged"}}
            assert counted() == [one + 1 for one in before]
            (line,) = lines()[said:]
            assert (line["level"], line["message"], line["request_id"]) == ("error", "a request failed", "shop-1")
            assert line["error"].endswith("ZeroDivisionError: planted")
            assert line["version"] == 1
            assert len(line["decision_id"]) == 32
            assert (line["decision_id"] == decided) == (asked != transaction("not decided"))
            assert client.post("/explain", asked).status == 200


def broken(*_: object) -> None:
    raise ZeroDivisionError("planted")


def test_an_object_store_that_fails_costs_no_explanation_and_is_told(finished: Job, tmp_path: Path) -> None:
    """Where explanations would lie there is a file. All that the process says are lines, and no card is in them."""
    store, card = tmp_path / "store", "4111111111111111"
    store.mkdir()
    (store / "explanations").write_text("in the way")
    settings = settings_of(finished, tmp_path, platform={"objects": f"file://{store}"})
    with processes(settings, tmp_path) as (_, client):
        decided = client.post("/predict", transaction("told")).body["decision_id"]
        for name in ("shop-1", card):
            assert client.post("/explain", {"decision_id": decided}, **{"X-Request-ID": name}).status == 200
        told: list[dict[str, Any]] = []

        def all_told() -> bool:
            lines = [json.loads(line) for line in (tmp_path / "serve.log").read_text().splitlines()]
            told[:] = [line for line in lines if line["message"] == "an explanation could not be stored"]
            return len(told) >= 2

        awaited(all_told)
        assert client.post("/explain", {"decision_id": decided}, Accept="image/png").status == 200
        assert client.get("/ready").status == 200
    assert len(told) == 2
    assert {line["request_id"] for line in told} == {"shop-1", "[card]"}
    assert {(line["level"], line["decision_id"], line["version"]) for line in told} == {("warning", decided, 1)}


def test_a_full_disk_refuses_and_recovers(finished: Job, tmp_path: Path) -> None:
    """The process that writes the journal may write no larger files for a while."""
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        assert client.post("/predict", transaction("room")).status == 200
        size = sum(file.stat().st_size for file in tmp_path.glob("journal.db*"))
        (writer,) = children(os.getpid(), "mlops.journaling.journal_process")
        _, hard = resource.prlimit(writer, resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
        statuses = [client.post("/predict", transaction(f"full {number}")).status for number in range(100)]
        assert statuses[-1] == 503
        assert set(statuses) == {200, 503}
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        assert client.post("/predict", transaction("room again")).status == 200
        answered = 2 + statuses.count(200)
    kept = journal.connect(settings.platform.journal)
    assert kept.verify().count == answered
    kept.close()


def test_a_killed_writing_process_is_told_to_come_again_and_replaced(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        assert client.post("/predict", transaction("before", customer_id="c-writer")).status == 200
        (writer,) = children(os.getpid(), "mlops.journaling.journal_process")
        os.kill(writer, signal.SIGKILL)
        found = client.post("/predict", transaction("k", customer_id="c-writer", timestamp="2025-03-13T10:00:01"))
        while found.status != 200:
            assert (found.status, found.headers["retry-after"]) == (503, "1")
            found = client.post("/predict", transaction("k", customer_id="c-writer", timestamp="2025-03-13T10:00:01"))
        assert seen(client, found.body)["features"]["customer_id_amount_count_1d"] == 2
    kept = journal.connect(settings.platform.journal)
    assert kept.verify().count == 2
    kept.close()


def test_kills_under_load_lose_and_double_nothing(finished: Job, tmp_path: Path) -> None:
    """Killed without warning, twenty times: every answer that a client read is in the journal, once, as it was read."""
    settings = settings_of(finished, tmp_path)
    draw = random.Random(3)
    read: dict[str, Any] = {}
    asked = iter(range(10**9))

    def load(port: int, enough: threading.Event, wanted: int) -> None:
        client = Client(port)
        with suppress(OSError, Exception):
            while True:
                id_ = f"k{next(asked)}"
                found = client.post("/predict", transaction(id_, customer_id=f"c{draw.randrange(9)}"))
                if found.status == 200:
                    read[id_] = found.body
                if len(read) >= wanted:
                    enough.set()
        client.close()

    for _ in range(20 if LONG else 8):
        with processes(settings, tmp_path) as (process, client), ThreadPoolExecutor(4) as pool:
            enough, wanted = threading.Event(), len(read) + draw.randrange(20, 200)
            for _ in range(4):
                pool.submit(load, client.port, enough, wanted)
            enough.wait(60)
            process.kill()
    kept = journal.connect(settings.platform.journal)
    records = [decode_record(row.entry.body) for row in kept.since(0) if row.entry.kind == DECISION]
    assert len(records) == len({record.key for record in records}) == kept.verify().count
    kept.close()
    written = {record.key: record.said["fraud_probability"] for record in records}
    assert len(read) > 200
    assert {id_: said["fraud_probability"] for id_, said in read.items()}.items() <= written.items()


def test_several_workers_count_every_answer_once_even_when_one_is_killed(
    finished: Job, tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = settings_of(finished, tmp_path, platform={"online": redis_server.url})
    answered = 0
    with processes(settings, tmp_path, workers=2) as (process, client):
        for round_ in range(3):
            clients = [Client(client.port) for _ in range(8)]
            for number in range(200):
                found = clients[number % 8].post("/predict", transaction(f"w{round_} {number}"))
                assert found.status == 200
                answered += 1
                if number % 40 == 0:
                    assert client.metric('predict_requests_total{status="200"}') == answered
            for each in clients:
                each.close()
            # Whoever answers the scrape, it is the sum.
            assert [Client(client.port).metric('predict_requests_total{status="200"}') for _ in range(6)] == [
                answered
            ] * 6
            decided = sum(
                client.metric(f'decisions_total{{arm="production",decision="{decision}",version="1"}}')
                for decision in ("approve", "review", "decline")
                if f'decision="{decision}",version="1"' in client.get("/metrics").body.decode()
            )
            assert decided == answered
            if round_ == 0:
                client.close()
                assert len(process.children()) == 2
                killed = process.children()[0]
                os.kill(killed, signal.SIGKILL)
                awaited(partial(replaced, process, killed), 120)
                awaited(lambda: ready(client), 60)
    kept = journal.connect(settings.platform.journal)
    assert kept.verify().count == answered
    kept.close()


def replaced(process: Process, killed: int) -> bool:
    """Whether two workers run, and not the one that was killed."""
    return len(set(process.children()) - {killed}) == 2


def ready(client: Client) -> bool:
    """Whether every worker that is met answers and is ready."""
    with suppress(OSError):
        return all(Client(client.port).get("/ready").status == 200 for _ in range(12))
    return False


def test_the_same_transaction_at_two_workers_gets_one_answer(
    finished: Job, tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = settings_of(finished, tmp_path, platform={"online": redis_server.url})
    with processes(settings, tmp_path, workers=2) as (_, client), ThreadPoolExecutor(8) as pool:
        awaited(lambda: ready(client), 60)
        for number in range(20):
            start = threading.Barrier(8)

            def ask(_: int, number: int = number, start: threading.Barrier = start) -> Any:
                mine = Client(client.port)
                start.wait()
                return mine.post("/predict", transaction(f"both {number}")).body

            answers = list(pool.map(ask, range(8)))
            assert sum(not answer["replayed"] for answer in answers) == 1
            assert len({answer["fraud_probability"] for answer in answers}) == 1


def test_a_shared_answer_is_believed_only_under_its_own_key(with_redis: Client, redis_server: RedisServer) -> None:
    first = with_redis.post("/predict", transaction("shared 1", amount=1.0)).body
    second = with_redis.post("/predict", transaction("shared 2", amount=9_000.0)).body
    with redis_server.client() as server:
        places = [f"{NAME}:answer:{{shared {number}}}" for number in (1, 2)]
        awaited(lambda: all(server.exists(place) for place in places))
        server.set(places[0], server.get(places[1]))
    # A worker that did not give the answer itself has only Redis and the journal to ask.
    pipe = RedisPipe(redis_server.url, SCRIPTS)
    assert asyncio.run(SharedAnswers(pipe, NAME, b"another secret").get(["shared 1", "shared 2"])) == [None, None]
    pipe.close()
    assert with_redis.post("/predict", transaction("shared 1", amount=1.0)).body == {**first, "replayed": True}
    assert with_redis.post("/predict", transaction("shared 2", amount=9_000.0)).body == {**second, "replayed": True}


def test_sigterm_finishes_what_was_accepted(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    read: list[Any] = []
    with processes(settings, tmp_path) as (process, client), ThreadPoolExecutor(4) as pool:
        begun = threading.Semaphore(0)

        def load(lane: int) -> None:
            mine = Client(client.port)
            with suppress(OSError, Exception):
                for number in range(10_000):
                    read.append(mine.post("/predict", transaction(f"s{lane} {number}")))
                    begun.release()

        for lane in range(4):
            pool.submit(load, lane)
        for _ in range(100):
            begun.acquire(timeout=30)
        assert process.stop() in (0, -signal.SIGTERM)
    assert {found.status for found in read} == {200}
    kept = journal.connect(settings.platform.journal)
    assert kept.verify().count >= len(read)
    kept.close()


def second_version(tmp_path: Path) -> Job:
    """A job of its own with one version in production and a second, of other rounds, that is not."""
    job = run(small_job(tmp_path))
    other = small_job(tmp_path, model={"parameters": {"xgb": {"rounds": 5, "max_depth": 2}}, "search": {"xgb": [{}]}})
    train.from_snapshot(other_with_data(other), None)
    return job


def other_with_data(job: Job) -> Job:
    job.records["data"] = {}
    return job


def releases(job: Job) -> Releases:
    return Releases(NAME, job.platform.ledger, lambda: job.platform.registry)


def test_a_promotion_is_served_within_two_seconds_and_changes_no_answer_given(tmp_path: Path) -> None:
    job = second_version(tmp_path)
    assert job.platform.registry.find(NAME, "production").number == 1
    with serving(settings_of(job, tmp_path)) as client:
        first = client.post("/predict", transaction("before")).body
        explained = client.post("/explain", {"decision_id": first["decision_id"]}).body
        stop = threading.Event()
        answers: list[Any] = []

        def load() -> None:
            mine = Client(client.port)
            for number in range(10**9):
                if stop.is_set():
                    return
                answers.append(mine.post("/predict", transaction(f"swap {number}")))

        thread = threading.Thread(target=load)
        thread.start()
        releases(job).promote(2, "ada", "it is better")
        began = time.monotonic()
        awaited(lambda: client.get("/model").body["version"] == 2)
        assert time.monotonic() - began < 2
        stop.set()
        thread.join()
        assert {found.status for found in answers} == {200}
        versions = [found.body["model"]["version"] for found in answers]
        assert versions == sorted(versions)
        assert client.post("/predict", transaction("before")).body == {**first, "replayed": True}
        assert client.post("/explain", {"decision_id": first["decision_id"]}).body == explained
        after = client.post("/predict", transaction("after", amount=40.5)).body
        assert after["model"]["version"] == 2


def test_a_broken_version_leaves_the_old_one_serving_and_is_told(tmp_path: Path) -> None:
    job = second_version(tmp_path)
    broken = job.platform.registry.find(NAME, 2)
    folder = job.platform.tracking.client.get_run(broken.run_id).info.artifact_uri
    card = Path(folder.removeprefix("file://")) / "model" / "card.json"
    card.write_text(card.read_text().replace("review", "revue", 1))
    with serving(settings_of(job, tmp_path)) as client:
        releases(job).promote(2, "ada", "it looks good")
        awaited(lambda: client.get("/ready").body["problem"] is not None)
        said = client.get("/ready")
        assert (said.status, said.body["version"]) == (200, 1)
        assert "card.json is missing or not what was written" in said.body["problem"]
        assert client.post("/predict", transaction("still")).body["model"]["version"] == 1


def test_without_registry_and_ledger_the_version_served_last_is_served(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        assert client.post("/predict", transaction("with")).status == 200
    nowhere = "postgresql://nobody@127.0.0.1:9/nothing"
    unreachable = settings_of(finished, tmp_path, platform={"tracking": "http://127.0.0.1:9", "ledger": nowhere})
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with serving(unreachable) as client:
            assert client.post("/predict", transaction("without")).body["model"]["version"] == 1
            assert client.get("/ready").body["problem"] is not None


def test_a_ledger_that_goes_away_in_flight_is_told_and_stops_no_answer(finished: Job, tmp_path: Path) -> None:
    there = Path(finished.settings.platform.ledger.removeprefix("sqlite:///"))
    store = tmp_path / "ledger.db"
    with sqlite3.connect(there) as source, sqlite3.connect(store) as copy:
        source.backup(copy)
    with serving(settings_of(finished, tmp_path, platform={"ledger": f"sqlite:///{store}"})) as client:
        assert client.post("/predict", transaction("with")).status == 200
        whole_store = store.read_bytes()
        store.write_bytes(b"this is no database" * 1_000)
        awaited(lambda: client.get("/ready").body["problem"] is not None)
        assert client.get("/ready").status == 200
        assert client.post("/predict", transaction("without")).body["model"]["version"] == 1
        store.write_bytes(whole_store)
        awaited(lambda: client.get("/ready").body["problem"] is None)


def test_the_clock_never_goes_back() -> None:
    times = iter([5_000, 9_000, 2_000, 10_000])
    clock = Clock(lambda: next(times))
    assert [clock.now() for _ in range(4)] == [5, 9, 9, 10]


def test_an_entry_is_masked_in_no_journal_but_in_every_log_whose_lines_name_the_request(
    finished: Job, tmp_path: Path
) -> None:
    card = "4111111111111111"
    settings = settings_of(finished, tmp_path)
    with processes(settings, tmp_path) as (_, client):
        decided = client.post("/predict", transaction("masked", customer_id=card)).body
        assert seen(client, decided)["transaction"]["customer_id"] == card
        client.post("/predict", transaction("masked", customer_id=card, amount=1.0))
        client.post("/predict", {**transaction("bad"), "customer_id": card, "amount": card})
        exposed = client.get("/metrics").body.decode() + json.dumps(client.get("/ready").body)
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        refused = [
            client.post("/predict", transaction("locked"), **{"X-Request-ID": name}) for name in ("shop-1", card)
        ]
        other.close()
        assert [found.status for found in refused] == [503, 503]
        named = client.post("/predict", transaction("locked")).body["decision_id"]
    written_down = (tmp_path / "serve.log").read_text()
    assert card not in written_down + exposed
    lines = [json.loads(line) for line in written_down.splitlines()]
    told = [line for line in lines if line["message"] == "not decided"]
    assert [line["request_id"] for line in told] == ["shop-1", "[card]"]
    assert {(line["level"], line["decision_id"], line["version"]) for line in told} == {("error", named, 1)}
    assert all("locked" in line["reason"] for line in told)
    assert "the traffic changes" in [line["message"] for line in lines]
