"""The second execution of the declaration: the features of one row at a time, from logs of each entity's past."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mlops.storage.online import Ask, Layout, Logs, found_at
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import online_kernels
from modules.fraud_detection.src.features.build_features import MICROSECONDS
from modules.fraud_detection.src.features.declaration import TIME_KINDS, Declaration, features, gap_name, reach
from modules.fraud_detection.src.features.entity_past import EMPTY, LATE, WORD, EntityPast, aggregated
from modules.fraud_detection.src.features.online_kernels import VALUES
from modules.fraud_detection.src.features.windows import Floats, Ints

Row = Mapping[str, Any]

MOST = 4_096
"""Records that are remembered of one entity."""
FORMAT = 1
"""Counts up with every change of what a record holds, so that old records are never read as new ones."""


@dataclass(frozen=True)
class Built:
    """The features of some rows: numbers (rows, features), NaN where empty; the texts of categories; the doubts.

    `cut` (rows,) tells that a row's past may reach further back than what is remembered of it.
    """

    values: Floats
    texts: Mapping[str, Sequence[str | None]]
    cut: Sequence[bool]


def layout(dataset: DataSet, declaration: Declaration, most: int = MOST) -> Layout:
    """Say what is remembered, of an entity `most` records, under a name that differs for all that differs."""
    columns = max((len(aggregated(entity, dataset, declaration)) for entity in dataset.entities), default=0)
    longest = max((reach(declaration, entity) for entity in dataset.entities), default=0)
    told = f"{FORMAT} {dataset.model_dump_json()} {declaration.model_dump_json()}"
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Layout(name, WORD * (VALUES + columns), longest * MICROSECONDS + LATE, most)


class OnlineFeatures:
    """Builds features row by row. What it says of a row equals the batch engine's word on the rows so far."""

    def __init__(self, dataset: DataSet, declaration: Declaration, layout: Layout, logs: Logs) -> None:
        self._logs, self._time = logs, dataset.time.column
        wanted = features(declaration, dataset)
        self.names = [feature.name for feature in wanted]
        self._categories = [feature.name for feature in wanted if feature.is_category]
        all_made = declaration.model_copy(update={"drop": ()})
        places = {feature.name: place for place, feature in enumerate(features(all_made, dataset))}
        self._chosen = np.array([places[name] for name in self.names], np.int64)
        self._width = len(places)
        self._pasts = [
            EntityPast(entity, dataset, declaration, layout, places)
            for entity in dataset.entities
            if reach(declaration, entity) > 0
        ]
        self._numbers, self._rows = _row_lines(declaration, places, self._categories)
        self._texts = {row.name: row.of for row in declaration.rows if row.name in self._categories}

    async def build(self, rows: Sequence[Row], keep: bool = True) -> Built:
        """Make every feature of cleaned rows, each with those before it in its past.

        Ids, entities and categories are text, the time is microseconds since 1970. Without `keep` the rows leave no
        trace. Raises `Damaged` when what is remembered is not what was written, `BadData` for an id of over 64 bytes.
        """
        told = [past.asks(rows) for past in self._pasts]
        asks = [ask for _, asked in told for ask in asked]
        if keep:
            logs = await self._logs.exchange(asks)
        else:
            logs = _as_if_kept(asks, await self._logs.exchange([Ask(key, EMPTY) for key, _ in asks]))
        made, cut, place = np.full((len(rows), self._width), np.nan), np.zeros(len(rows), np.bool_), 0
        for past, (own, _) in zip(self._pasts, told, strict=True):
            size = past.asked * len(rows)
            past.fill(own, logs[place : place + size], made, cut)
            place += size
        times = np.array([row[self._time] for row in rows], np.int64)
        numbers = np.array([[row[name] for name in self._numbers] for row in rows], np.float64)
        online_kernels.fill_rows(times, numbers, self._rows, made)
        texts = {name: [row[of] for row in rows] for name, of in self._texts.items()}
        return Built(made[:, self._chosen], texts, cut.tolist())

    def keys(self, rows: Sequence[Row]) -> set[str]:
        """Name the logs that rows are in."""
        return {ask.key for ask in self._asks(rows) if ask.key}

    async def forget(self, rows: Sequence[Row]) -> None:
        """Take rows out of the past again."""
        await self._logs.forget([ask for ask in self._asks(rows) if ask.record])

    async def learn(self, row: Row, facts: Sequence[tuple[int, int]]) -> None:
        """Count the last of the facts (known at, label) about a row from when it was known, on top of the others."""
        asks = [ask for past in self._pasts for ask in past.facts(row, facts)]
        if asks:
            await self._logs.exchange(asks)

    async def restore(self, rows: Sequence[Row], labelled: Iterable[tuple[Row, Sequence[tuple[int, int]]]]) -> None:
        """Bring rows, and all facts about rows, back into the past."""
        found: dict[str, list[bytes]] = {}
        for key, record in self._asks(rows):
            if record:
                found.setdefault(key, []).append(record)
        for row, facts in labelled:
            for past in self._pasts:
                for count in range(1, len(facts) + 1):
                    for key, record in past.facts(row, facts[:count]):
                        found.setdefault(key, []).append(record)
        await self._logs.fill((key, b"".join(records)) for key, records in found.items())

    async def seed(self, table: pl.DataFrame) -> None:
        """Remember a table of cleaned transactions: its last rows, as far back as any feature can see."""
        for past in self._pasts:
            await self._logs.fill(past.seeds(table))

    def _asks(self, rows: Sequence[Row]) -> list[Ask]:
        return [ask for past in self._pasts for ask in past.asks(rows)[1]]


ROW_KINDS = {
    "column": online_kernels.COPY,
    "log": online_kernels.LOG,
    "hour": online_kernels.HOUR,
    "weekday": online_kernels.WEEKDAY,
    "weekend": online_kernels.WEEKEND,
    "night": online_kernels.NIGHT,
    "ratio": online_kernels.RATIO,
    "difference": online_kernels.DIFFERENCE,
}


def _row_lines(
    declaration: Declaration, places: Mapping[str, int], categories: Sequence[str]
) -> tuple[list[str], Ints]:
    """The row features as the kernel reads them, and the columns of numbers that they are made of."""
    made = {
        window.name(a, length) for window in declaration.windows for length in window.lengths for a in window.aggregates
    }
    made |= {gap_name(entity) for entity in declaration.gaps}
    numbers: list[str] = []
    lines = []

    def source(name: str) -> int:
        if name in made:
            return places[name]
        if name not in numbers:
            numbers.append(name)
        return -1 - numbers.index(name)

    for row in declaration.rows:
        if row.name in categories:
            continue
        place = places[row.name]
        of = place if row.kind in TIME_KINDS else source(row.of)
        lines.append([ROW_KINDS[row.kind], of, source(row.to) if row.to is not None else of, place])
        made.add(row.name)
    return numbers, np.array(lines, np.int64).reshape(-1, 4)


def _as_if_kept(asks: Sequence[Ask], logs: Sequence[bytes]) -> list[bytes]:
    """The logs as they would be with the records of the asks, each with those before it."""
    added: dict[str, list[bytes]] = {}
    found = []
    for (key, record), log in zip(asks, logs, strict=True):
        mine = added.setdefault(key, [])
        if record and found_at(record, log) < 0 and record not in mine:
            mine.append(record)
        found.append(log + b"".join(mine))
    return found
