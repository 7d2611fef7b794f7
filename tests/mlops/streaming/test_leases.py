"""Leases: every shard has one reader, those before it come first, and what a dead worker held is free after a while."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops.errors import Damaged
from mlops.streaming.leases import Leases
from mlops.streaming.records import Shard
from tests.mlops.alerting.test_alerts import Clock

SECONDS = 30
SECOND = 1_000_000
FOUR = [Shard(f"s{number}") for number in range(4)]
Make = Callable[[], Leases]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(database: str, clock: Clock) -> Iterator[Make]:
    made: list[Leases] = []

    def make() -> Leases:
        made.append(Leases(database, "stream", SECONDS, clock))
        return made[-1]

    yield make
    for leases in made:
        leases.close()


def held(leases: Leases) -> list[str]:
    return [lease.shard for lease in leases.renew()]


def taken(leases: Leases, alone: bool = False) -> list[str]:
    leases.take(alone)
    return held(leases)


def test_one_worker_takes_all_and_goes_on_where_another_left_off(worker: Make) -> None:
    one = worker()
    one.know(FOUR, None)
    assert taken(one) == ["s0", "s1", "s2", "s3"]
    assert one.keep("s1", "17")
    one.release()
    two = worker()
    assert taken(two) == ["s0", "s1", "s2", "s3"]
    assert {lease.shard: lease.position for lease in two.renew()}["s1"] == "17"
    assert held(one) == []


def test_what_a_dead_worker_held_is_free_when_its_lease_has_ended_and_not_before(worker: Make, clock: Clock) -> None:
    dead, two = worker(), worker()
    dead.know(FOUR[:2], None)
    assert taken(dead) == ["s0", "s1"]
    clock.at += (SECONDS - 1) * SECOND
    assert taken(two, alone=True) == []
    assert two.others()
    clock.at += 2 * SECOND
    assert not two.others()
    assert taken(two, alone=True) == ["s0", "s1"]
    assert held(dead) == []
    assert not dead.keep("s0", "5")
    assert {lease.position for lease in two.renew()} == {None}


def test_what_another_took_since_one_looked_is_not_taken_from_it(worker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = worker(), worker()
    one.know(FOUR, None)
    look = two._rows

    def late(connection: Any) -> Any:
        found = look(connection)
        monkeypatch.undo()
        one.take()
        return found

    monkeypatch.setattr(two, "_rows", late)
    two.take()
    assert (len(held(one)), held(two)) == (4, [])


def test_of_several_that_must_be_alone_one_gets_all_and_the_others_nothing(worker: Make) -> None:
    workers = [worker() for _ in range(4)]
    ready = threading.Barrier(4)
    got: list[Leases] = []

    def race(leases: Leases) -> None:
        ready.wait()
        got.extend(leases for _ in range(20) if leases.take_all(FOUR, None))

    threads = [threading.Thread(target=race, args=[each]) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holders = [each for each in workers if held(each)]
    assert [len(held(each)) for each in holders] in ([], [4])
    for each in holders:
        assert each in got
        each.release()
    assert workers[0].take_all(FOUR, None)
    assert not workers[1].take_all(FOUR, None)
    assert len(held(workers[0])) == 4


def test_who_renews_keeps_and_who_was_slow_but_not_robbed_keeps_as_well(worker: Make, clock: Clock) -> None:
    one, two = worker(), worker()
    one.know(FOUR[:1], None)
    one.take()
    for _ in range(5):
        clock.at += (SECONDS - 1) * SECOND
        assert held(one) == ["s0"]
        assert taken(two) == []
    clock.at += 10 * SECONDS * SECOND
    assert one.keep("s0", "3")
    assert taken(two) == []


def test_workers_share_and_a_new_one_gets_its_part_one_by_one(worker: Make) -> None:
    one, two, three = worker(), worker(), worker()
    one.know(FOUR, None)
    assert len(taken(one)) == 4
    assert [len(taken(two)) for _ in range(4)] == [1, 2, 2, 2]
    assert len(held(one)) == 2
    assert [len(taken(three)) for _ in range(3)] == [0, 0, 0]
    one.release()
    assert len(taken(three)) + len(taken(two)) == 4


def test_many_at_once_take_no_shard_twice(worker: Make) -> None:
    workers = [worker() for _ in range(6)]
    workers[0].know([Shard(f"s{number:02d}") for number in range(24)], None)
    ready = threading.Barrier(6)

    def race(leases: Leases) -> None:
        ready.wait()
        for _ in range(10):
            leases.take()

    threads = [threading.Thread(target=race, args=[each]) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in workers:
        each.take()
    found = [shard for each in workers for shard in held(each)]
    assert len(found) == len(set(found)) == 24


def test_a_child_is_read_when_its_parents_have_ended_and_from_its_oldest_record(worker: Make) -> None:
    one = worker()
    one.know([Shard("p"), Shard("q")], 99)
    one.know([Shard("p"), Shard("q"), Shard("c", ("p", "q")), Shard("orphan", ("gone",))], 100)
    assert taken(one) == ["orphan", "p", "q"]
    assert one.keep("p", "7", ended=True)
    assert taken(one) == ["orphan", "q"]
    assert one.keep("q", None, ended=True)
    one.take()
    assert {lease.shard: lease.since for lease in one.renew()} == {"c": None, "orphan": 100}
    assert not one.over()
    for shard in ("c", "orphan"):
        one.keep(shard, "1", ended=True)
    assert one.over()
    # What has ended does not begin again because somebody writes its place down once more.
    one.keep("c", "2")
    assert one.over()


def test_what_is_known_is_not_forgotten_by_knowing_it_again(worker: Make) -> None:
    one, two = worker(), worker()
    one.know(FOUR, 5)
    one.take()
    one.keep("s0", "42")
    two.know([*FOUR, Shard("s4")], 6)
    found = {lease.shard: (lease.position, lease.since) for lease in one.renew()}
    assert found["s0"] == ("42", 5)
    assert "s4" not in found
    assert not Leases.over(worker())


def test_streams_do_not_know_each_other(database: str, worker: Make) -> None:
    other = Leases(database, "another", SECONDS)
    one = worker()
    one.know(FOUR, None)
    one.take()
    other.know(FOUR[:1], None)
    assert taken(other, alone=True) == ["s0"]
    other.release()
    assert len(held(one)) == 4
    other.close()


def test_a_database_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    leases = Leases(f"sqlite:///{file}", "stream", SECONDS)
    leases.close()
    file.write_bytes(b"this is no database" * 1_000)
    for left in tmp_path.glob("journal.db-*"):
        left.unlink()
    with pytest.raises(Damaged, match="is damaged") as error:
        leases.know(FOUR, None)
    assert "\n" not in str(error.value)
