"""Leases: who reads which shard of a stream, and how far all before is decided; beside the journal that vouches for it.

A worker that dies loses its leases after a while, one that comes takes some from those that have most. Where two read
the same shard for a moment the journal gives each id once; what a lease is for is order.
"""

import math
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from mlops.journaling.journal_database import metadata, open_engine, translated
from mlops.journaling.ledger import wall
from mlops.streaming.records import Shard

# Among the journal's tables, which are made by one of several processes that begin at once.
table = sa.Table(
    "stream_leases",
    metadata,
    sa.Column("stream", sa.String(128), primary_key=True),
    sa.Column("shard", sa.String(128), primary_key=True),
    sa.Column("parents", sa.JSON, nullable=False),
    sa.Column("since", sa.BigInteger),
    sa.Column("position", sa.String(128)),
    sa.Column("ended", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
COLUMNS = table.c
NOBODY = ""


class Lease(NamedTuple):
    """A shard in this worker's hands: behind which record it goes on, or, if none was read, since when it is read."""

    shard: str
    position: str | None
    since: int | None


class Leases:
    """The leases of one worker on one stream.

    `owner` is who holds them; they end `seconds` after they were last renewed, so the clocks of all workers must agree
    to within a small part of that. Raises `StorageFailed`.
    """

    def __init__(self, url: str, stream: str, seconds: float, now: Callable[[], int] = wall) -> None:
        self._engine, self._stream = open_engine(url), stream
        self._length, self._now = int(seconds * 1e6), now
        self.owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"

    def know(self, shards: Sequence[Shard], since: int | None) -> None:
        """Add shards that are new, to be read from `since` on (microseconds since 1970) or from their oldest record.

        The children of a shard that is known hold what came after it, and are read from their oldest record on.
        """
        with self._connected() as connection:
            known = {row.shard for row in self._rows(connection)}
            for shard in shards:
                if shard.id not in known:
                    begins = None if known.intersection(shard.parents) else since
                    self._add(connection, shard, begins)

    def take(self, alone: bool = False) -> None:
        """Take what is free, and a share of what others have; where this worker must be `alone`, all or nothing.

        A shard can be read once those before it have ended, or are known no longer.
        """
        with self._connected() as connection:
            rows, now = self._rows(connection), self._now()
            others = Counter(row.owner for row in rows if row.until > now and not row.ended)
            mine = others.pop(self.owner, 0)
            if alone and others:
                return
            ready = _ready(rows)
            free = [row for row in ready if row.until <= now]
            share = math.ceil((mine + len(free) + sum(others.values())) / (len(others) + 1))
            wanted = free[: max(0, share - mine)]
            if not free and mine < share and others and max(others.values()) > share:
                most = max(others, key=others.__getitem__)
                wanted = [row for row in ready if row.owner == most][:1]
            for row in wanted:
                self._have(connection, row)

    def take_all(self, shards: Sequence[Shard], since: int | None) -> bool:
        """Take a whole stream, as `know` and `take` do, and tell whether that worked: nothing is kept of a part."""
        self.know(shards, since)
        self.take(alone=True)
        if self.others():
            # Two at the same moment may each have got some.
            self.release()
            return False
        self.take(alone=True)
        return True

    def renew(self) -> list[Lease]:
        """Hold for longer what is held and has not ended, and tell what that is."""
        mine = sa.and_(COLUMNS.stream == self._stream, COLUMNS.owner == self.owner)
        with self._connected() as connection:
            connection.execute(table.update().where(mine).values(until=self._now() + self._length))
        return self.held()

    def held(self) -> list[Lease]:
        """Tell what is held and has not ended."""
        with self._connected() as connection:
            rows = self._rows(connection)
        return [Lease(row.shard, row.position, row.since) for row in rows if row.owner == self.owner and not row.ended]

    def keep(self, shard: str, position: str | None, ended: bool = False) -> bool:
        """Write down that all up to a record is decided, and whether the shard has ended.

        Returns false where another worker has the shard.
        """
        where = sa.and_(self._at(shard), COLUMNS.owner == self.owner)
        found: dict[str, Any] = {"until": self._now() + self._length}
        found |= {"position": position} if position is not None else {}
        found |= {"ended": True} if ended else {}
        with self._connected() as connection:
            return connection.execute(table.update().where(where).values(found)).rowcount == 1

    def others(self) -> bool:
        """Whether any other worker holds a shard."""
        with self._connected() as connection:
            rows, now = self._rows(connection), self._now()
        return any(row.until > now and row.owner != self.owner and not row.ended for row in rows)

    def over(self) -> bool:
        """Whether every shard that was ever known has ended."""
        with self._connected() as connection:
            rows = self._rows(connection)
        return bool(rows) and all(row.ended for row in rows)

    def release(self) -> None:
        """Let others have what is held."""
        mine = sa.and_(COLUMNS.stream == self._stream, COLUMNS.owner == self.owner)
        with self._connected() as connection:
            connection.execute(table.update().where(mine).values(owner=NOBODY, until=0))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _add(self, connection: sa.Connection, shard: Shard, since: int | None) -> None:
        values = {
            "stream": self._stream, "shard": shard.id, "parents": list(shard.parents), "since": since,
            "position": None, "ended": False, "owner": NOBODY, "until": 0,
        }  # fmt: skip
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(table).values(values).on_conflict_do_nothing())

    def _have(self, connection: sa.Connection, row: Any) -> None:
        """Take a lease from whoever had it when it was read, unless it moved since."""
        where = sa.and_(self._at(row.shard), COLUMNS.owner == row.owner, COLUMNS.until == row.until)
        held = table.update().where(where).values(owner=self.owner, until=self._now() + self._length)
        connection.execute(held)

    def _rows(self, connection: sa.Connection) -> Sequence[Any]:
        return connection.execute(sa.select(table).where(COLUMNS.stream == self._stream).order_by(COLUMNS.shard)).all()

    def _at(self, shard: str) -> sa.ColumnElement[bool]:
        return sa.and_(COLUMNS.stream == self._stream, COLUMNS.shard == shard)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise translated(error, self._engine.url) from error


def _ready(rows: Sequence[Any]) -> list[Any]:
    """The shards that have not ended, and of whose parents none is still to be read."""
    reading = {row.shard for row in rows if not row.ended}
    return [row for row in rows if not row.ended and not reading.intersection(row.parents)]
