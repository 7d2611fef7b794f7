"""Streams: whatever a shard holds comes once and in order, from wherever one begins, whatever the adapter."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import boto3
import pytest

from mlops.errors import BadConfiguration, NotFound, StorageFailed, Unreachable
from mlops.streaming import stream, stream_kinesis
from mlops.streaming.records import Page, Record, Shard
from mlops.streaming.stream import Stream
from mlops.streaming.stream_memory import Memory

Make = Callable[[int], Stream]
ODD = (b"", b"\x00\xff\xfe", "ü☃".encode(), b'{"a": 1}', b"x" * 100_000)


def made(name: str, shards: int) -> Stream:
    client = boto3.client("kinesis")
    client.create_stream(StreamName=name, ShardCount=shards)
    client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0})
    return stream.connect(f"kinesis://{name}")


@pytest.fixture(params=["memory", "kinesis"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "memory":
        return Memory
    bucket: str = request.getfixturevalue("bucket")
    return lambda shards: made(f"stream-{bucket}", shards)


def all_of(page_of: Callable[[], Page]) -> list[Record]:
    """Read until there is nothing new."""
    found: list[Record] = []
    while (page := page_of()).records:
        found += page.records
    return found


def everything(opened: Stream, most: int = 7) -> dict[str, list[Record]]:
    readers = {shard.id: opened.open(shard.id, None, None) for shard in opened.shards()}
    return {shard: all_of(partial(reader.read, most)) for shard, reader in readers.items()}


def data(records: Sequence[Record]) -> list[bytes]:
    return [record.data for record in records]


def test_what_is_put_comes_out_byte_for_byte_and_in_order(make: Make) -> None:
    opened = make(1)
    bodies = [b"%d" % number for number in range(30)] + [body for body in ODD if body]
    opened.put([("k", body) for body in bodies])
    (records,) = everything(opened).values()
    assert data(records) == bodies
    assert len({record.sequence for record in records}) == len(bodies)
    now = time.time() * 1e6
    assert all(now - 60e6 < record.at < now + 1e6 for record in records)


def test_a_key_stays_in_its_shard_and_the_shards_share_the_keys(make: Make) -> None:
    opened = make(3)
    opened.put([(f"key {number % 20}", b"%d %d" % (number % 20, number)) for number in range(200)])
    found = everything(opened)
    assert sorted(map(len, found.values())) != [0, 0, 200]
    assert sum(map(len, found.values())) == 200
    for records in found.values():
        numbers = [int(body.split()[1]) for body in data(records)]
        assert numbers == sorted(numbers)
    keys = [{body.split()[0] for body in data(records)} for records in found.values()]
    assert not keys[0] & keys[1] and not keys[1] & keys[2] and not keys[0] & keys[2]


def test_a_reader_goes_on_behind_the_record_it_is_told(make: Make) -> None:
    opened = make(1)
    opened.put([("k", b"%d" % number) for number in range(10)])
    (shard,) = opened.shards()
    first = opened.open(shard.id, None, None).read(4)
    assert data(first.records) == [b"0", b"1", b"2", b"3"]
    rest = opened.open(shard.id, first.records[-1].sequence, None)
    assert data(all_of(lambda: rest.read(4))) == [b"%d" % number for number in range(4, 10)]
    opened.put([("k", b"late")])
    assert data(rest.read(4).records) == [b"late"]
    assert rest.read(4).records == []


def test_it_may_begin_with_what_arrives_from_now_on(make: Make) -> None:
    opened = make(1)
    (shard,) = opened.shards()
    opened.put([("k", b"old")])
    now = time.time_ns() // 1_000 + 1
    reader = opened.open(shard.id, None, now)
    assert reader.read(10).records == []
    while time.time_ns() // 1_000 <= now:
        pass
    opened.put([("k", b"new")])
    assert data(reader.read(10).records) == [b"new"]


def test_how_far_it_is_behind_falls_to_nothing(make: Make) -> None:
    opened = make(1)
    (shard,) = opened.shards()
    reader = opened.open(shard.id, None, None)
    assert reader.read(1).behind == 0
    opened.put([("k", b"first")])
    begin = time.monotonic()
    while time.monotonic() - begin < 0.05:
        pass
    opened.put([("k", b"second")])
    assert reader.read(1).behind >= 40_000
    assert reader.read(1).behind == 0


def test_more_than_one_request_takes_is_put_whole(make: Make) -> None:
    opened = make(2)
    opened.put([(str(number), b"%d" % number) for number in range(1_203)])
    found = [body for records in everything(opened, 500).values() for body in data(records)]
    assert sorted(map(int, found)) == list(range(1_203))
    large = [(str(number), bytes([number]) * 900_000) for number in range(12)]
    opened.put(large)
    later = [body for records in everything(opened, 500).values() for body in data(records)]
    assert {body for _, body in large} <= set(later)


def test_a_memory_stream_that_is_closed_ends_behind_its_last_record() -> None:
    opened = Memory()
    opened.put([("", b"1"), ("", b"2")])
    reader = opened.open("shard-0", None, None)
    assert not reader.read(1).ended
    opened.close()
    last = reader.read(5)
    assert (data(last.records), last.ended) == ([b"2"], True)
    assert Memory().name != opened.name


def test_a_shard_that_was_split_or_merged_has_children_and_gets_no_more(bucket: str) -> None:
    opened, client = made(f"split-{bucket}", 1), boto3.client("kinesis")
    (parent,) = opened.shards()
    client.split_shard(StreamName=opened.name, ShardToSplit=parent.id, NewStartingHashKey=str(2**127))
    client.get_waiter("stream_exists").wait(StreamName=opened.name, WaiterConfig={"Delay": 0})
    old, left, right = opened.shards()
    assert old == Shard(parent.id, (), True)
    assert left.parents == right.parents == (parent.id,)
    client.merge_shards(StreamName=opened.name, ShardToMerge=left.id, AdjacentShardToMerge=right.id)
    merged = opened.shards()[-1]
    assert set(merged.parents) == {left.id, right.id}
    assert [shard.closed for shard in opened.shards()] == [True, True, True, False]


def test_an_iterator_that_is_too_old_is_made_anew_and_no_record_is_lost_or_doubled(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(f"old-{bucket}", 1)
    opened.put([("k", b"%d" % number) for number in range(5)])
    (shard,) = opened.shards()
    reader = opened.open(shard.id, None, None)
    assert data(reader.read(2).records) == [b"0", b"1"]
    client = opened._client  # type: ignore[attr-defined]
    error = client.exceptions.ExpiredIteratorException
    once = iter([error({"Error": {"Code": "ExpiredIteratorException"}}, "GetRecords")])
    real = client.get_records

    def get_records(**words: object) -> object:
        found = next(once, None)
        if found is not None:
            raise found
        return real(**words)

    monkeypatch.setattr(client, "get_records", get_records)
    assert data(reader.read(10).records) == [b"2", b"3", b"4"]


def test_records_that_are_not_taken_are_put_again_and_no_others(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = made(f"busy-{bucket}", 1)
    monkeypatch.setattr(stream_kinesis, "PAUSE", 0)
    client = opened._client  # type: ignore[attr-defined]
    real, refusals = client.put_records, iter([{0, 3}, set(range(2)), set()])

    def put_records(StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - AWS's names
        refused = next(refusals)
        some = [record for place, record in enumerate(Records) if place not in refused]
        taken = iter(real(StreamName=StreamName, Records=some)["Records"] if some else [])
        said = {"ErrorCode": "ProvisionedThroughputExceededException"}
        return {"Records": [said if place in refused else next(taken) for place in range(len(Records))]}

    monkeypatch.setattr(client, "put_records", put_records)
    opened.put([("k", b"%d" % number) for number in range(5)])
    (records,) = everything(opened).values()
    assert data(records) == [b"1", b"2", b"4", b"0", b"3"]
    refusals = iter([{0}] * stream_kinesis.TRIES)
    with pytest.raises(StorageFailed, match="takes no records: ProvisionedThroughputExceededException"):
        opened.put([("k", b"never")])


def test_what_is_not_there_or_not_reached_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = stream.connect("kinesis://gone")
    with pytest.raises(NotFound, match="there is no kinesis://gone; create it or correct its name"):
        gone.shards()
    with pytest.raises(NotFound):
        gone.put([("k", b"x")])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="kinesis://silent does not answer"):
        stream.connect("kinesis://silent").shards()
    with pytest.raises(StorageFailed):
        stream.connect("kinesis://silent").put([("k", b"x")])


@pytest.mark.parametrize("url", ["kinesis://", "kinesis://a/b", "kafka://x", "", "memory://x"])
def test_a_url_that_names_no_stream_is_refused(url: str) -> None:
    with pytest.raises(BadConfiguration, match="write kinesis://NAME"):
        stream.connect(url)
