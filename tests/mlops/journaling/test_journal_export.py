"""The journal as files: every row of a day, as it is in the journal, the same bytes each time."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from mlops.errors import Damaged
from mlops.journaling import journal, journal_export
from mlops.journaling.journal import Entry
from mlops.storage import objects


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def test_the_rows_of_a_day_are_written_and_those_of_others_are_not(tmp_path: Path) -> None:
    kept = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    moments = ["2026-01-30T23:59:59.999999", "2026-01-31T00:00:00", "2026-01-31T23:59:59.999999", "2026-02-01T00:00:00"]
    kept.append([Entry("decision", bytes([n]) * 16, b'{"n":%d}' % n, at(moment)) for n, moment in enumerate(moments)])
    kept.append([Entry("label", b"l" * 16, b"{}", at("2026-01-31T12:00:00"), bytes([1]) * 16)])
    store = objects.connect(f"file://{tmp_path}/var")
    key = journal_export.write(kept, store, date(2026, 1, 31))
    assert key == "monitoring/date=2026-01-31/journal.parquet"
    with store.download(key) as path:
        table, data = pl.read_parquet(path), path.read_bytes()
    assert table["sequence"].to_list() == [2, 3, 5]
    assert table["body"].to_list() == ['{"n":1}', '{"n":2}', "{}"]
    assert table["about"].to_list() == [None, None, "01" * 16]
    assert table["at"][0] == datetime(2026, 1, 31)
    assert table["hash"].to_list() == [row.hash.hex() for row in kept.since(1) if row.sequence != 4]
    journal_export.write(kept, store, date(2026, 1, 31))
    with store.download(key) as path:
        assert path.read_bytes() == data
    assert journal_export.write(kept, store, date(2025, 1, 1)) is None
    assert store.list("monitoring") == [key]
    kept.close()


def test_a_day_of_many_pages_is_whole_whatever_the_order_of_its_times(database: str, tmp_path: Path) -> None:
    kept, noon = journal.connect(database), at("2026-01-31T12:00:00")
    moments = [noon + (-1) ** number * number * 25_000_000 for number in range(2_500)]
    kept.append([Entry("decision", n.to_bytes(16, "big"), b'{"n":%d}' % n, moment) for n, moment in enumerate(moments)])
    store = objects.connect(f"file://{tmp_path}/var")
    found = []
    days = sorted({datetime.fromtimestamp(moment / 1e6, UTC).date() for moment in moments})
    assert len(days) > 2
    for day in days:
        key = journal_export.write(kept, store, day)
        assert key is not None
        with store.download(key) as path:
            first = path.read_bytes()
            found.append(pl.read_parquet(path))
        assert found[-1]["at"].dt.date().unique().to_list() == [day]
        assert found[-1]["sequence"].is_sorted()
        journal_export.write(kept, store, day)
        with store.download(key) as path:
            assert path.read_bytes() == first
    table = pl.concat(found).sort("sequence")
    assert table["sequence"].to_list() == list(range(1, 2_501))
    assert table["at"].to_physical().to_list() == moments
    assert table["hash"][-1] == kept.verify().hash.hex()
    kept.close()


def test_a_body_that_is_no_text_is_named_and_nothing_is_stored(tmp_path: Path) -> None:
    kept = journal.connect(f"sqlite:///{tmp_path}/journal.db")
    kept.append([Entry("decision", bytes(16), b"\xff", at("2026-01-31T12:00:00"))])
    store = objects.connect(f"file://{tmp_path}/var")
    with pytest.raises(Damaged, match="row 1 of the journal .*not text"):
        journal_export.write(kept, store, date(2026, 1, 31))
    assert store.list("monitoring") == []
    kept.close()
