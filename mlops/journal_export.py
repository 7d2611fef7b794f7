"""The journal as files: one Parquet table for each day, for people and programs that do not ask the database."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import polars as pl
from polars._typing import PolarsDataType

from mlops import objects
from mlops.journal import Journal, Row
from mlops.objects import MONITORING, Objects

SCHEMA: dict[str, PolarsDataType] = {
    "sequence": pl.Int64, "kind": pl.String, "id": pl.String, "about": pl.String, "at": pl.Datetime("us"),
    "body": pl.String, "hash": pl.String,
}  # fmt: skip


def write(journal: Journal, store: Objects, day: date) -> str | None:
    """Store the rows of a day (UTC) and return their key; nothing for a day without rows.

    The same rows give the same bytes, and replace what an earlier run of the day stored.
    """
    rows = [_line(row) for row in _of_day(journal, day)]
    if not rows:
        return None
    key = f"{MONITORING}/date={day.isoformat()}/journal.parquet"
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    with objects.scratch() as folder:
        table.write_parquet(folder / "journal.parquet", statistics=True)
        store.upload(folder / "journal.parquet", key)
    return key


def _of_day(journal: Journal, day: date) -> Iterator[Row]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    since, until = (round(moment.timestamp() * 1e6) for moment in (start, start + timedelta(days=1)))
    return (row for row in journal.since(0) if since <= row.entry.at < until)


def _line(row: Row) -> tuple[object, ...]:
    entry = row.entry
    at = datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=entry.at)
    about = None if entry.about is None else entry.about.hex()
    return row.sequence, entry.kind, entry.id.hex(), about, at, entry.body.decode(), row.hash.hex()
