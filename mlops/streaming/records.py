"""What streams are made of: records, pages of them, and the shards in which they have an order."""

from collections.abc import Sequence
from typing import NamedTuple


class Record(NamedTuple):
    """What somebody put: bytes, their place in the shard, and when they arrived (microseconds since 1970)."""

    data: bytes
    sequence: str
    at: int


class Shard(NamedTuple):
    """A part of a stream, whose records have an order, the shards before it, and whether it gets no more."""

    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


class Page(NamedTuple):
    """The next records of a shard, whether these were its last ones, and how far they are behind the newest.

    `behind` is microseconds.
    """

    records: Sequence[Record]
    ended: bool
    behind: int
