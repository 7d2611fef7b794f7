"""MLflow behind our door: runs, versions and aliases, in both kinds of database and through a real server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
import psycopg
import pytest
from mlflow.exceptions import MlflowException

from mlops.errors import BadInput, NotFound, Unreachable
from mlops.releasing import tracking
from mlops.releasing.registry import Registry
from mlops.releasing.tracking import Tracking
from tests.conftest import ROOT

WAIT = 90
AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


class Server:
    """An MLflow server that keeps files itself, so that its clients need no keys to any store."""

    def __init__(self, folder: Path, files: str, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", files, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        ]

    def start(self) -> None:
        """Start, and wait until it answers."""
        deadline = time.monotonic() + WAIT
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        while not healthy(self.url):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()

    def end(self, by: signal.Signals) -> None:
        """End it and what it started."""
        os.killpg(self._process.pid, by)
        self._process.wait()


@contextmanager
def running(folder: Path, files: str, environment: Mapping[str, str]) -> Iterator[Server]:
    server = Server(folder, files, environment)
    server.start()
    try:
        yield server
    finally:
        server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with a folder of files."""
    folder = tmp_path_factory.mktemp("mlflow")
    with running(folder, f"{folder}/files", os.environ) as started:
        yield started


@pytest.fixture(scope="module")
def database(postgres_server: str) -> str:
    """The URL of a database for all tests of this file: its tables take MLflow seconds to make."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    return postgres_server.replace("/postgres?", "/mlflow?")


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(params=["sqlite", "postgresql", "http"])
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Tracking:
    if request.param == "sqlite":
        return tracking.connect(f"sqlite:///{tmp_path}/deep/mlflow.db", str(tmp_path / "files"))
    if request.param == "postgresql":
        return tracking.connect(request.getfixturevalue("database"), str(tmp_path / "files"))
    return tracking.connect(request.getfixturevalue("server").url, "ignored")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model and experiment of the test's own, because the servers are shared."""
    return f"m{abs(hash(request.node.nodeid))}"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.json"
    path.write_bytes(b'{"a": 1}\r\n')
    return path


