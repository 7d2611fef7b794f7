"""The journal: what was asked, seen and answered, and what turned out to be true. Append-only, chained by hashes."""

import contextlib
import hashlib
import secrets
import sqlite3
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from mlops.errors import BadConfiguration, Damaged, MlopsError, OutOfSpace, StorageFailed, Unreachable

PAGE = 1_000
PATIENCE = 2
"""Seconds to wait for a lock or a server."""
FIRST_HASH = bytes(32)

metadata = sa.MetaData()
journal_table = sa.Table(
    "journal",
    metadata,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("id", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("about", sa.LargeBinary(16)),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)
about_index = sa.Index(
    "journal_about",
    journal_table.c.about,
    sqlite_where=journal_table.c.about.is_not(None),
    postgresql_where=journal_table.c.about.is_not(None),
)
head_table = sa.Table(
    "journal_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("secret", sa.LargeBinary(32), nullable=False),
)


class Entry(msgspec.Struct, frozen=True):
    """What is written down: `id` (16 bytes) is given once; `about` is the id it speaks of; `at` is microseconds UTC."""

    kind: str
    id: bytes
    body: bytes
    at: int
    about: bytes | None = None


class Row(msgspec.Struct, frozen=True):
    """An entry in its place in the chain."""

    entry: Entry
    sequence: int
    hash: bytes


class Kept(msgspec.Struct, frozen=True):
    """The row that an id stands for, and whether it is new: if not, the row is the one that was there before."""

    row: Row
    fresh: bool


class Head(msgspec.Struct, frozen=True):
    """How many rows the chain has, and the hash of the last."""

    count: int
    hash: bytes


class Journal:
    """A journal in a database. Several processes can append to one chain at once; one thread at a time in each."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._writer: Any = None
        self._begin = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "BEGIN"
        head = sa.select(head_table.c.count, head_table.c.hash).with_for_update()
        self._read_head = str(head.compile(dialect=engine.dialect))
        mark = "?" if engine.dialect.name == "sqlite" else "%s"
        columns = [column.name for column in journal_table.columns]
        self._insert = f"INSERT INTO journal ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"  # noqa: S608 - fixed names
        self._move_head = f"UPDATE journal_head SET count = {mark}, hash = {mark}"  # noqa: S608 - fixed names

    @property
    def secret(self) -> bytes:
        """32 random bytes that every process on this journal shares."""
        return bytes(self._rows(sa.select(head_table.c.secret))[0].secret)

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        """Write entries down in one transaction; when this returns they are on disk.

        An entry whose id is there already is not written; its row is given back instead. Raises `OutOfSpace`,
        `Unreachable` or `Damaged`; then nothing was written, and the next call tries anew.
        """
        with self._lock:
            try:
                return self._append_new(entries)
            except (sqlite3.IntegrityError, psycopg.errors.UniqueViolation):
                self._give_up()
            except Exception as error:
                self._give_up()
                raise _translated(error, self._engine.url) from error
            try:
                return self._append_some(entries)
            except Exception as error:
                self._give_up()
                raise _translated(error, self._engine.url) from error

    def find(self, id_: bytes) -> Row | None:
        """Return the row of an id, if there is one."""
        rows = self._rows(sa.select(journal_table).where(journal_table.c.id == id_))
        return _row(rows[0]) if rows else None

    def find_all(self, ids: Collection[bytes]) -> list[Row]:
        """Return the rows of those ids that there are."""
        return [_row(row) for row in self._rows(sa.select(journal_table).where(journal_table.c.id.in_(ids)))]

    def about(self, ids: Collection[bytes]) -> list[Row]:
        """Return the rows that speak of any of the ids, in their order."""
        chosen = sa.select(journal_table).where(journal_table.c.about.in_(ids)).order_by(journal_table.c.sequence)
        return [_row(row) for row in self._rows(chosen)]

    def page(self, after: int) -> list[Row]:
        """Return the next rows after a sequence number, at most 1,000."""
        later = sa.select(journal_table).where(journal_table.c.sequence > after)
        return [_row(row) for row in self._rows(later.order_by(journal_table.c.sequence).limit(PAGE))]

    def since(self, sequence: int) -> Iterator[Row]:
        """Give all rows after a sequence number."""
        while rows := self.page(sequence):
            yield from rows
            sequence = rows[-1].sequence

    def head(self) -> Head:
        """Tell how long the chain is."""
        count, hash_ = self._rows(sa.select(head_table.c.count, head_table.c.hash))[0]
        return Head(count, bytes(hash_))

    def verify(self) -> Head:
        """Walk the whole chain. Raises `Damaged`, naming the first row that is not what was written."""
        head, hash_, place = self.head(), FIRST_HASH, 0
        for row in self.since(-(2**62)):
            if place == head.count:
                break
            place += 1
            named = f"row {row.sequence} of the journal (id {row.entry.id.hex()})"
            if row.sequence != place:
                raise Damaged(f"row {place} of the journal is missing: after it comes {named}; restore the journal")
            hash_ = _chained(hash_, place, row.entry)
            if row.hash != hash_:
                raise Damaged(f"{named} is not what was written; restore the journal")
        if place != head.count or hash_ != head.hash:
            raise Damaged(
                f"the journal ends with row {place} and had {head.count}: row {min(place, head.count) + 1} is missing "
                "or was added; restore the journal"
            )
        return head

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._give_up()
        self._engine.dispose()

    def _append_new(self, entries: Sequence[Entry]) -> list[Kept]:
        """Write entries that are all new, as nearly all are; the database refuses an id that is there."""
        cursor = self._cursor()
        cursor.execute(self._begin)
        cursor.execute(self._read_head)
        count, hash_ = cursor.fetchone()
        rows, kept = [], []
        for entry in entries:
            count += 1
            hash_ = _chained(hash_, count, entry)
            rows.append((count, entry.kind, entry.id, entry.about, entry.at, entry.body, hash_))
            kept.append(Kept(Row(entry, count, hash_), True))
        cursor.executemany(self._insert, rows)
        cursor.execute(self._move_head, (count, hash_))
        cursor.execute("COMMIT")
        return kept

    def _append_some(self, entries: Sequence[Entry]) -> list[Kept]:
        """Write the entries whose ids are new, under the lock that keeps others from writing them meanwhile."""
        cursor = self._cursor()
        cursor.execute(self._begin)
        cursor.execute(self._read_head)
        count, hash_ = cursor.fetchone()
        chosen = sa.select(journal_table).where(journal_table.c.id.in_({entry.id for entry in entries}))
        known = {row.id: Kept(_row(row), False) for row in self._rows(chosen)}
        rows, kept = [], []
        for entry in entries:
            if entry.id not in known:
                count += 1
                hash_ = _chained(hash_, count, entry)
                rows.append((count, entry.kind, entry.id, entry.about, entry.at, entry.body, hash_))
                kept.append(Kept(Row(entry, count, hash_), True))
                known[entry.id] = Kept(kept[-1].row, False)
            else:
                kept.append(known[entry.id])
        if rows:
            cursor.executemany(self._insert, rows)
            cursor.execute(self._move_head, (count, hash_))
        cursor.execute("COMMIT")
        return kept

    def _cursor(self) -> Any:
        if self._writer is None:
            self._writer = self._engine.raw_connection()
        return self._writer.cursor()

    def _give_up(self) -> None:
        """Leave what was begun, and the connection, behind."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.invalidate()
            self._writer = None

    def _rows(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(statement).all()
        except SQLAlchemyError as error:
            raise _translated(error, self._engine.url) from error


def connect(url: str) -> Journal:
    """Open the journal at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`, and make what is missing."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("none")
    if parsed.drivername not in ("sqlite", "postgresql", "postgresql+psycopg") or not parsed.database:
        raise BadConfiguration(
            "platform.journal is no journal's URL; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        )
    engine = _sqlite(parsed) if parsed.drivername == "sqlite" else _postgresql(parsed)
    try:
        with engine.connect() as connection:
            _make_tables(connection)
    except SQLAlchemyError as error:
        raise _translated(error, parsed) from error
    return Journal(engine)


def _make_tables(connection: sa.Connection) -> None:
    """Make what is missing; of several processes that do it at once, one does."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(710215)")
    metadata.create_all(connection)
    if connection.execute(sa.select(head_table)).first() is None:
        first = {"one": 1, "count": 0, "hash": FIRST_HASH, "secret": secrets.token_bytes(32)}
        connection.execute(head_table.insert().values(first))
    connection.exec_driver_sql("COMMIT")


def _sqlite(url: URL) -> Engine:
    try:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot use the folder of {url.database} for the journal: {error.strerror}") from None
    waiting = {"timeout": PATIENCE, "check_same_thread": False}
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=waiting)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # A checkpoint stops the commit that it falls into for some milliseconds: let few commits meet one.
        connection.execute("PRAGMA wal_autocheckpoint=8000")

    return engine


