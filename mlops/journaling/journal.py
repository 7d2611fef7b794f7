"""The journal: what was asked, seen and answered, and what turned out to be true. Append-only, chained by hashes."""

import contextlib
import hashlib
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import Lock
from types import NoneType
from typing import Any, NoReturn

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from mlops.errors import Damaged, StorageFailed
from mlops.journaling.journal_database import (
    AT_ONCE,
    FIRST_HASH,
    database_of,
    head_table,
    identity,
    is_cut,
    is_taken,
    journal_table,
    open_engine,
    translated,
)

PAGE = 1_000
COLUMNS = journal_table.c
TYPES = {(int, str, bytes, about, int, bytes, bytes) for about in (bytes, NoneType)}


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
        self._engine, self._database = engine, database_of(engine)
        self._lock = Lock()
        self._writer: Any = None
        self._latest: Head | None = None

    @property
    def secret(self) -> bytes:
        """32 random bytes that every process on this journal shares."""
        found = self._rows(sa.select(head_table.c.secret))
        return bytes(found[0].secret) if found else _no_head()

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        """Write entries down in one transaction; when this returns they are on disk.

        An entry whose id is there already is not written; its row is given back instead. Raises `OutOfSpace`,
        `Unreachable`, `Damaged` or `StorageFailed`; then the next call tries anew, and entries that are given again
        are written once, also where the error hid that they had been.
        """
        if not entries:
            return []
        with self._lock:
            try:
                try:
                    return self._write(entries, look=self._writer is None)
                except Exception as error:
                    # Others wrote meanwhile, an id is there, or the connection was lost and may have written or not.
                    if is_taken(error):
                        self._writer.rollback()
                    elif is_cut(error):
                        self._give_up()
                    else:
                        raise
                    return self._write(entries, look=True)
            except Exception as error:
                self._give_up()
                raise translated(error, self._engine.url) from error

    def find(self, id_: bytes) -> Row | None:
        """Return the row of an id, if there is one."""
        return next(iter(self.find_all([id_])), None)

    def find_all(self, ids: Collection[bytes]) -> list[Row]:
        """Return the rows of those ids that there are."""
        return self._where(COLUMNS.id, ids)

    def about(self, ids: Collection[bytes]) -> list[Row]:
        """Return the rows that speak of any of the ids, in their order."""
        return sorted(self._where(COLUMNS.about, ids), key=lambda row: row.sequence)

    def about_page(self, id_: bytes, after: int, most: int) -> list[Row]:
        """Return the next rows that speak of an id after a sequence number, at most so many."""
        later = sa.select(journal_table).where(COLUMNS.about == id_, COLUMNS.sequence > after)
        return [_row(row) for row in self._rows(later.order_by(COLUMNS.sequence).limit(most))]

    def count(self, about: bytes) -> int:
        """Tell how many rows speak of an id."""
        return int(self._rows(sa.select(sa.func.count()).where(COLUMNS.about == about))[0][0])

    def page(self, after: int) -> list[Row]:
        """Return the next rows after a sequence number, at most 1,000."""
        later = sa.select(journal_table).where(COLUMNS.sequence > after)
        return [_row(row) for row in self._rows(later.order_by(COLUMNS.sequence).limit(PAGE))]

    def since(self, sequence: int) -> Iterator[Row]:
        """Give all rows after a sequence number."""
        while rows := self.page(sequence):
            yield from rows
            sequence = rows[-1].sequence

    def between(self, start: int, end: int) -> Iterator[Row]:
        """Give the rows whose `at` is from `start` to before `end` (microseconds UTC), in their order."""
        inside = sa.and_(COLUMNS.at >= start, COLUMNS.at < end)
        first, last = self._rows(sa.select(sa.func.min(COLUMNS.sequence), sa.func.max(COLUMNS.sequence)).where(inside))[
            0
        ]
        # Times stand nearly in the order of the chain, so there is little between first and last to pass over.
        for row in self.since(first - 1) if first is not None else ():
            if row.sequence > last:
                break
            if start <= row.entry.at < end:
                yield row

    def before(self, at: int) -> int:
        """The sequence number of the row just before the first whose `at` (microseconds UTC) is that or later."""
        first = self._rows(sa.select(sa.func.min(COLUMNS.sequence)).where(COLUMNS.at >= at))[0][0]
        return self.head().count if first is None else int(first) - 1

    def head(self) -> Head:
        """Tell how long the chain is."""
        return _head(next(iter(self._rows(sa.select(head_table.c.count, head_table.c.hash))), None))

    def verify(self) -> Head:
        """Walk the whole chain. Raises `Damaged`, naming the first row that is not what was written."""
        head, hash_, place, last = self.head(), FIRST_HASH, 0, "its beginning"
        for row in self.since(0):
            if place == head.count:
                break
            place += 1
            named = _named(row.sequence, row.entry.id)
            if row.sequence != place:
                raise Damaged(f"row {place} of the journal is missing: after it comes {named}; restore the journal")
            hash_ = _chained(hash_, place, row.entry)
            if row.hash != hash_:
                raise Damaged(f"{named} is not what was written; restore the journal")
            last = named
        if place < head.count:
            raise Damaged(f"row {place + 1} of the journal is missing, of {head.count}; restore the journal")
        self._check_outside()
        if hash_ != head.hash:
            raise Damaged(f"the journal's head does not fit {last}: one of them was changed; restore the journal")
        return head

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._give_up()

    def _write(self, entries: Sequence[Entry], look: bool) -> list[Kept]:
        """Write the entries that are new: all, as nearly always, or else those that a look does not find.

        Without a look the chain goes on from where this process left it, in one statement; the database refuses it when
        another process went on meanwhile.
        """
        if self._writer is None:
            self._writer = self._engine.raw_connection()
        self._check_file(self._writer.info)
        begun = look or self._latest is None or len(entries) > AT_ONCE
        # A cursor that is left open would keep what was begun alive, also where the connection is given up.
        with contextlib.closing(self._writer.cursor()) as cursor:
            if begun:
                cursor.execute(self._database.begin)
            if look or self._latest is None:
                cursor.execute(self._database.read_head)
                self._latest = _head(cursor.fetchone())
            head, rows, kept = self._latest, [], []
            # Looked for under the lock of the head, which keeps others from writing them meanwhile.
            known = {row.entry.id: row for row in self.find_all({entry.id for entry in entries})} if look else {}
            for entry in entries:
                fresh = entry.id not in known
                if fresh:
                    head = Head(head.count + 1, _chained(head.hash, head.count + 1, entry))
                    rows.append((head.count, entry.kind, entry.id, entry.about, entry.at, entry.body, head.hash))
                    known[entry.id] = Row(entry, head.count, head.hash)
                kept.append(Kept(known[entry.id], fresh))
            for start in range(0, len(rows), AT_ONCE):
                self._database.insert(cursor, rows[start : start + AT_ONCE])
            if begun:
                cursor.execute("COMMIT")
        self._latest = head
        return kept

    def _check_file(self, opened: Mapping[str, Any]) -> None:
        """A file that was removed can still be read and written to, and nobody would ever find what is in it."""
        file = self._database.file
        if file is not None and identity(file) != opened["file"]:
            raise StorageFailed(f"the journal {file} was removed or replaced while in use; put it back or restart")

    def _give_up(self) -> None:
        """Leave what was begun, and all connections, behind."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.invalidate()
            self._writer = None
        self._latest = None
        self._engine.dispose()

    def _check_outside(self) -> None:
        """Rows before the first or after the last, looked for in one statement: it sees no half of an append."""
        end = sa.select(head_table.c.count).scalar_subquery()
        outside = sa.select(COLUMNS.sequence, COLUMNS.id).where(sa.or_(COLUMNS.sequence < 1, COLUMNS.sequence > end))
        for sequence, id_ in self._rows(outside.order_by(COLUMNS.sequence).limit(1)):
            raise Damaged(f"{_named(sequence, id_)} was added outside the chain; restore the journal")

    def _where(self, column: sa.Column[Any], ids: Collection[bytes]) -> list[Row]:
        found: list[Row] = []
        wanted = list(ids)
        # A database takes some ten thousand values in a statement.
        for start in range(0, len(wanted), PAGE):
            chosen = sa.select(journal_table).where(column.in_(wanted[start : start + PAGE]))
            found += [_row(row) for row in self._rows(chosen)]
        return found

    def _rows(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self._engine.connect() as connection:
                self._check_file(connection.info)
                return connection.execute(statement).all()
        except SQLAlchemyError as error:
            raise translated(error, self._engine.url) from error


def connect(url: str) -> Journal:
    """Open the journal at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`, and make what is missing."""
    return Journal(open_engine(url))


def _row(found: sa.Row[Any]) -> Row:
    sequence, kind, id_, about, at, body, hash_ = found
    # SQLite puts any type into any column.
    if (int, type(kind), type(id_), type(about), type(at), type(body), type(hash_)) not in TYPES:
        raise Damaged(f"{_named(sequence, id_)} is not what was written; restore the journal")
    return Row(Entry(kind, id_, body, at, about), sequence, hash_)


def _head(found: Any) -> Head:
    match found:
        case (int(count), bytes(hash_)):
            return Head(count, hash_)
        case _:
            return _no_head()


def _no_head() -> NoReturn:
    raise Damaged("the journal has lost its head; restore it")


def _named(sequence: int, id_: object) -> str:
    return f"row {sequence} of the journal (id {id_.hex() if isinstance(id_, bytes) else 'unreadable'})"


def _chained(previous: bytes, sequence: int, entry: Entry) -> bytes:
    """The hash of a row: over the one before it and every field, each with its length, so that none can be moved."""
    kind, about = entry.kind.encode(), entry.about or b""
    head = struct.pack(">qqqqqq", sequence, entry.at, len(kind), len(entry.id), len(about), len(entry.body))
    return hashlib.sha256(b"".join((previous, head, kind, entry.id, about, entry.body))).digest()