class TestEveryStore:
    def test_what_a_run_logs_comes_back(self, connected: Tracking, name: str, page: Path, tmp_path: Path) -> None:
        with connected.run(name, {"snapshot": "abc"}) as run:
            run.parameters({"depth": 3, "long": "x" * 900})
            run.metrics({"average_precision": 0.25})
            run.file(page, "run")
        found = connected.client.get_run(run.run_id)
        assert found.info.status == "FINISHED"
        assert found.data.params == {"depth": "3", "long": "x" * 500}
        assert found.data.metrics == {"average_precision": 0.25}
        assert found.data.tags["snapshot"] == "abc"
        copied = connected.client.download_artifacts(run.run_id, "run/page.json", str(tmp_path))
        assert Path(copied).read_bytes() == page.read_bytes()

    def test_a_run_whose_block_fails_is_marked_failed(self, connected: Tracking, name: str) -> None:
        with pytest.raises(BadInput, match="planted"), connected.run(name, {}) as run:
            raise BadInput("planted")
        assert connected.client.get_run(run.run_id).info.status == "FAILED"

    def test_versions_are_numbered_aliased_and_fetched_byte_by_byte(
        self, connected: Tracking, name: str, page: Path, tmp_path: Path
    ) -> None:
        registry, versions = Registry(connected.client), []
        for _ in range(2):
            with connected.run(name, {}) as run:
                run.file(page, "model")
            versions.append(registry.register(name, run.run_id, {"model_hash": "f00"}))
        assert [version.number for version in versions] == [1, 2]
        registry.call(name, {"production": 1})
        registry.call(name, {"production": 2, "previous": 1})
        found = registry.find(name, "production")
        assert found == registry.find(name, 2)
        assert (found.number, found.tags["model_hash"], found.tags["stage"]) == (2, "f00", "production")
        registry.call(name, {"production": 1, "canary": 2})
        assert registry.find(name, "canary").number == 2
        assert registry.find(name, "canary").tags["stage"] == "canary"
        registry.call(name, {"production": 1})
        with pytest.raises(NotFound, match="'canary'"):
            registry.find(name, "canary")
        assert "stage" not in registry.find(name, 2).tags
        registry.call(name, {"production": 2})
        home = registry.fetch(found, tmp_path / "fetched")
        assert (home / "page.json").read_bytes() == page.read_bytes()

    def test_a_version_that_is_not_there_is_named_with_the_way_out(self, connected: Tracking, name: str) -> None:
        registry = Registry(connected.client)
        with pytest.raises(NotFound, match=f"no version of '{name}' is called 'production'; make one: python -m"):
            registry.find(name, "production")
        with connected.run(name, {}) as run:
            pass
        registry.register(name, run.run_id, {})
        with pytest.raises(NotFound, match="is numbered 7"):
            registry.find(name, 7)
        with pytest.raises(NotFound, match="is called 'canary'"):
            registry.find(name, "canary")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_open_one_new_store_at_once_all_succeed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/mlflow.db"
    if kind == "postgresql":
        make: Callable[[], str] = request.getfixturevalue("postgres")
        url = make()
    program = f"""
from mlops.releasing import tracking
with tracking.connect({url!r}, "{tmp_path}/files").run("same", {{}}) as run:
    run.metrics({{"x": 1.0}})
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=WAIT)
        assert process.returncode == 0, errors.decode()
    client = tracking.connect(url, "").client
    experiment = client.get_experiment_by_name("same")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_a_server_that_was_killed_and_started_again_has_runs_versions_and_files(
    server: Server, name: str, page: Path, tmp_path: Path
) -> None:
    before = tracking.connect(server.url, "")
    with before.run(name, {"snapshot": "abc"}) as run:
        run.metrics({"average_precision": 0.25})
        run.file(page, "model")
    version = Registry(before.client).register(name, run.run_id, {"model_hash": "f00"})
    Registry(before.client).call(name, {"production": 1})
    server.end(signal.SIGKILL)
    assert not healthy(server.url)
    server.start()
    again = tracking.connect(server.url, "")
    found = again.client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"average_precision": 0.25})
    assert found.data.tags["snapshot"] == "abc"
    assert Registry(again.client).find(name, "production").number == version.number == 1
    home = Registry(again.client).fetch(version, tmp_path / "fetched")
    assert (home / "page.json").read_bytes() == page.read_bytes()


def test_a_server_keeps_files_in_a_bucket_to_which_its_clients_have_no_key(
    bucket: str, name: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, theirs = boto3.client("s3"), dict(os.environ)
    for variable in AWS:
        monkeypatch.delenv(variable)
    # Nor do they find one in a file, or ask the machine for one.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with running(tmp_path, f"s3://{bucket}/artifacts", theirs) as server:
        connected = tracking.connect(server.url, "")
        with connected.run(name, {}) as run:
            run.file(page, "model")
        version = Registry(connected.client).register(name, run.run_id, {})
        home = Registry(connected.client).fetch(version, tmp_path / "fetched")
    assert (home / "page.json").read_bytes() == page.read_bytes()
    (found,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"].startswith("artifacts/")
    assert found["Key"].endswith(f"/{run.run_id}/artifacts/model/page.json")
    assert s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read() == page.read_bytes()
    assert boto3.Session().get_credentials() is None


def test_a_relative_store_belongs_to_the_folder_it_was_opened_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        with tracking.connect("sqlite:///mlflow.db", "files").run("only here", {}):
            pass
    client = tracking.connect("sqlite:///mlflow.db", "files").client
    experiment = client.get_experiment_by_name("only here")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "postgresql://mlflow:hunter2@127.0.0.1:9/mlflow"])
def test_a_server_that_does_not_answer_is_one_clear_line_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    began = time.monotonic()
    with pytest.raises(Unreachable, match="MLflow's store failed: .*check platform.tracking") as caught:
        tracking.connect(url, "")
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_complaint_that_names_a_server_shows_the_name_of_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_STORE", "postgresql://mlflow:hunter2@127.0.0.1:9/mlflow")
    with pytest.raises(Unreachable):
        tracking.connect("secret://store", "")
    with pytest.raises(Unreachable, match="cannot use secret://store;") as caught, tracking.translated():
        raise MlflowException("cannot use postgresql+psycopg://mlflow:hunter2@127.0.0.1:9/mlflow")
    assert caught.value.__cause__ is None


def test_a_damaged_store_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Unreachable, match="file is not a database"):
        tracking.connect(f"sqlite:///{tmp_path}/mlflow.db", "")