def _postgresql(url: URL) -> Engine:
    limits = f"-c statement_timeout={PATIENCE}s -c lock_timeout={PATIENCE}s"
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        connect_args={"connect_timeout": PATIENCE, "options": limits},
    )


def _row(found: sa.Row[Any]) -> Row:
    about = None if found.about is None else bytes(found.about)
    entry = Entry(found.kind, bytes(found.id), bytes(found.body), found.at, about)
    return Row(entry, found.sequence, bytes(found.hash))


def _chained(previous: bytes, sequence: int, entry: Entry) -> bytes:
    """The hash of a row: over the one before it and every field, each with its length, so that none can be moved."""
    kind, about = entry.kind.encode(), entry.about or b""
    head = struct.pack(">qqqqqq", sequence, entry.at, len(kind), len(entry.id), len(about), len(entry.body))
    return hashlib.sha256(b"".join((previous, head, kind, entry.id, about, entry.body))).digest()


def _translated(error: Exception, url: URL) -> MlopsError:
    """Turn a database's complaint into ours; the URL is shown without its password."""
    if isinstance(error, MlopsError):
        return error
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    where = url.render_as_string(hide_password=True)
    if isinstance(getattr(error, "orig", error), psycopg.errors.DiskFull) or "disk is full" in text:
        return OutOfSpace(f"no space is left for the journal {where}; make room, nothing was lost")
    if "malformed" in text or "not a database" in text:
        return Damaged(f"the journal {where} is damaged: {text}; restore it")
    if "locked" in text or isinstance(getattr(error, "orig", error), psycopg.OperationalError):
        return Unreachable(f"the journal {where} does not answer: {text}")
    return StorageFailed(f"the journal {where} failed: {text}")
