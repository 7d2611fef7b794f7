"""From checked transactions to a table of features: the declaration read, the window engine fed, row features made."""

from collections.abc import Callable

import numpy as np
import polars as pl

from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import windows
from modules.fraud_detection.src.features.declaration import (
    LAST_HOUR_OF_NIGHT,
    Declaration,
    Row,
    Window,
    features,
    gap_name,
    reach,
)
from modules.fraud_detection.src.features.windows import SCALE, Floats, Ints, Past

NEVER = np.iinfo(np.int64).max
MICROSECONDS = 1_000_000
POSITION, KNOWN_AT = "__position", "__known_at"
ZERO_WHEN_EMPTY = ("count", "sum", "share", "distinct")


def build(table: pl.DataFrame, dataset: DataSet, declaration: Declaration) -> pl.DataFrame:
    """Make every declared feature for every row, in the order of the rows: the id column, then the features in order.

    The result depends on the rows alone and not on their order. Numbers come out as 64-bit floats, empty where there
    is nothing to say; categories as text.
    """
    wanted = features(declaration, dataset)
    made, ordered = table, _in_order(table, dataset)
    for entity in dict.fromkeys([*(window.entity for window in declaration.windows), *declaration.gaps]):
        made = made.with_columns(_of_entity(ordered, entity, declaration, dataset))
    for row in declaration.rows:
        made = made.with_columns(_of_row(row).alias(row.name))
    return made.select(dataset.id_column, *(feature.name for feature in wanted))


def _in_order(table: pl.DataFrame, dataset: DataSet) -> pl.DataFrame:
    """Sort by time and id, each row with its position in `table` and when its label becomes known."""
    known = dataset.known_at().dt.timestamp("us").fill_null(NEVER)
    return table.with_row_index(POSITION).with_columns(known.alias(KNOWN_AT)).sort(_order(table, dataset))


def _order(table: pl.DataFrame, dataset: DataSet) -> list[pl.Expr]:
    """Ids at one time are ordered: numbers by value, texts by length and then by letter, the same for digits."""
    time, id_ = pl.col(dataset.time.column), pl.col(dataset.id_column)
    return [time, id_.str.len_chars(), id_] if table.schema[dataset.id_column] == pl.String else [time, id_]


def _of_entity(ordered: pl.DataFrame, entity: str, declaration: Declaration, dataset: DataSet) -> list[pl.Series]:
    """Bring the rows of each entity together, make all windows over them, and put the results back in row order."""
    time, chosen = dataset.time.column, [window for window in declaration.windows if window.entity == entity]
    needed = dict.fromkeys([entity, time, POSITION, KNOWN_AT, *(window.of for window in chosen)])
    rows = ordered.select(list(needed)).drop_nulls(entity)
    bounds, together = windows.group(_codes(rows[entity]))
    rows = rows[together]
    past = Past(bounds, rows[time].dt.timestamp("us").to_numpy(writable=True))
    places = rows[POSITION].to_numpy()

    made: dict[str, Floats] = {}
    if entity in declaration.gaps:
        made[gap_name(entity)] = windows.gaps(past, reach(declaration, entity))
    for window in chosen:
        make = (
            _over_label(rows, past, window) if window.of == dataset.label.column else _over_values(rows, past, window)
        )
        for length in window.lengths:
            of_length = make(seconds(length) * MICROSECONDS)
            made |= {window.name(aggregate, length): of_length(aggregate) for aggregate in window.aggregates}
    zeros = {window.name(a, length) for window in chosen for length in window.lengths for a in ZERO_WHEN_EMPTY}
    return [
        _spread(name, values, places, ordered.height, 0.0 if name in zeros else np.nan) for name, values in made.items()
    ]


def _spread(name: str, values: Floats, places: Ints, rows: int, empty: float) -> pl.Series:
    """Put values where their rows lie in the table; rows without an entity get `empty`."""
    column = np.full(rows, empty)
    column[places] = values
    return pl.Series(name, column, nan_to_null=True)


OfLength = Callable[[int], Callable[[str], Floats]]


def _over_label(rows: pl.DataFrame, past: Past, window: Window) -> OfLength:
    label, delay = rows[window.of], seconds(window.delay) * MICROSECONDS
    labels = label.fill_null(0).cast(pl.Int64).to_numpy(writable=True)
    # A row never counts its own label, nor does a row at the same instant: it enters after its time at the earliest.
    enters = np.maximum(rows[KNOWN_AT].to_numpy(), past.times + max(delay, 1))
    enters = np.where(label.is_null().to_numpy(), NEVER, enters)
    order = windows.entering_order(past, enters)

    def of_length(length: int) -> Callable[[str], Floats]:
        count, total = windows.known_totals(past, labels, enters, order, length, delay)
        made = {"count": count, "sum": total, "share": total / np.maximum(count, 1)}
        return lambda aggregate: made[aggregate].astype(np.float64)

    return of_length


def _over_values(rows: pl.DataFrame, past: Past, window: Window) -> OfLength:
    column, delay = rows[window.of], seconds(window.delay) * MICROSECONDS
    present = column.is_not_null().to_numpy(writable=True)
    # A column of text is only counted.
    numbers = column.cast(pl.Float64) if column.dtype.is_numeric() else pl.zeros(column.len(), pl.Float64, eager=True)
    values = numbers.fill_null(np.nan).to_numpy(writable=True)
    exact = windows.fixed(values)
    codes = _codes(column) if "distinct" in window.aggregates else exact

    def of_length(length: int) -> Callable[[str], Floats]:
        count, total = windows.totals(past, exact, present, length, delay)

        def of_aggregate(aggregate: str) -> Floats:
            if aggregate == "count":
                return count.astype(np.float64)
            if aggregate == "sum":
                return total / SCALE
            if aggregate == "mean":
                return np.where(count > 0, total / SCALE / np.maximum(count, 1), np.nan)
            if aggregate == "distinct":
                return windows.distinct(past, codes, length, delay).astype(np.float64)
            if aggregate == "max":
                return windows.largest(past, values, present, length, delay)
            return -windows.largest(past, -values, present, length, delay)

        return of_aggregate

    return of_length


def _codes(column: pl.Series) -> Ints:
    """Give each different value a number from 0 on, an empty one -1; numbers may be left out. Shape (rows,)."""
    if column.dtype == pl.String:
        numbers = column.cast(pl.Enum(column.drop_nulls().unique())).to_physical().cast(pl.Int64)
    elif column.dtype.is_integer() and _span(column) <= 4 * column.len():
        numbers = column.cast(pl.Int64) - column.cast(pl.Int64).min()
    else:
        numbers = column.rank("dense").cast(pl.Int64) - 1
    return numbers.fill_null(-1).to_numpy(writable=True)


def _span(column: pl.Series) -> int:
    low, high = column.min(), column.max()
    return high - low if isinstance(low, int) and isinstance(high, int) else 0


def _of_row(row: Row) -> pl.Expr:
    if row.kind == "column":
        return pl.col(row.of)
    return ROW_KINDS[row.kind](pl.col(row.of), pl.col(row.to or row.of)).cast(pl.Float64)


ROW_KINDS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "log": lambda value, _: pl.when(value > -1).then(value.log1p()),
    "hour": lambda time, _: time.dt.hour(),
    "weekday": lambda time, _: time.dt.weekday() - 1,
    "weekend": lambda time, _: time.dt.weekday() >= 6,
    "night": lambda time, _: time.dt.hour() <= LAST_HOUR_OF_NIGHT,
    "ratio": lambda value, to: pl.when(to != 0).then(value / to),
    "difference": lambda value, to: value - to,
}
