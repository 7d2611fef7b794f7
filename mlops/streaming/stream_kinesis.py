"""A stream of Kinesis: the vendor's words for shards, iterators and errors end here."""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from mlops import aws
from mlops.errors import BadConfiguration, StorageFailed
from mlops.streaming.records import Page, Record, Shard

ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST = 10_000
"""Records that Kinesis gives at once."""
PUT_AT_ONCE, PUT_BYTES = 500, 4 << 20
"""Records and bytes that Kinesis takes at once; it allows a little more."""
TRIES, PAUSE = 8, 0.1
"""How often records that were not taken are put again, and the first pause between two tries, in seconds."""
GONE, OVER = "ResourceNotFoundException", "ExpiredIteratorException"


class Kinesis:
    """A stream of Kinesis, by name: `kinesis://NAME`."""

    def __init__(self, url: str) -> None:
        self._name = url.removeprefix("kinesis://")
        if not re.fullmatch(r"[\w.-]{1,128}", self._name):
            raise BadConfiguration(f"'{url}' names no stream; write kinesis://NAME")
        self._client = aws.client("kinesis", url)

    @property
    def name(self) -> str:
        return self._name

    def shards(self) -> Sequence[Shard]:
        found: list[Shard] = []
        asked: dict[str, Any] = {"StreamName": self._name}
        with self._translated():
            while True:
                answer = self._client.list_shards(**asked)
                found += [_shard(each) for each in answer["Shards"]]
                if (more := answer.get("NextToken")) is None:
                    return found
                asked = {"NextToken": more}

    def open(self, shard: str, after: str | None, since: int | None) -> "_ShardReader":
        return _ShardReader(self, shard, after, since)

    def put(self, records: Sequence[tuple[str, bytes]]) -> None:
        left = [{"PartitionKey": key, "Data": data} for key, data in records]
        tries = 0
        while left:
            some, rest = _fitting(left)
            with self._translated():
                answer = self._client.put_records(StreamName=self._name, Records=some)
            results = zip(some, answer["Records"], strict=True)
            refused = [(record, said) for record, said in results if said.get("ErrorCode")]
            tries = tries + 1 if len(refused) == len(some) else 0
            if tries == TRIES:
                raise StorageFailed(f"kinesis://{self._name} takes no records: {refused[0][1]['ErrorCode']}")
            if refused:
                time.sleep(PAUSE * 2**tries)
            left = [record for record, _ in refused] + rest

    def iterator(self, shard: str, after: str | None, since: int | None) -> str:
        """Where to read a shard from, as Kinesis says it."""
        place: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after is not None:
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        elif since is not None:
            place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": ORIGIN + since * MICROSECOND}
        with self._translated():
            answer = self._client.get_shard_iterator(StreamName=self._name, ShardId=shard, **place)
        return str(answer["ShardIterator"])

    def records(self, iterator: str, most: int) -> Mapping[str, Any] | None:
        """The records behind an iterator as Kinesis gives them; nothing where the iterator is too old."""
        with self._translated():
            try:
                return self._client.get_records(ShardIterator=iterator, Limit=min(most, MOST))  # type: ignore[no-any-return]
            except ClientError as error:
                if aws.code(error) == OVER:
                    return None
                raise

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        place = f"kinesis://{self._name}"
        return aws.translated(place, {GONE: f"there is no {place}; create it or correct its name in the settings"})


class _ShardReader:
    def __init__(self, stream: Kinesis, shard: str, after: str | None, since: int | None) -> None:
        self._stream, self._shard, self._after, self._since = stream, shard, after, since
        self._iterator: str | None = None
        self._ended = False

    def read(self, most: int) -> Page:
        if self._ended:
            return Page([], True, 0)
        if self._iterator is None:
            self._iterator = self._stream.iterator(self._shard, self._after, self._since)
        answer = self._stream.records(self._iterator, most)
        if answer is None:
            # An iterator lives for five minutes; who was busy for longer asks for another one.
            self._iterator = None
            return self.read(most)
        records = [_record(each) for each in answer["Records"]]
        self._iterator = answer.get("NextShardIterator")
        if records:
            self._after = records[-1].sequence
        self._ended = self._iterator is None
        return Page(records, self._ended, answer.get("MillisBehindLatest", 0) * 1_000)


def _shard(said: Mapping[str, Any]) -> Shard:
    parents = [said.get(name) for name in ("ParentShardId", "AdjacentParentShardId")]
    closed = said["SequenceNumberRange"].get("EndingSequenceNumber") is not None
    return Shard(said["ShardId"], tuple(parent for parent in parents if parent), closed)


def _record(said: Mapping[str, Any]) -> Record:
    arrived = (said["ApproximateArrivalTimestamp"] - ORIGIN) // MICROSECOND
    return Record(said["Data"], said["SequenceNumber"], arrived)


def _fitting(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The first records that fit into one request, at least one, and the others."""
    taken = size = 0
    for record in records[:PUT_AT_ONCE]:
        size += len(record["Data"]) + len(record["PartitionKey"])
        if taken and size > PUT_BYTES:
            break
        taken += 1
    return records[:taken], records[taken:]
