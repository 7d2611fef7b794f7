"""The stream worker over a stream in memory: order, poison, failures of ours, a shard in trouble, leases that move."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlops.contract import Record, Stamp
from mlops.errors import Refused, StorageFailed, Unreachable
from mlops.journaling.ledger import Overtaken, wall
from mlops.serving.scoring import Decided, Outcome
from mlops.streaming.consumer import Consumer
from mlops.streaming.dead_letters import DeadLetter
from mlops.streaming.leases import Leases
from mlops.streaming.records import Page, Shard
from mlops.streaming.shard_reading import Handling
from mlops.streaming.stream import Streaming
from mlops.streaming.stream_memory import Memory

STAMP = Stamp("m", 1, "production", "h", "c")
PATIENCE = 30
NOW = 1_700_000_000_000_000


def body(key: str) -> bytes:
    return json.dumps({"key": key}).encode()


@dataclass
class Deciding:
    """Decides what is JSON, once a key, and can fail in every way: `fails` gives the status for a key, or nothing."""

    fails: Callable[[str], int | None] = lambda _: None
    asked: list[list[str]] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def __call__(self, bodies: Sequence[bytes]) -> list[Outcome]:
        keys = [self._key(each) for each in bodies]
        self.asked.append([key or "poison" for key in keys])
        if self.gate is not None:
            await self.gate.wait()
        return [self._outcome(key) for key in keys]

    def _outcome(self, key: str | None) -> Outcome:
        if key is None:
            return Refused("the body is not one JSON object in UTF-8", status=400)
        if (status := self.fails(key)) is not None:
            return Refused("an error of ours; it was logged", status=status)
        replayed = key in self.decided
        if not replayed:
            self.decided.append(key)
        record = Record(key, "d", {}, [], {"decision": "approve"}, STAMP, 1, False)
        return Decided(key.encode(), record, replayed)

    @staticmethod
    def _key(each: bytes) -> str | None:
        try:
            return str(json.loads(each)["key"])
        except (ValueError, KeyError):
            return None


@dataclass
class Heard:
    """What the worker told."""

    outcomes: list[Outcome] = field(default_factory=list)
    held: list[list[str]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)

    def read(self, shard: str, outcomes: Sequence[Outcome], behind: float) -> None:
        self.outcomes += outcomes
        self.behind.append(behind)

    def holds(self, shards: Sequence[str]) -> None:
        self.held.append(list(shards))

    def troubled(self, shard: str) -> None:
        self.troubles.append(shard)


@dataclass
class Desk:
    """A worker's surroundings in a folder."""

    folder: Path
    stream: Any
    deciding: Deciding = field(default_factory=Deciding)
    heard: Heard = field(default_factory=Heard)
    letters: list[DeadLetter] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    drawer: Callable[[], None] = lambda: None
    now: Callable[[], int] = lambda: NOW

    def worker(self, leases: Leases, alone: bool = False, **words: Any) -> Consumer:
        settings = Streaming.model_validate({"poll": 0.01, "lease": "1s", "batch": 10, "tries": 3} | words)
        handling = Handling(self.deciding, self.put_away, self.publish, self.heard, settings.tries, self.now)
        return Consumer(self.stream, leases, handling, settings, alone)

    def leases(self) -> Leases:
        return Leases(f"sqlite:///{self.folder}/journal.db", "stream", 1)

    async def put_away(self, found: Sequence[DeadLetter]) -> None:
        self.drawer()
        self.letters += found

    def publish(self, decided: Sequence[Decided]) -> None:
        self.published += [one.record.key for one in decided]

    def run(self, **words: Any) -> None:
        """Let one worker read until the stream ends."""
        with closing(self.leases()) as leases:
            asyncio.run(asyncio.wait_for(self.worker(leases, **words).run(), PATIENCE))

    def positions(self) -> dict[str, str | None]:
        with closing(self.leases()) as leases:
            leases.take()
            return {lease.shard: lease.position for lease in leases.renew()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, Memory())


def put(stream: Memory, keys: Sequence[str], close: bool = True) -> None:
    stream.put([(key, body(key)) for key in keys])
    if close:
        stream.close()


