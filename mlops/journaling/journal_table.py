"""The journal as tables: what was decided, what was seen of it, and which labels came; read on as the journal grows."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import polars as pl
from polars._typing import PolarsDataType

from mlops.contract import Record
from mlops.journaling.journal import PAGE, Journal, Row
from mlops.journaling.labels import DECISION, LABEL, decode_fact, decode_record

DECISIONS: Mapping[str, PolarsDataType] = {
    "sequence": pl.Int64, "at": pl.Int64, "key": pl.String, "id": pl.Binary, "version": pl.Int64, "arm": pl.String,
    "took": pl.Int64, "degraded": pl.Boolean, "instead_of": pl.Int64,
}  # fmt: skip
LABELS: Mapping[str, PolarsDataType] = {
    "sequence": pl.Int64, "about": pl.Binary, "label": pl.Int64, "known_at": pl.Int64,
}  # fmt: skip


class JournalTable:
    """What the journal holds of a model's decisions after a sequence number; others may stand between them.

    `decisions` has a row for each decision, with what came in as columns `row.NAME` and what was said as `said.NAME`;
    `labels` one for each fact. Times are microseconds since 1970.
    """

    def __init__(self, journal: Journal, name: str, after: int = 0) -> None:
        self._journal, self._name, self._read_to = journal, name, after
        self._decisions: list[pl.DataFrame] = []
        self._labels: list[pl.DataFrame] = []
        self._seen: dict[int, list[pl.DataFrame]] = {}

    def read_on(self) -> None:
        """Take in what came since the last time."""
        rows = self._journal.since(self._read_to)
        while page := list(islice(rows, PAGE)):
            self._take(page)
            self._read_to = page[-1].sequence

    @property
    def decisions(self) -> pl.DataFrame:
        """Every decision, in the order of the journal."""
        self._decisions = [_joined(self._decisions, DECISIONS)]
        return self._decisions[0]

    @property
    def labels(self) -> pl.DataFrame:
        """Every fact, in the order of the journal."""
        self._labels = [_joined(self._labels, LABELS)]
        return self._labels[0]

    def seen(self, version: int, names: Sequence[str]) -> pl.DataFrame:
        """What a version saw: `sequence`, then a column for each of `names`, the first or all that it has."""
        schema = {"sequence": pl.Int64} | dict.fromkeys(names, pl.Float64)
        table = _joined(self._seen.get(version, []), schema)
        if version in self._seen:
            self._seen[version] = [table]
        first = table.select(table.columns[: len(names) + 1])
        return first.rename(dict(zip(first.columns, ("sequence", *names), strict=True)))

    def _take(self, page: Sequence[Row]) -> None:
        records = [(row, decode_record(row.entry.body)) for row in page if row.entry.kind == DECISION]
        decided = [(row, record) for row, record in records if record.model.name == self._name]
        facts = [(row, decode_fact(row.entry.body)) for row in page if row.entry.kind == LABEL]
        if decided:
            self._decisions.append(_decisions(decided))
        for version in {record.model.version for _, record in decided}:
            mine = [(row.sequence, record) for row, record in decided if record.model.version == version]
            self._seen.setdefault(version, []).append(_seen(mine))
        if facts:
            values = [(row.sequence, row.entry.about, fact.label, fact.known_at) for row, fact in facts]
            self._labels.append(pl.DataFrame(values, schema=dict(LABELS), orient="row"))


def _decisions(decided: Sequence[tuple[Row, Record]]) -> pl.DataFrame:
    values = [
        (
            row.sequence, row.entry.at, record.key, row.entry.id, record.model.version, record.model.arm, record.took,
            record.degraded, record.instead_of,
        )
        for row, record in decided
    ]  # fmt: skip
    table = pl.DataFrame(values, schema=dict(DECISIONS), orient="row")
    rows, said = (_columns([getattr(record, part) for _, record in decided], part) for part in ("row", "said"))
    return pl.concat([table, rows, said], how="horizontal")


def _columns(values: Sequence[Mapping[str, Any]], part: str) -> pl.DataFrame:
    table = pl.DataFrame(values, infer_schema_length=None)
    return table.rename({name: f"{part}.{name}" for name in table.columns})


def _seen(mine: Iterable[tuple[int, Record]]) -> pl.DataFrame:
    rows = [(sequence, *record.seen) for sequence, record in mine]
    return pl.DataFrame(rows, orient="row", infer_schema_length=None)


def _joined(tables: Sequence[pl.DataFrame], empty: Mapping[str, PolarsDataType]) -> pl.DataFrame:
    """One table; a column that is empty in one of them takes its type from the others."""
    return pl.concat(tables, how="diagonal_relaxed", rechunk=True) if tables else pl.DataFrame(schema=dict(empty))
