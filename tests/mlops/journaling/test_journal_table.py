"""The journal as tables: the same whether read at once or as it grows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlops.contract import Fact, Record, Stamp
from mlops.journaling import journal
from mlops.journaling.journal import PAGE, Entry, Journal
from mlops.journaling.journal_table import DECISIONS, LABELS, JournalTable
from mlops.journaling.labels import DECISION, LABEL, encode
from mlops.journaling.ledger import identify

NAMES = ("amount", "channel")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Journal]:
    opened = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    yield opened
    opened.close()


def decision(key: str, seen: list[Any], version: int = 1, row: dict[str, Any] | None = None, **more: Any) -> Entry:
    stamp = Stamp("m", version, "production", "h", "c")
    said = {"score": 0.25, "decision": "approve"}
    record = Record(key, "d", {"amount": 3.5} if row is None else row, seen, said, stamp, 900, False, **more)
    return Entry(DECISION, identify("m", key), encode(record), 7)


def label(key: str, value: int, known_at: int) -> Entry:
    fact = Fact(key, value, known_at)
    return Entry(LABEL, identify("m", f"{key} {known_at} {value}"), encode(fact), 8, identify("m", key))


ENTRIES = [
    decision("a", [1.0, "web"]),
    decision("b", [None, None], row={"amount": None, "place": "x"}, instead_of=2),
    label("a", 1, 100),
    decision("c", [5.0], version=2),
    label("a", 0, 200),
    decision("d", [2.0, "shop"]),
]


def test_it_holds_what_was_decided_seen_and_learned(kept: Journal) -> None:
    kept.append(ENTRIES)
    table = JournalTable(kept, "m")
    table.read_on()
    found = table.decisions
    assert found["key"].to_list() == ["a", "b", "c", "d"]
    assert found["version"].to_list() == [1, 1, 2, 1]
    assert found["instead_of"].to_list() == [None, 2, None, None]
    assert found["row.amount"].to_list() == [3.5, None, 3.5, 3.5]
    assert found["row.place"].to_list() == [None, "x", None, None]
    assert set(found["said.score"]) == {0.25}
    assert found.select("sequence", "at", "took", "arm", "degraded").row(2) == (4, 7, 900, "production", False)
    assert found["id"].to_list() == [identify("m", key) for key in "abcd"]
    seen = table.seen(1, NAMES)
    assert seen.rows() == [(1, 1.0, "web"), (2, None, None), (6, 2.0, "shop")]
    assert table.seen(2, ["amount"]).rows() == [(4, 5.0)]
    facts = table.labels.select("label", "known_at").rows()
    assert facts == [(1, 100), (0, 200)]
    assert set(table.labels["about"]) == {identify("m", "a")}


@pytest.mark.parametrize("cut", range(len(ENTRIES) + 1))
def test_read_as_it_grows_it_is_the_same(kept: Journal, cut: int) -> None:
    growing = JournalTable(kept, "m")
    for part in (ENTRIES[:cut], ENTRIES[cut:]):
        kept.append(part)
        growing.read_on()
        growing.decisions  # noqa: B018 - asked for in between
    whole = JournalTable(kept, "m")
    whole.read_on()
    columns = sorted(whole.decisions.columns)
    assert growing.decisions.select(columns).equals(whole.decisions.select(columns))
    assert growing.labels.equals(whole.labels)
    assert growing.seen(1, NAMES).equals(whole.seen(1, NAMES))


def test_an_empty_journal_has_empty_tables(kept: Journal) -> None:
    table = JournalTable(kept, "m")
    table.read_on()
    assert table.decisions.schema == pl.Schema(DECISIONS)
    assert table.labels.schema == pl.Schema(LABELS)
    assert table.seen(1, NAMES).columns == ["sequence", *NAMES]


def test_it_begins_after_the_row_it_is_told(kept: Journal) -> None:
    kept.append(ENTRIES)
    table = JournalTable(kept, "m", after=kept.before(8))
    table.read_on()
    assert table.decisions["key"].to_list() == ["c", "d"]
    assert kept.before(7) == 0
    assert kept.before(9) == len(ENTRIES)


def test_what_is_unknown_for_long_takes_its_type_from_what_comes_later(kept: Journal) -> None:
    table = JournalTable(kept, "m")
    for key, amount, channel in (("a", None, None), ("b", 3, "web"), ("c", 3.5, None)):
        kept.append([decision(key, [amount, channel], row={"amount": amount, "channel": channel})])
        table.read_on()
        assert table.seen(1, NAMES).height == table.decisions.height
    assert table.decisions["row.amount"].to_list() == [None, 3.0, 3.5]
    assert table.decisions["row.channel"].to_list() == [None, "web", None]
    assert table.seen(1, NAMES).rows() == [(1, None, None), (2, 3.0, "web"), (3, 3.5, None)]
    assert table.seen(1, NAMES).schema["amount"] == pl.Float64


def test_more_than_a_page_is_read_at_once(kept: Journal) -> None:
    kept.append([decision(str(number), [float(number), None]) for number in range(2 * PAGE + 1)])
    table = JournalTable(kept, "m")
    table.read_on()
    assert table.decisions["key"].to_list() == [str(number) for number in range(2 * PAGE + 1)]
    assert table.seen(1, NAMES)["amount"].to_list() == list(range(2 * PAGE + 1))
