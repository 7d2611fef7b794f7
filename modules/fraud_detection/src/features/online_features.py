"""The second execution of the declaration: the features of one row at a time, from logs of each entity's past."""

import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mlops.errors import BadData, Damaged
from mlops.online import Ask, Layout, Logs, found_at
from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import online_kernels
from modules.fraud_detection.src.features.build_features import MICROSECONDS
from modules.fraud_detection.src.features.declaration import TIME_KINDS, Declaration, Window, features, gap_name, reach
from modules.fraud_detection.src.features.online_kernels import CODE, NUMBER, VALUES
from modules.fraud_detection.src.features.windows import Floats, Ints

Row = Mapping[str, Any]

LATE = 86_400 * MICROSECONDS
"""How late a row may come, behind its entity's newest, and still see its whole past."""
MOST = 4_096
"""Records that are remembered of one entity."""
WORD = 8
LONGEST_ID = WORD * (VALUES - online_kernels.ID)
EMPTY = b""
MARK = 0x5EED << 32


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
    columns = max((len(_columns(entity, dataset, declaration)) for entity in dataset.entities), default=0)
    longest = max((reach(declaration, entity) for entity in dataset.entities), default=0)
    told = f"{dataset.model_dump_json()} {declaration.model_dump_json()}"
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
            _Past(entity, dataset, declaration, layout, places)
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
        records = [[past.record(row) for row in rows] for past in self._pasts]
        asks = self._asks(rows, records)
        if keep:
            logs = await self._logs.exchange(asks)
        else:
            logs = _as_if_kept(asks, await self._logs.exchange([Ask(key, EMPTY) for key, _ in asks]))
        made, cut, place = np.full((len(rows), self._width), np.nan), np.zeros(len(rows), np.bool_), 0
        for past, own in zip(self._pasts, records, strict=True):
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
        return {ask.key for ask in self._records(rows) if ask.key}

    async def forget(self, rows: Sequence[Row]) -> None:
        """Take rows out of the past again."""
        await self._logs.forget([ask for ask in self._records(rows) if ask.record])

    async def learn(self, row: Row, facts: Sequence[tuple[int, int]]) -> None:
        """Count the last of the facts (known at, label) about a row from when it was known, on top of the others."""
        asks = [ask for past in self._pasts for ask in past.facts(row, facts)]
        if asks:
            await self._logs.exchange(asks)

    async def restore(self, rows: Sequence[Row], labelled: Iterable[tuple[Row, Sequence[tuple[int, int]]]]) -> None:
        """Bring rows, and all facts about rows, back into the past."""
        found: dict[str, list[bytes]] = {}
        for key, record in self._records(rows):
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

    def _records(self, rows: Sequence[Row]) -> list[Ask]:
        return self._asks(rows, [[past.record(row) for row in rows] for past in self._pasts])

    def _asks(self, rows: Sequence[Row], records: Sequence[Sequence[bytes]]) -> list[Ask]:
        """What to ask the logs: past by past, row by row."""
        asks: list[Ask] = []
        for past, own in zip(self._pasts, records, strict=True):
            for row, record in zip(rows, own, strict=True):
                asks += past.asks(row, record)
        return asks