KEYS = [f"k{number}" for number in range(35)]


def test_all_is_decided_in_order_and_handed_on(desk: Desk) -> None:
    put(desk.stream, KEYS)
    desk.run()
    assert desk.deciding.decided == desk.published == KEYS
    assert [len(asked) for asked in desk.deciding.asked] == [10, 10, 10, 5]
    assert desk.heard.held[0] == ["shard-0"]
    assert desk.heard.behind[-1] == 0
    assert desk.letters == []


def test_poison_is_put_away_whole_and_the_rest_goes_on(desk: Desk) -> None:
    desk.stream.put([("k", body("a")), ("k", b"\xff{poison"), ("k", body("b"))])
    desk.stream.close()
    desk.run()
    assert desk.deciding.decided == ["a", "b"]
    (letter,) = desk.letters
    assert letter == DeadLetter(
        desk.stream.name, "shard-0", "1", b"\xff{poison", None, "the body is not one JSON object in UTF-8", 400, NOW,
    )  # fmt: skip
    assert desk.published == ["a", "b"]


@pytest.mark.parametrize("status", [500, 503])
def test_what_fails_for_a_reason_of_ours_is_tried_again_and_not_put_away(desk: Desk, status: int) -> None:
    failures = iter([status] * 4)
    desk.deciding.fails = lambda key: next(failures, None) if key == "k3" else None
    put(desk.stream, KEYS[:7])
    desk.run(tries=5)
    assert sorted(desk.deciding.decided) == KEYS[:7]
    assert desk.letters == []
    assert desk.heard.troubles == []


def test_a_record_that_always_breaks_us_is_put_away_alone_and_one_that_cannot_be_kept_never(desk: Desk) -> None:
    tried: list[str] = []

    def fails(key: str) -> int | None:
        tried.append(key)
        if key == "k2":
            return 500
        return 503 if key == "k4" and tried.count("k4") < 8 else None

    desk.deciding.fails = fails
    put(desk.stream, KEYS[:6])
    desk.run()
    assert [(letter.data, letter.status) for letter in desk.letters] == [(body("k2"), 500)]
    assert sorted(desk.deciding.decided) == ["k0", "k1", "k3", "k4", "k5"]
    assert tried.count("k4") == 8
    assert ["k2"] in desk.deciding.asked


def test_the_trouble_of_a_shard_is_its_own(tmp_path: Path) -> None:
    class Troubled(Memory):
        broken = 3

        def open(self, shard: str, after: str | None, since: int | None) -> Any:
            if shard == "shard-0" and self.broken:
                self.broken -= 1
                raise [Unreachable("gone"), StorageFailed("slow down"), RuntimeError("a bug")][self.broken]
            return super().open(shard, after, since)

    desk = Desk(tmp_path, Troubled(3))
    put(desk.stream, [str(number) for number in range(90)])
    desk.run()
    assert sorted(map(int, desk.deciding.decided)) == list(range(90))
    assert desk.heard.troubles == ["shard-0"] * 3
    for shard in range(3):
        keys = [record.data for record in desk.stream.page(f"shard-{shard}", 0, 90).records]
        mine = [body(key) for key in desk.deciding.decided if body(key) in keys]
        assert mine == keys


def test_what_was_read_and_not_decided_is_read_again_after_an_error(desk: Desk) -> None:
    broken = iter([True, True, False])

    def drawer() -> None:
        if next(broken, False):
            raise StorageFailed("the journal is locked")

    desk.drawer = drawer
    desk.stream.put([("k", body("a")), ("k", b"poison"), ("k", body("b"))])
    desk.stream.close()
    desk.run()
    assert desk.heard.troubles == ["shard-0"] * 2
    assert [letter.data for letter in desk.letters] == [b"poison"]
    assert desk.deciding.decided == ["a", "b"]
    assert desk.published == ["a", "b"]


