"""What is remembered of one entity column: records in logs, the questions to them, and what windows say of them."""

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mlops.errors import BadData, Damaged
from mlops.storage.online import Ask, Layout
from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import online_kernels
from modules.fraud_detection.src.features.build_features import MICROSECONDS
from modules.fraud_detection.src.features.declaration import Declaration, Window, gap_name, reach
from modules.fraud_detection.src.features.online_kernels import CODE, NUMBER, VALUES
from modules.fraud_detection.src.features.windows import Floats, Ints

Row = Mapping[str, Any]

LATE = 86_400 * MICROSECONDS
"""How late a row may come, behind its entity's newest, and still see its whole past."""
WORD = 8
LONGEST_ID = WORD * (VALUES - online_kernels.ID)
EMPTY = b""
NOTHING = Ask("", EMPTY)
MARK = 0x5EED << 32
AGGREGATES = {
    "count": online_kernels.COUNTED,
    "sum": online_kernels.SUMMED,
    "mean": online_kernels.MEAN,
    "min": online_kernels.LEAST,
    "max": online_kernels.MOST,
    "distinct": online_kernels.DIFFERENT,
    "share": online_kernels.SHARE,
}


class EntityPast:
    """What is remembered of one entity column, and what its windows say of it."""

    def __init__(
        self, entity: str, dataset: DataSet, declaration: Declaration, layout: Layout, places: Mapping[str, int]
    ) -> None:
        self._entity, self._dataset, self._layout = entity, dataset, layout
        self._time, self._id = dataset.time.column, dataset.id_column
        self._reach = reach(declaration, entity) * MICROSECONDS
        self._columns = aggregated(entity, dataset, declaration)
        self._number = [name in dataset.numbers for name in self._columns]
        self._numbers = [
            (name, _number if number else _code) for name, number in zip(self._columns, self._number, strict=True)
        ]
        words = "".join("d" if number else "q" for number in self._number)
        self._pack = struct.Struct(f"<qqq64s{words}{layout.size - WORD * (VALUES + len(words))}x").pack
        # A full log from which rows were taken out again has forgotten as much as a full one.
        self._full = layout.most - layout.most // 64
        self._facts = f"{entity}:facts="
        self._gap = places[gap_name(entity)] if entity in declaration.gaps else -1
        mine = [window for window in declaration.windows if window.entity == entity]
        label = dataset.label.column
        self._value_lines = self._lines([window for window in mine if window.of != label], places)
        self._label_lines = self._lines([window for window in mine if window.of == label], places)
        self._has_events = len(self._value_lines[0]) > 0 or self._gap >= 0
        self._has_facts = len(self._label_lines[0]) > 0
        self.asked = int(self._has_events) + int(self._has_facts)

    def asks(self, rows: Sequence[Row]) -> tuple[list[bytes], list[Ask]]:
        """The own record of each row; and what to ask, row by row: to add it to its entity's events, to give the facts.

        A row of no entity adds nothing and is given nothing.
        """
        own, asks = [], []
        for row in rows:
            value = row[self._entity]
            key = f"{self._entity}={value}"
            record = self._record(row, key)
            own.append(record)
            if self._has_events:
                asks.append(NOTHING if value is None else Ask(key, record))
            if self._has_facts:
                asks.append(NOTHING if value is None else Ask(f"{self._facts}{value}", EMPTY))
        return own, asks

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
        key = f"{self._facts}{value}"
        made = []
        for number, (at, count, change) in enumerate(steps):
            told = f"{row[self._id]} {len(facts)} {number} {facts[-1]}"
            digest = hashlib.blake2b(told.encode(), digest_size=7).digest()
            words = [
                row[self._time],
                _owner(f"{self._entity}={value}"),
                at,
                count,
                change,
                int.from_bytes(digest, "little"),
            ]
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

    def _record(self, row: Row, key: str) -> bytes:
        name: str = row[self._id]
        id_ = name.encode()
        if len(id_) > LONGEST_ID:
            raise BadData(f"'{self._id}' has {len(id_)} bytes, and an id has at most {LONGEST_ID} bytes")
        values = [number(row[column]) for column, number in self._numbers]
        packed: bytes = self._pack(row[self._time], _owner(key), len(name), id_, *values)
        return packed

    def _joined(self, logs: Sequence[bytes], cut: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """The records of logs one after the other, and where each log begins; a log as full as it may be is cut."""
        size, ends = self._layout.size, [0]
        for place, log in enumerate(logs):
            records, rest = divmod(len(log), size)
            if rest:
                raise Damaged(f"what is remembered of a {self._entity} is {len(log)} bytes, no multiple of {size}")
            ends.append(ends[-1] + records)
            if records >= self._full:
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
            key = f"{self._entity}={ordered[start]}"
            mine[:, online_kernels.OWNER] = _owner(key)
            yield key, mine.tobytes()

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


def aggregated(entity: str, dataset: DataSet, declaration: Declaration) -> list[str]:
    """The columns that an entity's windows aggregate, but for the label."""
    mine = [window.of for window in declaration.windows if window.entity == entity]
    return [name for name in dict.fromkeys(mine) if name != dataset.label.column]


def _owner(key: str) -> int:
    """A mark of an entity in each of its records, so that a record that strayed from another is noticed."""
    return MARK | zlib.crc32(key.encode())


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _code(value: object) -> int:
    """A number for a text, 0 for none."""
    if value is None:
        return 0
    digest = hashlib.blake2b(str(value).encode(), digest_size=WORD).digest()
    return int.from_bytes(digest, "little", signed=True)