class _Past:
    """What is remembered of one entity column, and what its windows say of it."""

    def __init__(
        self, entity: str, dataset: DataSet, declaration: Declaration, layout: Layout, places: Mapping[str, int]
    ) -> None:
        self._entity, self._dataset, self._layout = entity, dataset, layout
        self._time, self._id = dataset.time.column, dataset.id_column
        self._reach = reach(declaration, entity) * MICROSECONDS
        self._columns = _columns(entity, dataset, declaration)
        self._number = [name in dataset.numbers for name in self._columns]
        self._pack = struct.Struct(f"<qqq64s{''.join('d' if number else 'q' for number in self._number)}").pack
        self._padding = bytes(layout.size - WORD * (VALUES + len(self._columns)))
        self._gap = places[gap_name(entity)] if entity in declaration.gaps else -1
        mine = [window for window in declaration.windows if window.entity == entity]
        label = dataset.label.column
        self._value_lines = self._lines([window for window in mine if window.of != label], places)
        self._label_lines = self._lines([window for window in mine if window.of == label], places)
        self._has_events = len(self._value_lines[0]) > 0 or self._gap >= 0
        self._has_facts = len(self._label_lines[0]) > 0
        self.asked = int(self._has_events) + int(self._has_facts)

    def asks(self, row: Row, record: bytes) -> list[Ask]:
        """The record of a row for its entity's events, and the question for its facts; for no entity, nothing."""
        value = row[self._entity]
        if value is None:
            return [Ask("", EMPTY)] * self.asked
        asks = [Ask(f"{self._entity}={value}", record)] if self._has_events else []
        return [*asks, Ask(f"{self._entity}:facts={value}", EMPTY)] if self._has_facts else asks

    def facts(self, row: Row, facts: Sequence[tuple[int, int]]) -> list[Ask]:
        """The records that add the last of the facts about a row to those before it, so that sums come out right.

        As of any time the label is that of the latest fact known by then, and of two known at once that of the later
        one in order. A new fact changes the sum from its own time on, up to when the next one was known.
        """
        value = row[self._entity]
        if value is None or not self._has_facts:
            return []
        (known_at, label), earlier = facts[-1], sorted(facts[:-1], key=lambda fact: fact[0])
        before = [fact for fact in earlier if fact[0] <= known_at]
        after = [fact for fact in earlier if fact[0] > known_at]
        steps = [(known_at, 0 if before else 1, label - (before[-1][1] if before else 0))]
        if after and not before:
            steps.append((after[0][0], -1, -label))
        elif after:
            steps.append((after[0][0], 0, before[-1][1] - label))
        key = f"{self._entity}:facts={value}"
        made = []
        for number, (at, count, change) in enumerate(steps):
            told = f"{row[self._id]} {len(facts)} {number} {facts[-1]}"
            digest = hashlib.blake2b(told.encode(), digest_size=7).digest()
            words = [row[self._time], self._owner(value), at, count, change, int.from_bytes(digest, "little")]
            made.append(Ask(key, np.array(words, np.int64).tobytes().ljust(self._layout.size, b"\0")))
        return made

    def fill(self, records: Sequence[bytes], logs: Sequence[bytes], made: Floats, cut: NDArray[np.bool_]) -> None:
        """Add this entity's features to `made` (rows, features), and mark where a past may be cut."""
        own = np.frombuffer(b"".join(records), np.int64).reshape(len(records), -1)
        whole = True
        if self._has_events:
            words, starts = self._joined(logs[0 :: self.asked], cut)
            whole = online_kernels.scan_events(
                words, starts, own, *self._value_lines, self._reach, self._gap, LATE, made, cut
            )
        if self._has_facts:
            words, starts = self._joined(logs[self.asked - 1 :: self.asked], cut)
            whole = online_kernels.scan_facts(words, starts, own, *self._label_lines, LATE, made, cut) and whole
        if not whole:
            raise Damaged(f"what is remembered of a {self._entity} belongs to another")

    def seeds(self, table: pl.DataFrame) -> Iterator[tuple[str, bytes]]:
        """The records of a table, key by key."""
        time = pl.col(self._time)
        lasting = pl.lit(self._layout.keep).cast(pl.Duration("us"))
        rows = table.filter(time > time.max() - lasting).drop_nulls(self._entity)
        if rows.height == 0:
            return
        names = rows[self._entity].cast(pl.String)
        if self._has_events:
            yield from self._seed_events(rows, names)
        if self._has_facts:
            yield from self._seed_facts(rows, names)

    def _lines(self, windows: Sequence[Window], places: Mapping[str, int]) -> tuple[Ints, Ints]:
        """The windows as the kernels read them: one line for each length, and one for each thing said of it."""
        views: list[list[int]] = []
        said: list[list[int]] = []
        for window in windows:
            word = VALUES + self._columns.index(window.of) if window.of in self._columns else 0
            kind = NUMBER if window.of in self._dataset.numbers else CODE
            for length in window.lengths:
                views.append([word, kind, seconds(length) * MICROSECONDS, seconds(window.delay) * MICROSECONDS])
                of_view = [(AGGREGATES[a], places[window.name(a, length)]) for a in window.aggregates]
                said += [[len(views) - 1, aggregate, place] for aggregate, place in of_view]
        return np.array(views, np.int64).reshape(-1, 4), np.array(said, np.int64).reshape(-1, 3)

    def record(self, row: Row) -> bytes:
        """The record of a row; for no entity it belongs to nobody."""
        name = str(row[self._id])
        id_ = name.encode()
        if len(id_) > LONGEST_ID:
            raise BadData(f"'{self._id}' has {len(id_)} bytes, and an id has at most {LONGEST_ID} bytes")
        values = [
            (_number(row[column]) if number else _code(row[column]))
            for column, number in zip(self._columns, self._number, strict=True)
        ]
        packed: bytes = self._pack(row[self._time], self._owner(row[self._entity]), len(name), id_, *values)
        return packed + self._padding

    def _owner(self, value: object) -> int:
        """A mark of an entity in each of its records, so that a record that strayed from another is noticed."""
        return MARK | zlib.crc32(f"{self._entity}={value}".encode())

    def _joined(self, logs: Sequence[bytes], cut: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """The records of logs one after the other, and where each log begins; a log as full as it may be is cut."""
        size, ends = self._layout.size, [0]
        for place, log in enumerate(logs):
            records, rest = divmod(len(log), size)
            if rest:
                raise Damaged(f"what is remembered of a {self._entity} is {len(log)} bytes, no multiple of {size}")
            ends.append(ends[-1] + records)
            if records >= self._layout.most:
                cut[place] = True
        return np.frombuffer(b"".join(logs), np.int64).reshape(-1, size // WORD), np.array(ends, np.int64)

    def _seed_events(self, rows: pl.DataFrame, names: pl.Series) -> Iterator[tuple[str, bytes]]:
        size = self._layout.size
        records = np.zeros((rows.height, size), np.uint8)
        words = records.view(np.int64)
        words[:, 0] = rows[self._time].dt.timestamp("us").to_numpy()
        ids = rows[self._id].cast(pl.String)
        words[:, 2] = ids.str.len_chars().to_numpy()
        letters = np.array([text.encode() for text in ids], "S64")
        records[:, 8 * 3 : 8 * VALUES] = letters.view(np.uint8).reshape(-1, 64)
        for place, (name, number) in enumerate(zip(self._columns, self._number, strict=True)):
            column = rows[name]
            if number:
                words.view(np.float64)[:, VALUES + place] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
            else:
                codes = {text: _code(text) for text in column.cast(pl.String).unique()}
                words[:, VALUES + place] = [codes[text] for text in column.cast(pl.String)]
        yield from self._by_key(names, words)

    def _by_key(self, names: pl.Series, words: Ints) -> Iterator[tuple[str, bytes]]:
        """Bring the records of one entity together and mark them as its own."""
        codes = names.rank("dense").to_numpy()
        order = np.argsort(codes, kind="stable")
        bounds = np.flatnonzero(np.diff(codes[order], prepend=0))
        ordered = names.to_numpy()[order]
        for start, end in zip(bounds, [*bounds[1:], order.size], strict=True):
            mine = words[order[start:end]]
            mine[:, online_kernels.OWNER] = self._owner(ordered[start])
            yield f"{self._entity}={ordered[start]}", mine.tobytes()

    def _seed_facts(self, rows: pl.DataFrame, names: pl.Series) -> Iterator[tuple[str, bytes]]:
        label = self._dataset.label.column
        known = rows.with_columns(names.alias("__name"), self._dataset.known_at().alias("__known")).filter(
            pl.col(label).is_not_null() & pl.col("__known").is_not_null()
        )
        if known.height == 0:
            return
        times = known[self._time].dt.timestamp("us").to_list()
        facts = zip(known["__known"].dt.timestamp("us"), known[label], strict=True)
        keys = known["__name"].to_list()
        found: dict[str, list[bytes]] = {}
        for id_, time, name, fact in zip(known[self._id], times, keys, facts, strict=True):
            row = {self._entity: name, self._id: id_, self._time: time}
            for key, record in self.facts(row, [fact]):
                found.setdefault(key, []).append(record)
        yield from ((key, b"".join(records)) for key, records in found.items())


AGGREGATES = {
    "count": online_kernels.COUNTED,
    "sum": online_kernels.SUMMED,
    "mean": online_kernels.MEAN,
    "min": online_kernels.LEAST,
    "max": online_kernels.MOST,
    "distinct": online_kernels.DIFFERENT,
    "share": online_kernels.SHARE,
}
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


def _columns(entity: str, dataset: DataSet, declaration: Declaration) -> list[str]:
    """The columns that an entity's windows aggregate, but for the label."""
    mine = [window.of for window in declaration.windows if window.entity == entity]
    return [name for name in dict.fromkeys(mine) if name != dataset.label.column]


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


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _code(value: object) -> int:
    """A number for a text, 0 for none."""
    if value is None:
        return 0
    digest = hashlib.blake2b(str(value).encode(), digest_size=WORD).digest()
    return int.from_bytes(digest, "little", signed=True)
