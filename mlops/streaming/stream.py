"""Streams: records in the order of their shards, in this process (memory://) or in Kinesis (kinesis://)."""

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import Field

from mlops.errors import BadConfiguration
from mlops.streaming.records import Page, Shard
from mlops.streaming.stream_kinesis import Kinesis
from mlops.streaming.stream_memory import Memory
from mlops.values import Duration, Group

Start = Literal["LATEST", "TRIM_HORIZON"]


class Streaming(Group):
    """Where transactions come from without being asked for, and how they are read."""

    source: str = Field("memory://", description="kinesis://NAME, or memory:// for lines from standard input.")
    start: Start = Field(
        "TRIM_HORIZON", description="Where a stream that was never read begins: with what comes, or its oldest record."
    )
    results: str = Field("", description="The stream that decisions are put into, kinesis://NAME; empty: none.")
    batch: int = Field(500, ge=1, le=10_000, description="The most records that are read at once.")
    poll: float = Field(0.5, gt=0, description="Seconds between two looks at a shard that has nothing new.")
    lease: Duration = Field("30s", description="The shards of a worker that died are free after this.")
    tries: int = Field(5, ge=1, description="How often a record may fail alone for a reason of ours.")


class Reader(Protocol):
    """Reads one shard from some place on. One thread at a time."""

    def read(self, most: int) -> Page:
        """Give the next records, at most so many, without waiting for new ones. Raises `StorageFailed`.

        After an error the same records are given again.
        """


class Stream(Protocol):
    """A stream with any number of shards."""

    @property
    def name(self) -> str:
        """What it is called, the same from wherever it is read."""

    def shards(self) -> Sequence[Shard]:
        """Every shard that still has records or may get some. Raises `NotFound` or `StorageFailed`."""

    def open(self, shard: str, after: str | None, since: int | None) -> Reader:
        """Read a shard behind a sequence number, or from what arrived at `since` on, or from its oldest record.

        `since` is microseconds since 1970.
        """

    def put(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Put records, each with the key that chooses its shard. When this returns all are in. Raises `StorageFailed`.

        A record may be in twice after an error that hid that it was taken.
        """


def connect(url: str) -> Stream:
    """Open the stream that a URL names: `memory://`, or `kinesis://NAME`. Raises `BadConfiguration`."""
    if url == "memory://":
        return Memory()
    if url.startswith("kinesis://"):
        return Kinesis(url)
    raise BadConfiguration(f"'{url}' is no stream; write kinesis://NAME or memory://")
