"""Logs by key: the same promises from the memory of a process and from a real Redis."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops.errors import BadConfiguration, OutOfSpace, StorageFailed, Unreachable
from mlops.storage import redis_pipe
from mlops.storage.online import Ask, Layout, Logs, Memory
from mlops.storage.online_redis import SCRIPTS, Lost, Redis
from mlops.storage.redis_pipe import PAUSE, RedisPipe, check
from tests.redis_server import RedisServer

LAYOUT = Layout("test", 16, keep=1_000, most=100)


def record(time: int, number: int = 0) -> bytes:
    return struct.pack("<qq", time, number)


def records(log: bytes) -> list[tuple[int, int]]:
    return [struct.unpack_from("<qq", log, place) for place in range(0, len(log), 16)]


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Layout], Logs]]:
    """Makes empty logs."""
    if request.param == "memory":
        yield Memory
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    pipe = RedisPipe(server.patient_url, SCRIPTS)

    def empty(layout: Layout) -> Logs:
        with server.client() as client:
            client.flushall()
        logs = Redis(pipe, layout)
        asyncio.run(logs.reach(0))
        return logs

    yield empty
    pipe.close()


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_a_log_gives_back_what_was_added_to_it_and_to_no_other(make: Callable[[Layout], Logs]) -> None:
    logs = make(LAYOUT)
    found = run(logs.exchange([Ask("a", record(1)), Ask("b", record(2)), Ask("a", record(3)), Ask("c", b"")]))
    assert found == [record(1), record(2), record(1) + record(3), b""]
    assert run(logs.exchange([Ask("a", b"")])) == [record(1) + record(3)]


def test_a_record_stands_once_however_often_it_is_added(make: Callable[[Layout], Logs]) -> None:
    logs = make(LAYOUT)
    found = run(logs.exchange([Ask("a", record(1)), Ask("a", record(1))]))
    assert found == [record(1), record(1)]
    run(logs.fill([("a", record(2) + record(1) + record(2))]))
    assert run(logs.exchange([Ask("a", b"")])) == [record(1) + record(2)]


def test_a_forgotten_record_is_gone_and_the_others_stay(make: Callable[[Layout], Logs]) -> None:
    logs = make(LAYOUT)
    run(logs.fill([("a", record(1) + record(2) + record(3))]))
    run(logs.forget([Ask("a", record(2)), Ask("a", record(9)), Ask("z", record(1))]))
    assert run(logs.exchange([Ask("a", b""), Ask("z", b"")])) == [record(1) + record(3), b""]


def test_a_log_can_be_put_in_the_place_of_another(make: Callable[[Layout], Logs]) -> None:
    logs = make(LAYOUT)
    run(logs.fill([("a", record(1))]))
    run(logs.replace([("a", record(5) + record(6))]))
    assert run(logs.exchange([Ask("a", b"")])) == [record(5) + record(6)]


def test_how_far_it_came_only_grows(make: Callable[[Layout], Logs]) -> None:
    logs = make(LAYOUT)
    for sequence in (5, 3, 12, 0):
        run(logs.reach(sequence))
    assert run(logs.reached()) == 12


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=300))
def test_what_may_matter_is_never_trimmed_and_a_log_stays_bounded(
    make: Callable[[Layout], Logs], times: list[int]
) -> None:
    layout = Layout("bounded", 16, keep=1_000, most=1_000)
    logs = make(layout)
    found: list[bytes] = [b""]
    for place, time in enumerate(times):
        found = run(logs.exchange([Ask("a", record(time, place))]))
    newest = max(times)
    kept = dict.fromkeys(number for _, number in records(found[0]))
    # A record is safe as long as no newer one ever made it too old.
    for place, time in enumerate(times):
        if time > newest - layout.keep:
            assert place in kept
    assert len(kept) <= layout.most


def test_a_log_holds_no_more_than_it_may_and_the_first_to_come_go(make: Callable[[Layout], Logs]) -> None:
    layout = Layout("full", 16, keep=10**9, most=4)
    logs = make(layout)
    for number in range(7):
        found = run(logs.exchange([Ask("a", record(number))]))
    assert [time for time, _ in records(found[0])] == [3, 4, 5, 6]


def test_a_full_log_lets_the_oldest_go_and_never_what_came_first_but_happened_last(
    make: Callable[[Layout], Logs],
) -> None:
    logs = make(Layout("order", 16, keep=30, most=4))
    for time in (100, 71, 72, 73, 74):
        found = run(logs.exchange([Ask("a", record(time))]))
    assert [time for time, _ in records(found[0])] == [100, 72, 73, 74]
    found = run(logs.exchange([Ask("a", record(105))]))
    assert [time for time, _ in records(found[0])] == [100, 105]


def test_both_kinds_trim_at_the_same_moments(redis_server: RedisServer) -> None:
    pipe = RedisPipe(redis_server.patient_url, SCRIPTS)
    for layout in (Layout("old", 16, keep=100, most=300), Layout("full", 16, keep=10_000, most=80)):
        shared, own = Redis(pipe, layout), Memory(layout)
        run(shared.reach(0))
        for number in range(400):
            ask = [Ask("a", record((number * 37) % 500, number))]
            assert run(shared.exchange(ask)) == run(own.exchange(ask))
    pipe.close()


def test_many_records_are_filled_in_pieces_and_none_is_missing(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_pipe, "TIMEOUT", 10.0)
    pipe = RedisPipe(redis_server.patient_url, SCRIPTS)
    layout = Layout("much", 96, keep=10**12, most=4_096)
    logs = Redis(pipe, layout)

    def each(count: int) -> list[bytes]:
        return [record(999_983 * number, number) + bytes(80) for number in range(count)]

    run(logs.reach(0))
    run(logs.fill([(str(key), b"".join(each(40))) for key in range(500)] + [("hot", b"".join(each(6_000)))]))
    found = run(logs.exchange([Ask("hot", each(6_001)[-1]), Ask("7", b"")]))
    assert 4_096 <= len(found[0]) // 96 <= 4_096 + 512
    assert found[0].endswith(each(6_001)[-1])
    assert found[1] == b"".join(each(40))
    pipe.close()


@pytest.fixture
def pipe(redis_server: RedisServer) -> Iterator[RedisPipe]:
    pipe = RedisPipe(redis_server.patient_url, SCRIPTS)
    yield pipe
    pipe.close()


def test_many_who_write_to_one_key_at_once_lose_nothing(redis_server: RedisServer) -> None:
    pipes = [RedisPipe(redis_server.patient_url, SCRIPTS) for _ in range(4)]
    layout = Layout("busy", 16, keep=10**9, most=10_000)

    async def write(number: int) -> None:
        logs = Redis(pipes[number], layout)
        await asyncio.gather(*[logs.exchange([Ask("a", record(time, number))]) for time in range(200)])

    async def all_at_once() -> list[bytes]:
        logs = Redis(pipes[0], layout)
        await logs.reach(0)
        await asyncio.gather(*[write(number) for number in range(4)])
        return await logs.exchange([Ask("a", b"")])

    found = run(all_at_once())
    assert sorted(records(found[0])) == sorted((time, number) for time in range(200) for number in range(4))
    for each in pipes:
        each.close()


def test_keys_carry_their_layout_and_a_cluster_tag_and_expire_after_they_can_matter(
    redis_server: RedisServer, pipe: RedisPipe
) -> None:
    layout = Layout("ab12", 16, keep=86_400_000_000, most=10)
    logs = Redis(pipe, layout)
    run(logs.reach(0))
    run(logs.exchange([Ask("customer=7", record(1))]))
    with redis_server.client() as client:
        assert client.get("ab12:{customer=7}") == record(1)
        assert 86_400 < client.ttl("ab12:{customer=7}") <= 86_400 + 3_600
        assert client.ttl("ab12:reached") == -1


def test_a_server_that_was_killed_is_unreachable_at_once_and_then_lost(
    redis_server: RedisServer, pipe: RedisPipe
) -> None:
    logs = Redis(pipe, LAYOUT)
    run(logs.reach(0))
    run(logs.exchange([Ask("a", record(1))]))
    redis_server.kill()
    with pytest.raises(Unreachable):
        run(logs.exchange([Ask("a", record(2))]))
    redis_server.start()
    sleep(PAUSE)
    with pytest.raises(Lost, match="without what it held"):
        run(logs.exchange([Ask("a", record(2))]))
    # The connection of what nobody waits for has not heard of it yet.
    with suppress(Unreachable):
        run(logs.reached())
    sleep(PAUSE)
    assert run(logs.reached()) is None


@pytest.fixture
def hasty(redis_server: RedisServer) -> Iterator[RedisPipe]:
    """A pipe that gives up soon, though not as soon as in service."""
    pipe = RedisPipe(f"{redis_server.url}?socket_timeout=0.3", SCRIPTS)
    yield pipe
    pipe.close()


def test_a_server_that_hangs_is_given_up_within_its_time(redis_server: RedisServer, hasty: RedisPipe) -> None:
    logs = Redis(hasty, LAYOUT)
    run(logs.reach(0))
    redis_server.freeze()
    with pytest.raises(Unreachable):
        run(asyncio.wait_for(logs.exchange([Ask("a", record(1))]), 5))
    redis_server.thaw()


def test_a_server_that_failed_is_let_alone_for_a_while(redis_server: RedisServer, hasty: RedisPipe) -> None:
    logs = Redis(hasty, LAYOUT)
    run(logs.reach(0))
    redis_server.freeze()
    with pytest.raises(Unreachable):
        run(logs.exchange([Ask("a", record(1))]))
    began = monotonic()
    for _ in range(10):
        with pytest.raises(Unreachable, match="a moment ago"):
            run(logs.exchange([Ask("a", record(1))]))
    assert monotonic() - began < PAUSE
    redis_server.thaw()


def test_what_nobody_waits_for_holds_up_no_answer(redis_server: RedisServer) -> None:
    """Filling has a connection and a patience of its own: what is late there does not end what is asked beside it."""
    pipe = RedisPipe(redis_server.url, SCRIPTS)
    logs = Redis(pipe, LAYOUT)

    async def scenario() -> None:
        await logs.reach(0)
        filling = asyncio.ensure_future(
            pipe.run([("EVAL", "for i = 1, 20000000 do end", 0), ("SET", "filled", 1)], patient=True)
        )
        await asyncio.sleep(0)
        await filling
        assert await logs.exchange([Ask("a", record(1))]) == [record(1)]

    run(scenario())
    with redis_server.client() as client:
        assert client.get("filled") == b"1"
    pipe.close()


def test_after_a_reply_that_came_too_late_no_other_command_gets_it(redis_server: RedisServer, hasty: RedisPipe) -> None:
    logs = Redis(hasty, LAYOUT)
    run(logs.reach(0))
    run(logs.fill([("a", record(1)), ("b", record(2))]))
    redis_server.freeze()
    with pytest.raises(Unreachable):
        run(logs.exchange([Ask("a", b"")]))
    redis_server.thaw()
    sleep(PAUSE)
    for _ in range(5):
        assert run(logs.exchange([Ask("b", b"")])) == [record(2)]


def test_a_full_server_says_so(redis_servers: Callable[..., RedisServer]) -> None:
    server = redis_servers("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    pipe = RedisPipe(server.patient_url, SCRIPTS)
    logs = Redis(pipe, Layout("big", 1024, keep=10**9, most=100_000))
    run(logs.reach(0))
    with pytest.raises(OutOfSpace):
        for number in range(10_000):
            run(logs.exchange([Ask(str(number), record(number) + bytes(1008))]))
    pipe.close()


def test_a_server_that_would_drop_keys_is_refused(redis_servers: Callable[..., RedisServer]) -> None:
    server = redis_servers("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(BadConfiguration, match="maxmemory-policy allkeys-lru"):
        check(server.patient_url)
    with pytest.raises(BadConfiguration):
        RedisPipe("nonsense", SCRIPTS)


def test_scripts_that_the_server_forgot_are_given_again(redis_server: RedisServer, pipe: RedisPipe) -> None:
    logs = Redis(pipe, LAYOUT)
    run(logs.reach(0))
    with redis_server.client() as client:
        client.script_flush()
    assert run(logs.exchange([Ask("a", record(1))])) == [record(1)]


def test_a_closed_pipe_takes_nothing_more(redis_server: RedisServer) -> None:
    pipe = RedisPipe(redis_server.patient_url, SCRIPTS)
    pipe.close()
    with pytest.raises(StorageFailed, match="closed"):
        run(Redis(pipe, LAYOUT).exchange([Ask("a", b"")]))
