"""The second execution of the declaration: the features of one row at a time, from logs of each entity's past."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mlops.errors import Damaged
from mlops.online import Ask, Layout, Logs
from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import online_kernels, online_rows
from modules.fraud_detection.src.features.build_features import MICROSECONDS
from modules.fraud_detection.src.features.declaration import Declaration, Window, features, gap_name, reach
from modules.fraud_detection.src.features.online_kernels import VALUES, WHOLE
from modules.fraud_detection.src.features.windows import SCALE, Floats, Ints

Row = Mapping[str, Any]

LATE = 86_400 * MICROSECONDS
"""How late a row may come, behind its entity's newest, and still see its whole past."""
MOST = 4_096
"""Records that are remembered of one entity."""
WORD = 8
EMPTY = b""
MINIMUM = np.iinfo(np.int64).min
MARK = 0x5EED << 32
NUMBER, CODE, DIFFERENT = 0, 1, 2


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
        self._declaration, self._logs = declaration, logs
        self._pasts = [
            _Past(entity, dataset, declaration, layout) for entity in dataset.entities if reach(declaration, entity) > 0
        ]
        wanted = features(declaration, dataset)
        self.names = [feature.name for feature in wanted]
        self._categories = [feature.name for feature in wanted if feature.is_category]

    async def build(self, rows: Sequence[Row], keep: bool = True) -> Built:
        """Make every feature of cleaned rows, each with those before it in its past.

        Ids, entities and categories are text, the time is microseconds since 1970. Without `keep` the rows leave no
        trace. Raises `Damaged` when what is remembered is not what was written.
        """
        asks = [ask for past in self._pasts for row in rows for ask in past.asks(row)]
        given = asks if keep else [Ask(key, EMPTY) for key, _ in asks]
        logs = await self._logs.exchange(given)
        if not keep:
            logs = _as_if_kept(asks, logs)
        made: dict[str, Floats] = {}
        cut, place = np.zeros(len(rows), bool), 0
        for past in self._pasts:
            mine = logs[place : place + past.asked * len(rows)]
            place += past.asked * len(rows)
            cut |= past.fill(rows, mine, made)
        online_rows.fill(rows, self._declaration.rows, self._categories, made)
        texts = {name: online_rows.texts(rows, self._declaration.rows, name) for name in self._categories}
        values = np.empty((len(rows), len(self.names)))
        for column, name in enumerate(self.names):
            values[:, column] = np.nan if name in texts else made[name]
        return Built(values, texts, cut.tolist())

    def keys(self, rows: Sequence[Row]) -> set[str]:
        """Name the logs that rows are in."""
        return {ask.key for past in self._pasts for row in rows for ask in past.asks(row) if ask.key}

    async def forget(self, rows: Sequence[Row]) -> None:
        """Take rows out of the past again."""
        await self._logs.forget([ask for past in self._pasts for row in rows for ask in past.asks(row) if ask.record])

    async def learn(self, row: Row, facts: Sequence[tuple[int, int]]) -> None:
        """Count the last of the facts (known at, label) about a row from when it was known, on top of the others."""
        asks = [ask for past in self._pasts for ask in past.facts(row, facts)]
        if asks:
            await self._logs.exchange(asks)

    async def restore(self, rows: Iterable[Row], labelled: Iterable[tuple[Row, Sequence[tuple[int, int]]]]) -> None:
        """Bring rows, and all facts about rows, back into the past."""
        found: dict[str, list[bytes]] = {}
        for row in rows:
            for past in self._pasts:
                for key, record in past.asks(row):
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


