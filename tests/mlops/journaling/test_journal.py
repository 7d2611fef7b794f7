"""The journal: what was acknowledged is there, once, in one chain, on SQLite and on a real PostgreSQL."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops.errors import Damaged
from mlops.journaling import journal
from mlops.journaling.journal import Entry, Head, Journal
from tests.conftest import ROOT

ENTRY = """
import hashlib, sys
from mlops.journaling import journal

def entry(name, body="{}"):
    id_ = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return journal.Entry("decision", id_, body.encode(), 1)
"""


def entry(name: str, body: str = "{}", kind: str = "decision", about: str | None = None) -> Entry:
    def id_(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    return Entry(kind, id_(name), body.encode(), 1_700_000_000_000_000, None if about is None else id_(about))


@pytest.fixture
def kept(database: str) -> Iterator[Journal]:
    opened = journal.connect(database)
    yield opened
    opened.close()


def change(kept: Journal, statement: str) -> None:
    """Do to the tables what no part of the journal does."""
    with kept._engine.connect() as connection:
        connection.exec_driver_sql(statement)


def test_what_is_appended_is_found_in_its_order(kept: Journal) -> None:
    entries = [entry(str(number), f'{{"n":{number}}}') for number in range(2_500)]
    for start in range(0, len(entries), 700):
        kept.append(entries[start : start + 700])
    assert [row.entry for row in kept.since(0)] == entries
    assert [row.sequence for row in kept.since(2_498)] == [2_499, 2_500]
    assert kept.verify() == kept.head() == Head(2_500, next(kept.since(2_499)).hash)
    found = kept.find(entries[7].id)
    assert found is not None
    assert found.entry == entries[7]
    assert kept.find(entry("nobody").id) is None


def test_an_id_is_given_once_and_its_first_row_stands(kept: Journal) -> None:
    first = kept.append([entry("a", "1"), entry("b", "2"), entry("a", "3")])
    assert [(one.row.entry.body, one.fresh) for one in first] == [(b"1", True), (b"2", True), (b"1", False)]
    second = kept.append([entry("b", "4"), entry("c", "5")])
    assert [(one.row.entry.body, one.fresh) for one in second] == [(b"2", False), (b"5", True)]
    assert kept.append([entry("a", "6")])[0].fresh is False
    assert kept.verify().count == 3


def test_what_is_about_an_id_is_found_by_it(kept: Journal) -> None:
    kept.append([entry("a"), entry("b"), entry("l1", kind="label", about="a"), entry("l2", kind="label", about="a")])
    kept.append([entry("l3", kind="label", about="b")])
    assert [row.sequence for row in kept.about([entry("a").id])] == [3, 4]
    assert [row.sequence for row in kept.about([entry("a").id, entry("b").id])] == [3, 4, 5]
    assert kept.about([entry("c").id]) == []
    assert {row.sequence for row in kept.find_all([entry("a").id, entry("l3").id, entry("z").id])} == {1, 5}


def test_it_is_the_same_journal_when_it_is_opened_again(database: str) -> None:
    opened = journal.connect(database)
    opened.append([entry("a")])
    secret = opened.secret
    opened.close()
    again = journal.connect(database)
    assert again.secret == secret
    assert len(secret) == 32
    assert again.append([entry("a"), entry("b")])[1].row.sequence == 2
    assert again.verify().count == 2
    again.close()


@pytest.mark.parametrize(
    ("done", "named"),
    [
        ("UPDATE journal SET body = '\\x7b7d20' WHERE sequence = 3", "row 3 .*not what was written"),
        ("UPDATE journal SET at = at + 1 WHERE sequence = 4", "row 4 .*not what was written"),
        ("UPDATE journal SET kind = 'label' WHERE sequence = 5", "row 5 .*not what was written"),
        ("UPDATE journal SET about = id WHERE sequence = 2", "row 2 .*not what was written"),
        ("UPDATE journal SET about = NULL WHERE sequence = 8", "row 8 .*not what was written"),
        ("UPDATE journal SET id = '\\x7b7d20' WHERE sequence = 1", r"row 1 .*\(id 7b7d20\) is not what was written"),
        (
            "UPDATE journal SET hash = (SELECT hash FROM journal WHERE sequence = 2) WHERE sequence = 6",
            "row 6 .*not what",
        ),
        ("DELETE FROM journal WHERE sequence = 1", "row 1 of the journal is missing: after it comes row 2"),
        ("DELETE FROM journal WHERE sequence = 5", "row 5 of the journal is missing: after it comes row 6"),
        ("DELETE FROM journal WHERE sequence = 9", "row 9 of the journal is missing, of 9"),
        ("DELETE FROM journal", "row 1 of the journal is missing, of 9"),
        ("UPDATE journal SET sequence = -sequence WHERE sequence = 3", "row 3 of the journal is missing"),
        ("UPDATE journal_head SET count = 8", "row 9 .*added outside"),
        (
            "UPDATE journal_head SET count = 8, hash = (SELECT hash FROM journal WHERE sequence = 8)",
            "row 9 .*added outside",
        ),
        ("UPDATE journal_head SET count = 10", "row 10 of the journal is missing, of 10"),
        ("UPDATE journal_head SET hash = secret", r"head does not fit row 9 .*\(id "),
        ("DELETE FROM journal_head", "lost its head"),
        (
            "INSERT INTO journal SELECT 10, kind, hash, about, at, body, hash FROM journal WHERE sequence = 9",
            "row 10 .*added",
        ),
        (
            "INSERT INTO journal SELECT 0, kind, hash, about, at, body, hash FROM journal WHERE sequence = 1",
            "row 0 .*added",
        ),
        (
            "INSERT INTO journal SELECT -9, kind, hash, about, at, body, hash FROM journal WHERE sequence = 1",
            "row -9 .*added",
        ),
    ],
)
def test_any_change_is_named(kept: Journal, done: str, named: str) -> None:
    kept.append([entry(str(number), about="b" if number == 7 else None) for number in range(9)])
    assert kept.verify().count == 9
    if kept._engine.dialect.name == "sqlite":
        change(kept, "DROP TRIGGER journal_moves_head")
        done = done.replace("'\\x7b7d20'", "x'7b7d20'")
    change(kept, done)
    with pytest.raises(Damaged, match=named):
        kept.verify()


@pytest.mark.parametrize("column", ["kind", "id", "about", "at", "body", "hash"])
@pytest.mark.parametrize("value", ["1.5", "'text'", "x'ff'", "7", "CAST(x'ff' AS TEXT)"])
def test_a_value_of_the_wrong_type_is_damage_and_no_crash(tmp_path: Path, column: str, value: str) -> None:
    opened = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    opened.append([entry(str(number)) for number in range(3)])
    change(opened, f"UPDATE journal SET {column} = {value} WHERE sequence = 2")
    with pytest.raises(Damaged):
        opened.verify()
    opened.close()


def test_rows_that_change_places_are_named(kept: Journal) -> None:
    kept.append([entry(str(number)) for number in range(9)])
    change(kept, "UPDATE journal SET sequence = 100 WHERE sequence = 3")
    change(kept, "UPDATE journal SET sequence = 3 WHERE sequence = 4")
    change(kept, "UPDATE journal SET sequence = 4 WHERE sequence = 100")
    with pytest.raises(Damaged, match=f"row 3 of the journal .id {entry('3').id.hex()}"):
        kept.verify()


def test_a_row_slipped_in_with_all_after_it_moved_on_is_named(kept: Journal) -> None:
    kept.append([entry(str(number)) for number in range(9)])
    change(kept, "UPDATE journal SET sequence = sequence + 1000 WHERE sequence > 5")
    change(kept, "UPDATE journal_head SET count = 5")
    change(kept, "INSERT INTO journal SELECT 6, kind, hash, about, at, body, hash FROM journal WHERE sequence = 5")
    change(kept, "UPDATE journal SET sequence = sequence - 999 WHERE sequence > 1000")
    change(kept, "UPDATE journal_head SET count = 10")
    with pytest.raises(Damaged, match="row 6 of the journal"):
        kept.verify()


def test_a_chain_with_a_false_end_is_not_continued(kept: Journal) -> None:
    kept.append([entry(str(number)) for number in range(3)])
    change(kept, "UPDATE journal_head SET count = 2")
    with pytest.raises(Damaged, match="verify"):
        kept.append([entry("new")])
    change(kept, "UPDATE journal_head SET count = 3")
    assert kept.append([entry("new")])[0].fresh
    assert kept.verify().count == 4


def test_old_rows_get_no_new_head(database: str) -> None:
    opened = journal.connect(database)
    opened.append([entry("a")])
    change(opened, "DELETE FROM journal_head")
    for asked in (opened.head, lambda: opened.secret, lambda: opened.append([entry("b")])):
        with pytest.raises(Damaged, match="lost its head"):
            asked()
    opened.close()
    with pytest.raises(Damaged, match="lost its head"):
        journal.connect(database)


def test_a_journal_is_verified_while_others_write(database: str) -> None:
    opened, other, stop = journal.connect(database), journal.connect(database), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            other.append([entry(str(number + place)) for place in range(3)])
            number += 3

    writer = threading.Thread(target=write)
    writer.start()
    heads = [0]
    while len(heads) < 30 or heads[-1] < 90:
        heads.append(opened.verify().count)
    stop.set()
    writer.join()
    assert heads == sorted(heads)
    assert heads[-1] <= opened.verify().count
    opened.close()
    other.close()


def test_threads_share_one_journal(kept: Journal) -> None:
    found: list[list[bool]] = []

    def write() -> None:
        found.append([kept.append([entry(str(number)), entry("same")])[0].fresh for number in range(60)])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(column) for column in zip(*found, strict=True)] == [1] * 60
    assert kept.verify().count == 61


def test_more_ids_than_a_statement_takes_are_found(kept: Journal) -> None:
    entries = [entry(str(number), about=str(number % 7)) for number in range(2_100)]
    kept.append(entries)
    again = kept.append([*entries, entry("new")])
    assert [one.fresh for one in again] == [False] * 2_100 + [True]
    assert [one.row.entry for one in again[:-1]] == entries
    assert [row.entry for row in kept.about([entry(str(number)).id for number in range(2_000)])] == entries
    assert kept.append([]) == []
    assert kept.find_all([]) == kept.about([]) == []


def test_rows_of_a_time_are_given_in_the_order_of_the_chain(kept: Journal) -> None:
    times = [5, 3, 9, 3, 7, 20, 6]
    kept.append([msgspec.structs.replace(entry(str(place)), at=at) for place, at in enumerate(times)])
    assert [row.entry.at for row in kept.between(3, 9)] == [5, 3, 3, 7, 6]
    assert list(kept.between(10, 20)) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_of_any_body_is_found(tmp_path: Path, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 10**9))
    opened = journal.connect(f"sqlite:///{tmp_path}/{number}.db")
    bodies = data.draw(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5))
    opened.append([Entry("decision", bytes([place]) * 16, body, place) for place, body in enumerate(bodies)])
    place = data.draw(st.integers(0, len(bodies) - 1))
    bit = data.draw(st.integers(0, 8 * len(bodies[place]) - 1))
    changed = bytearray(bodies[place])
    changed[bit // 8] ^= 1 << bit % 8
    change(opened, f"UPDATE journal SET body = x'{changed.hex()}' WHERE sequence = {place + 1}")
    with pytest.raises(Damaged, match=f"row {place + 1} of the journal"):
        opened.verify()
    opened.close()
    (tmp_path / f"{number}.db").unlink()


def test_two_processes_write_one_chain_and_each_id_once(database: str) -> None:
    journal.connect(database).close()
    program = f"""{ENTRY}
