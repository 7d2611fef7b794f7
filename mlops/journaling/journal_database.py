"""Where the journal lives: its tables, in a SQLite file or on a PostgreSQL server, and what their complaints mean."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.abc import RV, PQGen
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from mlops.errors import BadConfiguration, Damaged, MlopsError, OutOfSpace, StorageFailed, Unreachable
from mlops.secrets import connected, resolve

PATIENCE = 2
"""Seconds to wait for a lock, a connection or a server."""
FIRST_HASH = bytes(32)
AT_ONCE = 64
"""Rows of one statement."""
SQLITE, SERVERS = "sqlite", ("postgresql", "postgresql+psycopg")
CUT = "08006"
"""The state that stands for a lost connection, where the server could not say any."""


class Raw(sa.LargeBinary):
    """Bytes as the driver gives them, so that what is no bytes is seen and does not stop the reader."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:  # noqa: ARG002 - the base class's words
        return None


metadata = sa.MetaData()
journal_table = sa.Table(
    "journal",
    metadata,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("id", Raw(16), nullable=False, unique=True),
    sa.Column("about", Raw(16)),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", Raw, nullable=False),
    sa.Column("hash", Raw(32), nullable=False),
)
about_index = sa.Index(
    "journal_about",
    journal_table.c.about,
    sqlite_where=journal_table.c.about.is_not(None),
    postgresql_where=journal_table.c.about.is_not(None),
)
# It holds the sequence too, so that a day's place in the chain is found without reading rows.
at_index = sa.Index("journal_at", journal_table.c.at, journal_table.c.sequence)
head_table = sa.Table(
    "journal_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("hash", Raw(32), nullable=False),
    sa.Column("secret", Raw(32), nullable=False),
)


ELSEWHERE = "the chain goes on elsewhere"
SQLITE_MOVES_HEAD = f"""
    CREATE TRIGGER IF NOT EXISTS journal_moves_head AFTER INSERT ON journal
    BEGIN
        UPDATE journal_head SET count = NEW.sequence, hash = NEW.hash WHERE count = NEW.sequence - 1;
        SELECT RAISE(ABORT, '{ELSEWHERE}') WHERE changes() = 0;
    END
"""  # noqa: S608 - fixed words
POSTGRESQL_INSERT = """
    WITH moved AS (UPDATE journal_head SET count = %s, hash = %s WHERE count = %s RETURNING one)
    INSERT INTO journal (sequence, kind, id, about, at, body, hash)
    SELECT given.* FROM moved, unnest(
        %s::bigint[], %s::varchar[], %s::bytea[], %s::bytea[], %s::bigint[], %s::bytea[], %s::bytea[]
    ) AS given
"""


class Patient(psycopg.Connection[Any]):
    """A connection that gives up on a server that took a question and does not answer, where its own limits fail."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for a reply."""
        return super().wait(gen, interval, PATIENCE + 1 if timeout is None else timeout)


class Taken(Exception):
    """The chain goes on elsewhere: another process wrote, or an id is there."""


@dataclass(frozen=True)
class Database:
    """How one kind of database does what the tables alone do not say.

    `insert` writes rows that follow each other and moves the head to the last of them in one statement, which fails
    where the head is not just before the first. `file` is where an embedded database lives.
    """

    begin: str
    read_head: str
    insert: Callable[[Any, Sequence[tuple[Any, ...]]], None]
    file: str | None


def database_of(engine: Engine) -> Database:
    """Return what is special of an engine's database."""
    read_head = str(sa.select(head_table.c.count, head_table.c.hash).with_for_update().compile(dialect=engine.dialect))
    if engine.dialect.name == "sqlite":
        return Database("BEGIN IMMEDIATE", read_head, _insert_sqlite, engine.url.database)
    return Database("BEGIN ISOLATION LEVEL READ COMMITTED", read_head, _insert_postgresql, None)


def open_engine(url: str) -> Engine:
    """Make the tables that are missing at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`, and open them."""
    parsed = _parsed(resolve(url))
    engine = _sqlite(parsed) if parsed.drivername == SQLITE else _postgresql(parsed, url)
    try:
        with engine.connect() as connection:
            _make_tables(connection)
    except (SQLAlchemyError, MlopsError) as error:
        engine.dispose()
        raise translated(error, parsed) from error
    return engine


def is_taken(error: Exception) -> bool:
    """Tell whether the database refused a row because its id or its place is taken."""
    return isinstance(error, (Taken, psycopg.errors.UniqueViolation)) or (
        isinstance(error, sqlite3.IntegrityError) and ("UNIQUE" in str(error) or ELSEWHERE in str(error))
    )