def test_a_worker_that_is_stopped_finishes_its_batch_writes_its_place_and_lets_go(desk: Desk) -> None:
    put(desk.stream, KEYS, close=False)

    async def scenario() -> None:
        desk.deciding.gate = asyncio.Event()
        with closing(desk.leases()) as leases:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            while not desk.deciding.asked:
                await asyncio.sleep(0)
            worker.stop()
            desk.deciding.gate.set()
            await asyncio.wait_for(running, PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided == KEYS[:10]
    # Nothing waits for a lease to end: it was given back.
    assert desk.positions() == {"shard-0": "9"}


def test_no_more_than_one_batch_is_fetched_ahead_of_what_is_being_decided(desk: Desk) -> None:
    read: list[int] = []

    class Counted(Memory):
        def page(self, shard: str, first: int, most: int) -> Page:
            found = super().page(shard, first, most)
            read.append(len(found.records))
            return found

    desk.stream = Counted()
    put(desk.stream, KEYS, close=False)

    async def scenario() -> None:
        desk.deciding.gate = asyncio.Event()
        with closing(desk.leases()) as leases:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            while len(desk.heard.held) < 3:
                await asyncio.sleep(0.01)
            assert sum(read) == 20
            desk.stream.close()
            desk.deciding.gate.set()
            await asyncio.wait_for(running, PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided == KEYS


def test_a_worker_whose_shard_another_takes_stops_reading_it(desk: Desk) -> None:
    put(desk.stream, KEYS[:5], close=False)

    async def scenario() -> None:
        with closing(desk.leases()) as leases, closing(desk.leases()) as thief:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            while len(desk.deciding.decided) < 5:
                await asyncio.sleep(0.01)
            leases.release()
            thief.take()
            while desk.heard.held[-1]:
                await asyncio.sleep(0.01)
                thief.renew()
            put(desk.stream, KEYS[5:7], close=False)
            for _ in range(3):
                looks = len(desk.heard.held)
                while len(desk.heard.held) == looks:
                    await asyncio.sleep(0.01)
                    thief.renew()
            assert desk.deciding.decided == KEYS[:5]
            thief.release()
            while len(desk.deciding.decided) < 7:
                await asyncio.sleep(0.01)
            worker.stop()
            await asyncio.wait_for(running, PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided == KEYS[:7]


def test_one_that_must_be_alone_and_is_not_any_more_ends_and_says_so(desk: Desk) -> None:
    put(desk.stream, KEYS[:5], close=False)

    async def scenario() -> None:
        with closing(desk.leases()) as leases, closing(desk.leases()) as thief:
            running = asyncio.create_task(desk.worker(leases, alone=True).run())
            while len(desk.deciding.decided) < 5:
                await asyncio.sleep(0.01)
            leases.release()
            thief.take()
            with pytest.raises(Overtaken, match="another worker reads the stream by now"):
                await asyncio.wait_for(running, PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_two_workers_share_the_shards_and_decide_all_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Memory(4))

    async def scenario() -> None:
        with closing(desk.leases()) as one, closing(desk.leases()) as two:
            workers = [desk.worker(leases) for leases in (one, two)]
            running = [asyncio.create_task(worker.run()) for worker in workers]
            while sorted(map(len, desk.heard.held[-2:])) != [2, 2]:
                await asyncio.sleep(0.01)
            put(desk.stream, [str(number) for number in range(200)])
            await asyncio.wait_for(asyncio.gather(*running), PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert sorted(map(int, desk.deciding.decided)) == list(range(200))


class Resharded(Memory):
    """A stream of which a shard can be closed, with others after it, as Kinesis does it."""

    def __init__(self, shards: int) -> None:
        super().__init__(shards)
        self.ended: set[str] = set()
        self.before: list[Shard] = []

    def reshard(self, shards: Sequence[Shard]) -> None:
        """Close every shard that is open, and go on with these."""
        self.ended |= {shard.id for shard in self._shards}
        self.before += [shard._replace(closed=True) for shard in self._shards]
        self._records |= {shard.id: [] for shard in shards}
        self._shards = list(shards)

    def shards(self) -> Sequence[Shard]:
        return [*self.before, *self._shards]

    def page(self, shard: str, first: int, most: int) -> Page:
        found = super().page(shard, first, most)
        return found._replace(ended=found.ended or (shard in self.ended and not found.records))


@pytest.mark.parametrize("told", [True, False])
def test_a_stream_that_is_split_and_merged_is_read_parents_first(tmp_path: Path, told: bool) -> None:
    """A closed shard says that it has ended, or, as with some servers, it is only empty for ever."""
    stream = Resharded(1)
    desk = Desk(tmp_path, stream)
    parts = [[f"{part} {number}" for number in range(40)] for part in range(3)]
    put(stream, parts[0], close=False)
    stream.reshard([Shard("left", ("shard-0",)), Shard("right", ("shard-0",))])
    put(stream, parts[1], close=False)
    stream.reshard([Shard("merged", ("left", "right"))])
    put(stream, parts[2], close=False)
    if told:
        stream.close()
    else:
        stream.ended.clear()

    async def scenario() -> None:
        with closing(desk.leases()) as leases:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            while len(desk.deciding.decided) < 120:
                await asyncio.sleep(0.01)
            worker.stop()
            await running

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided[:40] == parts[0]
    assert sorted(desk.deciding.decided[40:80]) == sorted(parts[1])
    assert desk.deciding.decided[80:] == parts[2]


def test_what_comes_between_an_empty_page_and_the_end_of_its_shard_is_not_lost(tmp_path: Path) -> None:
    """The page behind the first was fetched empty; while that is being decided more comes, and the shard closes."""
    stream = Resharded(1)
    desk = Desk(tmp_path, stream)
    put(stream, ["before"], close=False)

    async def scenario() -> None:
        desk.deciding.gate = asyncio.Event()
        with closing(desk.leases()) as leases:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            while not desk.deciding.asked or len(desk.heard.held) < 2:
                await asyncio.sleep(0.01)
            put(stream, ["between"], close=False)
            stream.reshard([Shard("next", ("shard-0",))])
            put(stream, ["after"], close=False)
            stream.ended.clear()
            looks = len(desk.heard.held)
            while len(desk.heard.held) < looks + 2:
                await asyncio.sleep(0.01)
            desk.deciding.gate.set()
            while "after" not in desk.deciding.decided:
                await asyncio.sleep(0.01)
            worker.stop()
            await running

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided == ["before", "between", "after"]


def test_what_is_held_stays_held_while_nothing_comes_and_the_stream_cannot_be_asked(tmp_path: Path) -> None:
    class Silent(Memory):
        asked = 0

        def shards(self) -> Sequence[Shard]:
            self.asked += 1
            if self.asked > 2:
                raise Unreachable("nobody answers")
            return super().shards()

    stream = Silent()
    desk = Desk(tmp_path, stream)

    async def scenario() -> None:
        with closing(desk.leases()) as leases, closing(desk.leases()) as thief:
            worker = desk.worker(leases)
            running = asyncio.create_task(worker.run())
            # Three looks come in the time after which a lease ends.
            while not leases.held():
                await asyncio.sleep(0.01)
            while stream.asked < 10:
                await asyncio.sleep(0.01)
                thief.take()
                assert thief.held() == []
            worker.stop()
            await running

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_leases_that_cannot_be_renewed_for_a_while_stop_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(desk.stream, KEYS)
    broken = iter([True, True, False])
    real = Leases.know

    def know(self: Leases, *words: Any) -> None:
        if next(broken, False):
            raise Unreachable("the journal does not answer")
        real(self, *words)

    monkeypatch.setattr(Leases, "know", know)
    desk.run()
    assert desk.deciding.decided == KEYS


def test_a_stream_that_is_read_from_now_on_leaves_what_was_there(desk: Desk) -> None:
    put(desk.stream, KEYS[:3], close=False)
    desk.now = lambda: wall() + 1

    async def scenario() -> None:
        with closing(desk.leases()) as leases:
            worker = desk.worker(leases, start="LATEST")
            running = asyncio.create_task(worker.run())
            while not desk.heard.held:
                await asyncio.sleep(0.01)
            put(desk.stream, KEYS[3:5])
            await asyncio.wait_for(running, PATIENCE)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert desk.deciding.decided == KEYS[3:5]
