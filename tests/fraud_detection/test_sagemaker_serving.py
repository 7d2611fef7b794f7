"""Serving as a SageMaker container: the version in /opt/ml/model alone, and the same decisions as through any door."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from uvicorn import Server

from mlops.journaling import journal
from mlops.journaling.labels import decode_record
from mlops.releasing import packed
from mlops.releasing.packed import Packed
from mlops.releasing.registry import STAGE, Version
from mlops.serving.api import Reach
from mlops.serving.listening import bind, configured
from modules.fraud_detection import serve
from modules.fraud_detection.__main__ import main
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME, Settings
from tests.api import READY_SECONDS, Answered, Client, processes, serving, settings_of

NOWHERE = {"ledger": "sqlite:////proc/nowhere/ledger.db", "tracking": "http://127.0.0.1:9"}
"""A ledger and a registry that cannot be opened."""


@pytest.fixture
def opt_ml(finished: Job, tmp_path: Path) -> Path:
    """What SageMaker lays out before it starts a container that serves version 1."""
    with finished.platform.objects.download(packed.key(NAME, 1)) as archive:
        packed.unpack(archive, tmp_path / "ml" / "model")
    return tmp_path / "ml"


@contextmanager
def container(settings: Settings, opt_ml: Path) -> Iterator[Client]:
    """Serve in this process what is packed, on a free port that stands for SageMaker's, until the block ends."""
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    application = serve.application(settings, Reach("127.0.0.1", 0, 1, port), Packed(opt_ml / "model"))
    server = Server(configured(lambda: application, 1, settings.serving.idle_seconds))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    client = Client(port)
    try:
        pinged(client, lambda _: True)
        yield client
    finally:
        client.close()
        server.should_exit = True
        thread.join(20)


def pinged(client: Client, done: Callable[[Answered], bool]) -> Answered:
    """Ask /ping, as SageMaker does, until it is so."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if done(found := client.get("/ping")):
                return found
    raise TimeoutError("the container does not become what it is to be")


def is_ready(found: Answered) -> bool:
    return found.status == 200


def transaction(id_: str, **changed: Any) -> dict[str, Any]:
    """A transaction shortly after the simulated ones."""
    values = {
        "transaction_id": id_, "timestamp": "2025-03-13T10:00:00", "customer_id": 7, "terminal_id": 11, "amount": 40.5,
    }  # fmt: skip
    return values | changed


TRANSACTIONS = [
    transaction(f"t{number}", customer_id=number % 7, terminal_id=number % 5, amount=3.7 * 1.4**number,
                timestamp=f"2025-03-13T{number:02d}:00:00")
    for number in range(20)
]  # fmt: skip


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, named as SageMaker names it where a container is one of several."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        free = int(probe.getsockname()[1])
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(free))
    return free


def entry(client: Client, decided: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal holds of a decision, but for the time that it took."""
    body: dict[str, Any] = client.get(f"/decisions/{decided['decision_id']}").body
    return {name: value for name, value in body.items() if name != "took_microseconds"}


def test_a_container_started_with_serve_says_what_the_other_door_says(
    finished: Job, opt_ml: Path, tmp_path: Path, port: int
) -> None:
    """Two journals, so that nothing is repeated: ids, scores, decisions and what the journals hold are equal."""
    with serving(settings_of(finished, tmp_path)) as client:
        said = [client.post("/predict", one).body for one in TRANSACTIONS]
        held = [entry(client, one) for one in said]
    own = tmp_path / "container"
    own.mkdir()
    with processes(settings_of(finished, own, platform=NOWHERE), own, 1, "--opt-ml", str(opt_ml)) as (process, inside):
        sage = Client(port)
        assert sage.get("/ping").status == sage.get("/metrics").status == 200
        assert sage.get("/ping").body == {"ready": True, "version": 1, "problem": None}
        assert [sage.post("/invocations", one).body for one in TRANSACTIONS] == said
        again = sage.post("/invocations", {"transactions": TRANSACTIONS}).body["results"]
        assert again == [{**one, "replayed": True} for one in said]
        assert [entry(inside, one) for one in said] == held
        assert sage.post("/predict", TRANSACTIONS[0]).status == 404
        sage.close()
        assert process.stop() in (0, -signal.SIGTERM)
    # Neither of the two that cannot be opened was asked for, not even at the end.
    assert "nowhere" not in (own / "serve.log").read_text()
    assert not list(own.rglob("ledger.db")) + list(own.rglob("mlflow.db"))
    assert said[0]["model"] == {"name": NAME, "version": 1, "arm": "production"}


