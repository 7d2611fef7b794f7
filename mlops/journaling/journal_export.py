"""The journal as files: one Parquet table for each day, for people and programs that do not ask the database."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import polars as pl
from polars._typing import PolarsDataType

from mlops.errors import Damaged
from mlops.journaling.journal import PAGE, Journal, Row
from mlops.storage import objects
from mlops.storage.objects import MONITORING, Objects

SCHEMA: dict[str, PolarsDataType] = {
    "sequence": pl.Int64, "kind": pl.String, "id": pl.String, "about": pl.String, "at": pl.Datetime("us"),
    "body": pl.String, "hash": pl.String,
}  # fmt: skip
MICROSECOND, DAY = timedelta(microseconds=1), timedelta(days=1)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def write(journal: Journal, store: Objects, day: date) -> str | None:
    """Store the rows of a day (UTC) and return their key; nothing for a day without rows.

    The same rows give the same bytes, and replace what an earlier run of the day stored.
    """
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = journal.between((start - BEGINNING) // MICROSECOND, (start + DAY - BEGINNING) // MICROSECOND)
    tables = list(_tables(rows))
    if not tables:
        return None
    key = f"{MONITORING}/date={day.isoformat()}/journal.parquet"
    with objects.scratch() as folder:
        pl.concat(tables).write_parquet(folder / "journal.parquet", statistics=True)
        store.upload(folder / "journal.parquet", key)
    return key


def _tables(rows: Iterator[Row]) -> Iterator[pl.DataFrame]:
    while page := list(islice(rows, PAGE)):
        yield _table(page)


def _table(rows: Sequence[Row]) -> pl.DataFrame:
    entries = [row.entry for row in rows]
    columns: dict[str, Sequence[object]] = {
        "sequence": [row.sequence for row in rows],
        "kind": [entry.kind for entry in entries],
        "id": [entry.id.hex() for entry in entries],
        "about": [None if entry.about is None else entry.about.hex() for entry in entries],
        "at": [entry.at for entry in entries],
        "body": [_text(row) for row in rows],
        "hash": [row.hash.hex() for row in rows],
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def _text(row: Row) -> str:
    try:
        return row.entry.body.decode()
    except UnicodeDecodeError:
        raise Damaged(
            f"row {row.sequence} of the journal (id {row.entry.id.hex()}) is not text; restore the journal"
        ) from None