def is_cut(error: Exception) -> bool:
    """Tell whether the connection to a server was lost, or the server fell silent; it may have done what was asked."""
    if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
        return True
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate or CUT) in (CUT, "57P01", "57P02")


def translated(error: Exception, url: URL) -> MlopsError:
    """Turn a database's complaint into ours; the URL is shown without its password."""
    if isinstance(error, MlopsError):
        return error
    cause = getattr(error, "orig", None) or error
    text, where = " ".join(str(cause).split()), url.render_as_string(hide_password=True)
    if isinstance(cause, psycopg.errors.DiskFull) or "disk is full" in text:
        return OutOfSpace(f"no space is left for the journal {where}; make room, nothing was lost")
    if is_taken(cause):
        return Damaged(f"the journal {where} holds rows after its end; find them with verify and restore it")
    if any(sign in text for sign in ("malformed", "not a database", "Could not decode")):
        return Damaged(f"the journal {where} is damaged: {text}; restore it")
    if "locked" in text or isinstance(cause, (psycopg.OperationalError, sa.exc.TimeoutError)):
        return Unreachable(f"the journal {where} does not answer: {text}")
    return StorageFailed(f"the journal {where} failed: {text}")


def identity(file: str) -> tuple[int, int] | None:
    """Which file a path names now, if any."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a third of the time of Path.stat, in every commit
    except OSError:
        return None
    return found.st_dev, found.st_ino


@cache
def _rows_of_sqlite(count: int) -> str:
    marks = f"({', '.join(['?'] * len(journal_table.c))})"
    return f"INSERT INTO journal ({', '.join(journal_table.c.keys())}) VALUES {', '.join([marks] * count)}"  # noqa: S608 - fixed names


def _insert_sqlite(cursor: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    cursor.execute(_rows_of_sqlite(len(rows)), [value for row in rows for value in row])


def _insert_postgresql(cursor: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    cursor.execute(POSTGRESQL_INSERT, (columns[0][-1], columns[-1][-1], columns[0][0] - 1, *columns))
    if cursor.rowcount != len(rows):
        raise Taken


def _make_tables(connection: sa.Connection) -> None:
    """Make what is missing; of several processes that do it at once, one does."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(710215)")
    metadata.create_all(connection)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(SQLITE_MOVES_HEAD)
    if connection.execute(sa.select(head_table.c.one)).first() is None:
        # A new head for old rows would say that they were never written.
        if connection.execute(sa.select(journal_table.c.sequence).limit(1)).first() is not None:
            raise Damaged("the journal has lost its head; restore it")
        first = {"one": 1, "count": 0, "hash": FIRST_HASH, "secret": secrets.token_bytes(32)}
        connection.execute(head_table.insert().values(first))
    connection.exec_driver_sql("COMMIT")


def _parsed(url: str) -> URL:
    """Read the URL of a database that lasts. Raises `BadConfiguration`, and does not show it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = URL.create("none")
    lasting = parsed.database and parsed.database != ":memory:"
    if not lasting or parsed.drivername not in (SQLITE, *SERVERS) or (parsed.drivername == SQLITE and parsed.query):
        raise BadConfiguration(
            "platform.journal or platform.ledger is no database's URL; write sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/NAME"
        )
    return parsed


def _sqlite(url: URL) -> Engine:
    file = url.database or ""
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot use the folder of {file} for the journal: {error.strerror}") from None
    waiting = {"timeout": PATIENCE, "check_same_thread": False}
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_timeout=PATIENCE, connect_args=waiting)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # A checkpoint stops the commit that it falls into for some milliseconds: let few commits meet one.
        connection.execute("PRAGMA wal_autocheckpoint=8000")
        entry.info["file"] = identity(file)

    return engine


def _postgresql(url: URL, named: str) -> Engine:
    """Open a server that a URL or a secret names; each connection asks the secret."""
    limits = {
        "statement_timeout": f"{PATIENCE}s",
        # A writer that was stopped in the middle must not hold up the others.
        "idle_in_transaction_session_timeout": f"{PATIENCE}s",
        "synchronous_commit": "on",
    }
    said = " ".join(f"-c {name}={value}" for name, value in limits.items())
    engine = sa.create_engine(
        url.set(drivername=SERVERS[1]), isolation_level="AUTOCOMMIT", pool_pre_ping=True, pool_timeout=PATIENCE
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, _entry: object, _arguments: Any, _named: Any) -> psycopg.Connection[Any]:
        def connect(value: str) -> psycopg.Connection[Any]:
            arguments, told = dialect.create_connect_args(_parsed(value).set(drivername=SERVERS[1]))
            return Patient.connect(*arguments, **{**told, "connect_timeout": PATIENCE, "options": said})

        return connected(named, connect, psycopg.OperationalError)

    return engine