def test_over_the_journal_of_another_door_an_answer_is_that_doors_answer(
    finished: Job, opt_ml: Path, tmp_path: Path
) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        first = client.post("/predict", transaction("both")).body
    with container(settings, opt_ml) as sage:
        pinged(sage, is_ready)
        assert sage.post("/invocations", transaction("both")).body == {**first, "replayed": True}
        assert sage.post("/invocations", transaction("both", amount=41.0)).status == 409
        second = sage.post("/invocations", transaction("second")).body
    with serving(settings) as client:
        assert client.post("/predict", transaction("second")).body == {**second, "replayed": True}


def test_a_model_that_no_registry_knows_has_number_0_and_its_own_hash_and_configuration(
    finished: Job, opt_ml: Path, tmp_path: Path
) -> None:
    tags = dict(Packed(opt_ml / "model").version.tags) | {"configuration": "of the job"}
    packed.label(opt_ml / "model", Version(NAME, packed.UNREGISTERED, "", tags))
    settings = settings_of(finished, tmp_path, platform=NOWHERE)
    with container(settings, opt_ml) as sage:
        assert pinged(sage, is_ready).body["version"] == 0
        said = sage.post("/invocations", transaction("straight from the job")).body
    assert said["model"] == {"name": NAME, "version": 0, "arm": "production"}
    row = journal.connect(settings.platform.journal).find(bytes.fromhex(said["decision_id"]))
    assert row is not None
    kept = decode_record(row.entry.body).model
    assert (kept.hash, kept.configuration) == (finished.records["train"]["model"], "of the job")


def test_the_canned_transaction_by_which_an_endpoint_is_tried_out_is_decided_as_this_version(
    finished: Job, opt_ml: Path, tmp_path: Path
) -> None:
    canned = json.loads((opt_ml / "model" / "canned.json").read_text())["transaction"]
    with container(settings_of(finished, tmp_path, platform=NOWHERE), opt_ml) as sage:
        pinged(sage, is_ready)
        first = sage.post("/invocations", canned)
        assert first.status == 200
        assert (first.body["model"]["version"], first.body["replayed"]) == (1, False)
        assert sage.post("/invocations", canned).body["replayed"] is True


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "manifest.json"])
def test_a_changed_byte_leaves_the_container_without_a_model_and_ping_says_why(
    finished: Job, opt_ml: Path, tmp_path: Path, name: str
) -> None:
    file = opt_ml / "model" / name
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    with container(settings_of(finished, tmp_path, platform=NOWHERE), opt_ml) as sage:
        found = pinged(sage, lambda found: "fetch" in str(found.body["problem"]))
        assert found.status == 503
        assert found.body["version"] is None
        assert sage.post("/invocations", transaction("too early")).status == 503
        assert sage.get("/metrics").status == 200


def test_files_that_are_whole_but_not_those_of_the_version_are_not_served(
    finished: Job, opt_ml: Path, tmp_path: Path
) -> None:
    tags = dict(Packed(opt_ml / "model").version.tags) | {"model_hash": "0" * 64}
    packed.label(opt_ml / "model", Version(NAME, 1, "", tags))
    with container(settings_of(finished, tmp_path, platform=NOWHERE), opt_ml) as sage:
        found = pinged(sage, lambda found: "another hash" in str(found.body["problem"]))
        assert (found.status, found.body["version"]) == (503, None)


@pytest.mark.parametrize("text", [None, "{}", '{"name": "fraud_detection", "number": "1"}'])
def test_a_model_that_does_not_say_which_version_it_is_ends_the_container_with_one_line(
    opt_ml: Path, port: int, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    page = opt_ml / "model" / packed.FILE
    page.unlink()
    if text is not None:
        page.write_text(text)
    assert main(["serve", "--port", "0", "--opt-ml", str(opt_ml)]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert str(page) in printed.err


def test_the_archive_of_a_version_holds_what_the_registry_holds(finished: Job, opt_ml: Path, tmp_path: Path) -> None:
    version, found = finished.platform.registry.find(NAME, 1), Packed(opt_ml / "model").version
    fetched = finished.platform.registry.fetch(version, tmp_path / "registry")
    assert (found.name, found.number, found.run_id) == (version.name, version.number, version.run_id)
    assert found.tags == {name: text for name, text in version.tags.items() if name != STAGE}
    names = {path.name for path in (opt_ml / "model").iterdir()}
    assert {*json.loads((fetched / "manifest.json").read_text()), "manifest.json", packed.FILE} == names
    for name in names - {packed.FILE}:
        assert (opt_ml / "model" / name).read_bytes() == (fetched / name).read_bytes(), name
