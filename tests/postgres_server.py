"""A real PostgreSQL for tests, with an empty database for each."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from tests.services import missing


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server; where there is none the test is skipped, and in CI it fails."""
    if find_spec("pgserver"):
        with wheels_server(tmp_path_factory.mktemp("pg")) as url:
            yield url
    elif shutil.which("initdb") and shutil.which("postgres"):
        with path_server() as url:
            yield url
    else:
        missing("there is no PostgreSQL")


@pytest.fixture
def postgres(postgres_server: str) -> Callable[[], str]:
    """Makes empty databases and gives their URLs."""

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres_server.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    make: Callable[[], str] = request.getfixturevalue("postgres")
    return make()


@contextlib.contextmanager
def wheels_server(folder: Path) -> Iterator[str]:
    """The server of the `pgserver` package."""
    # The package asks for the user's runtime folder when it is imported, and warns where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from pgserver.postgres_server import get_server

    server = get_server(folder / "data")
    yield server.get_uri()
    server.cleanup()


@contextlib.contextmanager
def path_server() -> Iterator[str]:
    """The server on the PATH, in a folder that its user can reach: it does not run as root."""
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        make = ["initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8"]
        subprocess.run(make, user=user, check=True, stdout=said, stderr=said, cwd=folder)
        run = ["postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        with subprocess.Popen(run, user=user, stdout=said, stderr=said, cwd=folder) as server:
            url = f"postgresql://postgres:@/postgres?host={folder}"
            _await(url)
            yield url
            server.send_signal(signal.SIGINT)


def _await(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
