"""MLflow behind our door: runs, versions and aliases, in a SQLite file and through a real server that keeps files."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops.errors import BadInput, NotFound, Unreachable
from mlops.releasing import tracking
from mlops.releasing.registry import Registry
from mlops.releasing.tracking import Tracking
from tests.conftest import ROOT

WAIT = 90


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running MLflow server that keeps files itself, so that its clients need no keys to any store."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += [
        "--artifacts-destination",
        f"{folder}/files",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + WAIT
        while not healthy(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
        yield url
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(params=["sqlite", "http"])
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Tracking:
    if request.param == "sqlite":
        return tracking.connect(f"sqlite:///{tmp_path}/deep/mlflow.db", str(tmp_path / "files"))
    return tracking.connect(request.getfixturevalue("server"), "ignored")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model and experiment of the test's own, because the server is shared."""
    return f"m{abs(hash(request.node.nodeid))}"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.json"
    path.write_bytes(b'{"a": 1}\r\n')
    return path


class TestBothStores:
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


def test_processes_that_open_one_new_store_at_once_all_succeed(tmp_path: Path) -> None:
    program = f"""
from mlops.releasing import tracking
with tracking.connect("sqlite:///{tmp_path}/mlflow.db", "{tmp_path}/files").run("same", {{}}) as run:
    run.metrics({{"x": 1.0}})
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=WAIT)
        assert process.returncode == 0, errors.decode()
    client = tracking.connect(f"sqlite:///{tmp_path}/mlflow.db", "").client
    experiment = client.get_experiment_by_name("same")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3


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


def test_a_server_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(Unreachable, match="MLflow's store failed: .*check platform.tracking") as caught:
        tracking.connect("http://127.0.0.1:9", "")
    assert "\n" not in str(caught.value)


def test_a_damaged_store_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Unreachable, match="file is not a database"):
        tracking.connect(f"sqlite:///{tmp_path}/mlflow.db", "")
