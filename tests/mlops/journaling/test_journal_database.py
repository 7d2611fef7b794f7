"""The journal's database, broken in each way that it breaks: what it says, and that it goes on afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops.errors import BadConfiguration, Damaged, MlopsError, OutOfSpace, StorageFailed, Unreachable
from mlops.journaling import journal
from mlops.journaling.journal import Journal
from tests.conftest import ROOT
from tests.mlops.journaling.test_journal import ENTRY, entry
from tests.test_faults import awaited


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Journal]:
    opened = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    yield opened
    opened.close()


@contextlib.contextmanager
def held(opened: Journal, *statements: str) -> Iterator[None]:
    """Another connection that has begun something."""
    engine = sa.create_engine(opened._engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        for statement in statements:
            other.exec_driver_sql(statement)
        yield
        other.exec_driver_sql("ROLLBACK")
    engine.dispose()


@pytest.fixture
def served(postgres: Callable[[], str]) -> Iterator[Journal]:
    opened = journal.connect(postgres())
    yield opened
    opened.close()


def test_a_locked_file_says_so_and_goes_on_afterwards(embedded: Journal) -> None:
    with held(embedded, "BEGIN EXCLUSIVE"), pytest.raises(Unreachable, match="locked"):
        embedded.append([entry("a")])
    assert embedded.append([entry("a")])[0].fresh
    assert embedded.verify().count == 1


def test_a_locked_server_says_so_and_goes_on_afterwards(served: Journal) -> None:
    with held(served, "BEGIN", "LOCK journal_head"), pytest.raises(Unreachable, match="timeout"):
        served.append([entry("a")])
    assert served.append([entry("a")])[0].fresh


def test_a_writer_that_stops_in_the_middle_does_not_hold_up_the_others(served: Journal) -> None:
    stopped = served._engine.raw_connection()
    stopped.cursor().execute("BEGIN; SELECT count FROM journal_head FOR UPDATE")
    for _ in range(3):
        with contextlib.suppress(Unreachable):
            if served.append([entry("a")])[0].row.sequence:
                break
    assert served.find(entry("a").id) is not None
    stopped.invalidate()


def test_a_connection_that_the_server_cut_is_made_anew(served: Journal) -> None:
    served.append([entry("a")])
    with served._engine.connect() as other:
        other.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert served.append([entry("b")])[0].fresh
    assert served.verify().count == 2


def test_a_transaction_that_stood_still_for_too_long_is_begun_anew(served: Journal) -> None:
    """A process that got no time in the middle of its transaction: the server ended it meanwhile."""
    insert, first = served._database.insert, [True]

    def late(cursor: Any, rows: Sequence[tuple[Any, ...]]) -> None:
        if first:
            first.clear()
            awaited(lambda: backends(served) == 0)
        insert(cursor, rows)

    served._database = replace(served._database, insert=late)
    assert served.append([entry("a")])[0].fresh
    assert served.verify().count == 1


def backends(opened: Journal) -> int:
    """How many connections are in the middle of a transaction."""
    with opened._engine.connect() as other:
        idle = other.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%%'"
        )
        return int(idle.scalar_one())


def test_a_server_that_falls_silent_is_left_in_time(served: Journal) -> None:
    """It accepted the connection, and its kernel still answers for it: only a limit of our own ends the wait."""
    served.append([entry("a")])
    cursor = served._writer.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    silent = cursor.fetchone()[0]
    os.kill(silent, signal.SIGSTOP)
    try:
        assert served.append([entry("b")])[0].fresh
    finally:
        os.kill(silent, signal.SIGCONT)
    assert served.verify().count == 2


def test_a_server_commits_to_its_disk_whatever_its_default(postgres: Callable[[], str]) -> None:
    url = postgres()
    opened = journal.connect(url)
    with opened._engine.connect() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    opened.close()
    with opened._engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    assert opened.append([entry("a")])[0].fresh
    opened.close()


FULL = f"""{ENTRY}
import resource, signal
from mlops.errors import StorageFailed
opened = journal.connect(sys.argv[1])
opened.append([entry("before", "x" * 1000)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
written = 0
try:
    while True:
        opened.append([entry("n" + str(written), "x" * 5000)])
        written += 1
except StorageFailed:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert opened.append([entry("after")])[0].fresh
assert opened.find(entry("n" + str(written)).id) is None
print(opened.verify().count == written + 2)
"""


def test_a_file_that_cannot_grow_loses_nothing_and_goes_on_when_it_can(tmp_path: Path) -> None:
    """In a process that may write no larger files."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, f"sqlite:///{tmp_path}/journal.db"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True"], done.stderr


def test_a_database_that_may_not_grow_is_out_of_space(embedded: Journal) -> None:
    embedded.append([entry("a")])
    embedded._writer.cursor().execute("PRAGMA max_page_count = 20")
    with pytest.raises(OutOfSpace, match="no space"):
        for number in range(100):
            embedded.append([entry(str(number), "x" * 3_000)])
    assert embedded.append([entry("b")])[0].fresh
    assert embedded.verify().count > 1


def test_a_file_removed_under_a_writer_is_no_place_to_write_to(embedded: Journal, tmp_path: Path) -> None:
    embedded.append([entry("a")])
    (tmp_path / "aside").mkdir()
    for file in tmp_path.glob("journal.db*"):
        file.rename(tmp_path / "aside" / file.name)
    with pytest.raises(StorageFailed, match="removed or replaced"):
        embedded.head()
    with pytest.raises(StorageFailed, match="removed or replaced"):
        embedded.append([entry("b")])
    with pytest.raises(StorageFailed):
        embedded.append([entry("b")])
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    for file in (tmp_path / "aside").iterdir():
        file.rename(tmp_path / file.name)
    assert embedded.append([entry("b")])[0].fresh
    assert embedded.verify().count == 2


def test_a_file_replaced_by_another_journal_is_seen(embedded: Journal, tmp_path: Path) -> None:
    embedded.append([entry("a")])
    other = journal.connect(f"sqlite:///{tmp_path}/other.db")
    other.append([entry("x"), entry("y")])
    other.close()
    for file in tmp_path.glob("journal.db-*"):
        file.unlink()
    (tmp_path / "other.db").rename(tmp_path / "journal.db")
    with pytest.raises(StorageFailed, match="removed or replaced"):
        embedded.append([entry("b")])
    assert embedded.append([entry("b")])[0].row.sequence == 3
    assert embedded.verify().count == 3


def test_a_file_overwritten_with_anything_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database, whatever its name" * 100)
    with pytest.raises(Damaged):
        journal.connect(f"sqlite:///{tmp_path}/journal.db")
    with pytest.raises(MlopsError):
        journal.connect("sqlite:////proc/nowhere/journal.db")
    with pytest.raises(MlopsError):
        journal.connect(f"sqlite:///{tmp_path}")


def test_a_page_of_the_file_overwritten_with_noise_is_damage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    opened = journal.connect(url)
    opened.append([entry(str(number), "x" * 700) for number in range(200)])
    opened.close()
    found = 0
    whole = (tmp_path / "journal.db").read_bytes()
    for page in range(1, len(whole) // 4_096):
        noise = bytearray(whole)
        noise[page * 4_096 : (page + 1) * 4_096] = bytes(reversed(range(256))) * 16
        (tmp_path / "noise.db").write_bytes(noise)
        try:
            opened = journal.connect(f"sqlite:///{tmp_path}/noise.db")
            assert opened.verify().count == 200
            opened.close()
        except Damaged:
            found += 1
    # Pages of the indexes hold nothing that a walk of the chain reads.
    assert found > 30


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense", "mysql://host/x", "sqlite://", "", "postgresql://host", "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true", "postgresql://me:secret@host:port/x",
    ],
)  # fmt: skip
def test_what_is_no_lasting_journals_url_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(BadConfiguration, match="sqlite:///FILE or postgresql://") as caught:
        journal.connect(wrong)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unreachable) as caught:
        journal.connect("postgresql://me:secret@127.0.0.1:9/journal")
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)