class _Past:
    """What is remembered of one entity column, and what its windows say of it."""

    def __init__(self, entity: str, dataset: DataSet, declaration: Declaration, layout: Layout) -> None:
        self._entity, self._dataset, self._layout = entity, dataset, layout
        self._time, self._id = dataset.time.column, dataset.id_column
        self._gap = gap_name(entity) if entity in declaration.gaps else None
        self._reach = reach(declaration, entity) * MICROSECONDS
        mine = [window for window in declaration.windows if window.entity == entity]
        label = dataset.label.column
        self._over_values = [each for w in mine if w.of != label for each in self._views(w)]
        self._over_label = [_View(w, length, w.aggregates, CODE) for w in mine if w.of == label for length in w.lengths]
        self._columns = _columns(entity, dataset, declaration)
        self._numbers = [name in dataset.numbers for name in self._columns]
        self._has_events = bool(self._over_values) or self._gap is not None
        self.asked = int(self._has_events) + int(bool(self._over_label))
        self._value_specs = _specs(self._over_values)
        self._kinds = np.array([view.kind for view in self._over_values], np.int64)
        words = [VALUES + self._columns.index(view.window.of) for view in self._over_values]
        self._words = np.array(words, np.int64)
        self._label_specs = _specs(self._over_label)
        self._padding = bytes(layout.size - WORD * (VALUES + len(self._columns)))

    def asks(self, row: Row) -> list[Ask]:
        """The record of a row for its entity's events, and the question for its facts; for no entity, nothing."""
        value = row[self._entity]
        asks = []
        if self._has_events:
            asks.append(Ask("", EMPTY) if value is None else self._event(f"{self._entity}={value}", row))
        if self._over_label:
            asks.append(Ask("" if value is None else f"{self._entity}:facts={value}", EMPTY))
        return asks

    def facts(self, row: Row, facts: Sequence[tuple[int, int]]) -> list[Ask]:
        """The records that add the last of the facts about a row to those before it, so that sums come out right.

        As of any time the label is that of the latest fact known by then, and of two known at once that of the later
        one in order. A new fact changes the sum from its own time on, up to when the next one was known.
        """
        value = row[self._entity]
        if value is None or not self._over_label:
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
            words = [row[self._time], _owner(key), at, count, change, int.from_bytes(digest, "little")]
            made.append(Ask(key, np.array(words, np.int64).tobytes().ljust(self._layout.size, b"\0")))
        return made

    def fill(self, rows: Sequence[Row], logs: Sequence[bytes], made: dict[str, Floats]) -> "np.ndarray[Any, Any]":
        """Add this entity's features to `made`; return, for each row, whether its past may be cut."""
        times = np.array([row[self._time] for row in rows], np.int64)
        cut = np.zeros(len(rows), bool)
        if self._has_events:
            cut |= self._fill_events(rows, logs[0 :: self.asked], times, made)
        if self._over_label:
            cut |= self._fill_facts(rows, logs[self.asked - 1 :: self.asked], times, made)
        return cut

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
        if self._over_label:
            yield from self._seed_facts(rows, names)

    def _views(self, window: Window) -> Iterator["_View"]:
        """Different values are counted apart from all else that is said of a window."""
        kind = NUMBER if window.of in self._dataset.numbers else CODE
        others = tuple(aggregate for aggregate in window.aggregates if aggregate != "distinct")
        for length in window.lengths:
            if others:
                yield _View(window, length, others, kind)
            if len(others) < len(window.aggregates):
                yield _View(window, length, ("distinct",), DIFFERENT)

    def _event(self, key: str, row: Row) -> Ask:
        id_ = str(row[self._id]).encode()
        values = [
            _number(row[name]) if number else _code(row[name])
            for name, number in zip(self._columns, self._numbers, strict=True)
        ]
        head = np.array([row[self._time], _owner(key), len(id_)], np.int64).tobytes()
        return Ask(key, b"".join((head, id_.ljust(64, b"\0"), *values, self._padding)))

    def _fill_events(
        self, rows: Sequence[Row], logs: Sequence[bytes], times: Ints, made: dict[str, Floats]
    ) -> "np.ndarray[Any, Any]":
        words, starts = self._joined(logs)
        owners = np.array([_owner(f"{self._entity}={row[self._entity]}") for row in rows], np.int64)
        ids = [str(row[self._id]).encode() for row in rows]
        lengths = np.array([len(id_) for id_ in ids], np.int64)
        letters = np.frombuffer(b"".join(id_.ljust(64, b"\0") for id_ in ids), np.uint8).reshape(-1, 64)
        shape = (len(self._over_values), len(rows))
        counts, totals = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        lows, highs = np.full(shape, np.nan), np.full(shape, np.nan)
        last, newest = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        spans, delays = self._value_specs
        whole = online_kernels.scan_events(
            words, words.view(np.float64), words.view(np.uint8), starts, owners, times, lengths, letters, self._words,
            spans, delays, self._kinds, counts, totals, lows, highs, last, newest,
        )  # fmt: skip
        self._check(whole)
        for place, view in enumerate(self._over_values):
            found = counts[place], totals[place], lows[place], highs[place]
            for aggregate in view.aggregates:
                made[view.window.name(aggregate, view.length)] = _said(aggregate, *found)
        if self._gap is not None:
            before = np.where(last == MINIMUM, times - self._reach, last)
            made[self._gap] = np.where(times - before >= self._reach, np.nan, (times - before) / MICROSECONDS)
        records = np.diff(starts)
        return (records >= self._layout.most) | ((records > 0) & (times < newest - LATE))

    def _fill_facts(
        self, rows: Sequence[Row], logs: Sequence[bytes], times: Ints, made: dict[str, Floats]
    ) -> "np.ndarray[Any, Any]":
        words, starts = self._joined(logs)
        owners = np.array([_owner(f"{self._entity}:facts={row[self._entity]}") for row in rows], np.int64)
        shape = (len(self._over_label), len(rows))
        counts, totals = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._check(online_kernels.scan_facts(words, starts, owners, times, *self._label_specs, counts, totals))
        for place, view in enumerate(self._over_label):
            share = totals[place] / np.maximum(counts[place], 1)
            known = {"count": counts[place], "sum": totals[place], "share": share}
            for aggregate in view.aggregates:
                made[view.window.name(aggregate, view.length)] = known[aggregate].astype(np.float64)
        full: np.ndarray[Any, Any] = np.diff(starts) >= self._layout.most
        return full

    def _joined(self, logs: Sequence[bytes]) -> tuple[Ints, Ints]:
        size = self._layout.size
        for log in logs:
            if len(log) % size:
                raise Damaged(f"what is remembered of a {self._entity} is {len(log)} bytes, no multiple of {size}")
        words = np.frombuffer(b"".join(logs), np.int64).reshape(-1, size // WORD)
        starts = np.zeros(len(logs) + 1, np.int64)
        np.cumsum([len(log) // size for log in logs], out=starts[1:])
        return words, starts

    def _check(self, status: int) -> None:
        if status != WHOLE:
            raise Damaged(f"what is remembered of a {self._entity} belongs to another")

    def _seed_events(self, rows: pl.DataFrame, names: pl.Series) -> Iterator[tuple[str, bytes]]:
        size = self._layout.size
        records = np.zeros((rows.height, size), np.uint8)
        words = records.view(np.int64)
        words[:, 0] = rows[self._time].dt.timestamp("us").to_numpy()
        ids = rows[self._id].cast(pl.String)
        words[:, 2] = ids.str.len_bytes().to_numpy()
        letters = np.array([text.encode() for text in ids], "S64")
        records[:, 8 * 3 : 8 * VALUES] = letters.view(np.uint8).reshape(-1, 64)
        for place, (name, number) in enumerate(zip(self._columns, self._numbers, strict=True)):
            column = rows[name]
            if number:
                words.view(np.float64)[:, VALUES + place] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
            else:
                codes = {text: _code(text) for text in column.cast(pl.String).unique()}
                coded = b"".join(codes[text] for text in column.cast(pl.String))
                words[:, VALUES + place] = np.frombuffer(coded, np.int64)
        yield from _by_key(f"{self._entity}=", names, words)

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


def _said(aggregate: str, count: Ints, total: Ints, low: Floats, high: Floats) -> Floats:
    """One aggregate, by the same arithmetic as the batch engine's."""
    if aggregate in ("count", "distinct"):
        return count.astype(np.float64)
    if aggregate == "sum":
        return total / SCALE
    if aggregate == "mean":
        return np.where(count > 0, total / SCALE / np.maximum(count, 1), np.nan)
    return low if aggregate == "min" else high


@dataclass(frozen=True)
class _View:
    """One length of one window, and what is said of it."""

    window: Window
    length: str
    aggregates: Sequence[str]
    kind: int


def _columns(entity: str, dataset: DataSet, declaration: Declaration) -> list[str]:
    """The columns that an entity's windows aggregate, but for the label."""
    mine = [window.of for window in declaration.windows if window.entity == entity]
    return [name for name in dict.fromkeys(mine) if name != dataset.label.column]


def _specs(views: Sequence[_View]) -> tuple[Ints, Ints]:
    """The lengths and delays of windows, in microseconds."""
    spans = [seconds(view.length) * MICROSECONDS for view in views]
    return np.array(spans, np.int64), np.array([seconds(view.window.delay) * MICROSECONDS for view in views], np.int64)


def _as_if_kept(asks: Sequence[Ask], logs: Sequence[bytes]) -> list[bytes]:
    """The logs as they would be with the records of the asks, each with those before it."""
    added: dict[str, list[bytes]] = {}
    found = []
    for (key, record), log in zip(asks, logs, strict=True):
        mine = added.setdefault(key, [])
        if record and record not in log and record not in mine:
            mine.append(record)
        found.append(log + b"".join(mine))
    return found


def _owner(key: str) -> int:
    """A mark of a key in each of its records, so that a record that strayed from another key is noticed."""
    return MARK | zlib.crc32(key.encode())


def _number(value: float | None) -> bytes:
    return np.float64(np.nan if value is None else value).tobytes()


def _code(value: object) -> bytes:
    return bytes(WORD) if value is None else hashlib.blake2b(str(value).encode(), digest_size=WORD).digest()


def _by_key(prefix: str, names: pl.Series, words: Ints) -> Iterator[tuple[str, bytes]]:
    """Bring the records of one entity together and mark them as its own."""
    codes = names.rank("dense").to_numpy()
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order], prepend=0))
    ordered = names.to_numpy()[order]
    for start, end in zip(bounds, [*bounds[1:], order.size], strict=True):
        key = f"{prefix}{ordered[start]}"
        mine = words[order[start:end]]
        mine[:, online_kernels.OWNER] = _owner(key)
        yield key, mine.tobytes()
