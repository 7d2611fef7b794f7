"""A stream that lives as long as this process (memory://)."""

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence

from mlops.streaming.records import Page, Record, Shard


class Memory:
    """A stream that lives as long as this process, with a number of shards from its beginning on."""

    def __init__(self, shards: int = 1) -> None:
        # Another process has another one, whose places must not be taken for places in this.
        self._name, self._lock = f"memory-{secrets.token_hex(8)}", threading.Lock()
        self._shards = [Shard(f"shard-{number}") for number in range(shards)]
        self._records: dict[str, list[Record]] = {shard.id: [] for shard in self._shards}
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    def shards(self) -> Sequence[Shard]:
        return self._shards

    def open(self, shard: str, after: str | None, since: int | None) -> "_MemoryReader":
        if after is not None:
            return _MemoryReader(self, shard, int(after) + 1)
        with self._lock:
            earlier = sum(since is not None and record.at < since for record in self._records[shard])
        return _MemoryReader(self, shard, earlier)

    def put(self, records: Sequence[tuple[str, bytes]]) -> None:
        now = time.time_ns() // 1_000
        with self._lock:
            for key, data in records:
                place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % len(self._shards)
                kept = self._records[self._shards[place].id]
                kept.append(Record(data, str(len(kept)), now))

    def close(self) -> None:
        """Nothing more will be put: every shard ends behind its last record."""
        self._closed = True

    def page(self, shard: str, first: int, most: int) -> Page:
        """The records of a shard from a place on."""
        with self._lock:
            kept = self._records[shard]
            records = kept[first : first + most]
            left = first + len(records) < len(kept)
            behind = kept[-1].at - records[-1].at if records else 0
            return Page(records, self._closed and not left, behind)


class _MemoryReader:
    def __init__(self, stream: Memory, shard: str, first: int) -> None:
        self._stream, self._shard, self._next = stream, shard, first

    def read(self, most: int) -> Page:
        page = self._stream.page(self._shard, self._next, most)
        self._next += len(page.records)
        return page
