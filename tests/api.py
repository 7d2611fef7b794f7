"""The API for tests: in this process for most, in processes of its own where they are to be killed."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from uvicorn import Server

from mlops.serving.app import Door
from mlops.serving.listening import bind, configured
from modules.fraud_detection import serve
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import Settings
from tests.conftest import ROOT, small_settings

READY_SECONDS = 60


class Answered(NamedTuple):
    """An answer as it came."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Client:
    """Asks one address; `connection` may be kept for speed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answered:
        """Send one request over a kept connection; `body` is bytes or becomes JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kept = self._connection is not None
        try:
            response, raw = self._once(method, path, data, headers or {})
        except (OSError, http.client.HTTPException):
            self.close()
            if not kept:
                raise
            # The server lets idle connections go.
            response, raw = self._once(method, path, data, headers or {})
        found = {name.lower(): value for name, value in response.getheaders()}
        if found.get("content-type", "").startswith("application/json"):
            return Answered(response.status, json.loads(raw), found)
        return Answered(response.status, raw, found)

    def _once(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._connection.request(method, path, data, dict(headers))
        response = self._connection.getresponse()
        return response, response.read()

    def post(self, path: str, body: Any, **headers: str) -> Answered:
        """Send a POST."""
        return self.ask("POST", path, body, headers)

    def get(self, path: str, **headers: str) -> Answered:
        """Send a GET."""
        return self.ask("GET", path, None, headers)

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, such as `cache_hits_total`."""
        for found in self.get("/metrics").body.decode().splitlines():
            if found.startswith(f"{line} "):
                return float(found.rsplit(" ", 1)[1])
        raise KeyError(line)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until /ready says so."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError, http.client.HTTPException):
                found = self.get("/ready")
                if found.status == 200:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("the API did not become ready")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def settings_of(job: Job, folder: Path, **groups: Any) -> Settings:
    """Settings that serve what a job made, with a journal of their own in `folder`."""
    platform = job.settings.platform.model_dump() | {"journal": f"sqlite:///{folder}/journal.db"}
    return small_settings(folder, **{**groups, "platform": platform | groups.get("platform", {})})


@contextmanager
def serving(settings: Settings) -> Iterator[Client]:
    """Serve in this process, in a thread, until the block ends."""
    with answering(serve.application(settings), settings.serving.idle_seconds) as client:
        yield client


@contextmanager
def answering(application: Door, idle_seconds: int) -> Iterator[Client]:
    """Let any module's application answer, in this process, in a thread, until the block ends."""
    socket = bind("127.0.0.1", 0)
    server = Server(configured(lambda: application, 1, idle_seconds))
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    client = Client(socket.getsockname()[1])
    try:
        client.wait_ready()
        yield client
    finally:
        client.close()
        server.should_exit = True
        thread.join(20)


class Process:
    """`python -m modules.fraud_detection serve`, in a folder, on a free port that it keeps."""

    def __init__(self, settings: Settings, folder: Path, workers: int = 1, *options: str) -> None:
        platform = settings.platform.model_dump()
        # It is killed in the end, so what it covers would never be told, and slow it down for nothing.
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "COVERAGE_"))},
            **{f"MLOPS_PLATFORM__{name.upper()}": value for name, value in platform.items()},
            "PYTHONPATH": str(ROOT),
        }
        self._folder, self._port = folder, 0
        self._options = ["--workers", str(workers), *options]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Client:
        """Start, and wait until it is ready."""
        command = [sys.executable, "-m", "modules.fraud_detection", "serve", "--port", str(self._port)]
        with (self._folder / "serve.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self._options], cwd=self._folder, env=self._environment, text=True,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "http://" in line, (self._folder / "serve.log").read_text()
        self._port = int(line.split("//")[1].split(":")[1].split()[0])
        client = Client(self._port)
        client.wait_ready()
        return client

    @property
    def pid(self) -> int:
        """The first process."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """The worker processes."""
        found = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False).stdout
        lines = {
            int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in found.split() if Path(f"/proc/{pid}").exists()
        }
        return [pid for pid, line in lines.items() if "spawn_main" in line]

    def kill(self) -> None:
        """End it and its workers at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def stop(self) -> int:
        """Ask it to end, and wait until it has; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


@contextmanager
def processes(settings: Settings, folder: Path, workers: int = 1, *options: str) -> Iterator[tuple[Process, Client]]:
    """Serve in processes until the block ends."""
    process = Process(settings, folder, workers, *options)
    try:
        yield process, process.start()
    finally:
        process.kill()


def children(process: int, named: str) -> list[int]:
    """The processes that a process started and whose command holds a name."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    started = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in started if named.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]