opened = journal.connect(sys.argv[1])
fresh = 0
for start in range(0, 600, 6):
    names = [str(number) for number in range(start, start + 6)]
    fresh += sum(kept.fresh for kept in opened.append([entry(name) for name in names]))
print(fresh)
"""
    command = [sys.executable, "-c", program, database]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    fresh = [int(one.communicate(timeout=120)[0]) for one in running]
    opened = journal.connect(database)
    assert sum(fresh) == 600
    assert opened.verify().count == 600
    opened.close()


WRITER = f"""{ENTRY}
opened = journal.connect(sys.argv[1])
number = 0
while True:
    names = [sys.argv[2] + " " + str(number + place) for place in range(5)]
    opened.append([entry(name) for name in names])
    print("\\n".join(names), flush=True)
    number += 5
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged(database: str) -> None:
    """Twenty times: killed under load without warning; what it said was written is there, once, and the chain holds."""
    draw = random.Random(1)
    acknowledged: list[str] = []
    for round_ in range(20):
        command = [sys.executable, "-c", WRITER, database, str(round_)]
        writer = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(draw.randrange(1, 200))]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
    opened = journal.connect(database)
    rows = [row.entry.id for row in opened.since(0)]
    assert len(rows) == len(set(rows)) == opened.verify().count
    assert {entry(name).id for name in acknowledged} <= set(rows)
    opened.close()
