"""Schema, nulls and ranges: each value is held against its declaration; what fails is quarantined with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from mlops.errors import BadConfiguration, BadData, MlopsError
from mlops.storage.tables import missing
from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.validation.limits import LARGEST, Limit, Validation, may_be_null

ROW = "__row"
QUARANTINE = {"row": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String}
ISO, SHORT = "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"
EARLIEST = datetime(1900, 1, 1)
FURTHEST = 1e17
"""Microseconds, about 3,000 years: what a numeric time may lie from its origin."""
NULL, DUPLICATE, NOT_FINITE = "is empty", "is a duplicate of an earlier row", "is not a finite number"


@dataclass(frozen=True)
class Checked:
    """The good rows, typed, with their place `__row` in the input; the bad values: row, column, value, reason."""

    good: pl.DataFrame
    quarantine: pl.DataFrame
    rows: int

    @property
    def bad_rows(self) -> int:
        return self.rows - self.good.height


def check(frame: pl.DataFrame, dataset: DataSet, rules: Validation, now: datetime) -> Checked:
    """Hold every value of `frame` against its part in `dataset` and its limit; `now` is in UTC without a zone.

    Good rows keep their order. Times come out as microseconds in UTC without a zone, numbers as 64-bit floats, the
    label as 0, 1 or null. A row whose id an earlier row had is bad, whatever became of the earlier one.
    """
    unknown = missing(list(rules.limits), dataset.columns)
    if unknown:
        raise BadConfiguration(f"validation.limits names column '{unknown[0]}', which the group 'data' does not")
    raw = frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    typed = raw.with_columns(_casts(frame, dataset, rules))
    none = pl.DataFrame(schema=QUARANTINE)
    quarantine = pl.concat([none, *_uncastable(raw, typed, dataset), *_failures(typed, dataset, rules, now)])
    quarantine = quarantine.unique(["row", "column"], keep="first").sort("row", "column")
    good = typed.join(quarantine.select("row").unique(), left_on=ROW, right_on="row", how="anti", maintain_order="left")
    return Checked(good, quarantine, frame.height)


def enforce(checked: Checked, rules: Validation) -> None:
    """Stop with `BadData` when more rows are bad than the rules allow, naming the commonest reason and an example."""
    share = checked.bad_rows / checked.rows
    if share <= rules.max_bad_share:
        return
    counts = checked.quarantine.group_by("column", "reason").agg(pl.len(), pl.first("value"), pl.first("row"))
    column, reason, count, value, row = counts.sort("len", "column", descending=[True, False]).row(0)
    raise BadData(
        f"{checked.bad_rows:,} of {checked.rows:,} rows are bad ({share:.1%}, more than validation.max_bad_share "
        f"{rules.max_bad_share:.1%}); most often column '{column}' {reason} ({count:,} rows, first in row {row}: "
        f"{value!r}); correct the data, the limits or the share"
    )


def _casts(frame: pl.DataFrame, dataset: DataSet, rules: Validation) -> Iterator[pl.Expr]:
    for name in (name for name in dataset.columns if name in frame.columns):
        kind, column = frame.schema[name], pl.col(name)
        if name == dataset.time.column:
            yield _as_time(column, kind, dataset).alias(name)
        elif name == dataset.label.known_at:
            yield _plain_time(column, kind).alias(name)
        elif name == dataset.label.column:
            yield _as_label(column, kind).alias(name)
        elif name in dataset.numbers:
            number = column.cast(pl.Float64, strict=False)
            yield number.fill_nan(None) if may_be_null(name, dataset, rules) else number
        elif kind.is_float():
            yield _as_name(column)
        elif name in dataset.categorical or not kind.is_integer():
            yield column.cast(pl.String, strict=False)


def _as_name(column: pl.Expr) -> pl.Expr:
    """A whole number that became a float because others were missing is the name it was: 7.0 is `7`, NaN is empty."""
    number = column.fill_nan(None)
    whole = number.cast(pl.Int64, strict=False)
    return pl.when(number == whole).then(whole.cast(pl.String)).otherwise(number.cast(pl.String))


def _as_time(column: pl.Expr, kind: pl.DataType, dataset: DataSet) -> pl.Expr:
    time = dataset.time
    if time.unit is not None:
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1}[time.unit]
        given = column.cast(pl.Float64, strict=False) * scale
        offset = pl.when(given.abs() < FURTHEST).then(given.round()).cast(pl.Int64, strict=False)
        return pl.lit(time.origin, pl.Datetime("us")) + pl.duration(microseconds=offset)
    if time.pattern is not None and kind == pl.String:
        parsed = column.str.to_datetime(time.pattern, time_unit="us", strict=False)
        zoned = any(sign in time.pattern for sign in ("%z", "%:z", "%#z"))
        return parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else parsed
    return _plain_time(column, kind)


def _plain_time(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind == pl.String:
        text = column.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        utc = text.str.replace("Z$", "+00:00")
        zoned = [utc.str.to_datetime(f"{form}%:z", time_unit="us", strict=False) for form in (ISO, SHORT)]
        plain = [text.str.to_datetime(form, time_unit="us", strict=False) for form in (ISO, SHORT)]
        day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        return pl.coalesce(*plain, day, *(column.dt.replace_time_zone(None) for column in zoned))
    if isinstance(kind, pl.Datetime):
        local = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else column
        return local.dt.cast_time_unit("us")
    if kind == pl.Date:
        return column.cast(pl.Datetime("us"))
    return pl.lit(None, pl.Datetime("us"))


def _as_label(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind == pl.String:
        words = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
        return column.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Int8)
    number = column.cast(pl.Float64, strict=False).fill_nan(None)
    return pl.when(number.is_in([0.0, 1.0])).then(number).cast(pl.Int8)


def _uncastable(raw: pl.DataFrame, typed: pl.DataFrame, dataset: DataSet) -> Iterator[pl.DataFrame]:
    """Find values that were there before the cast and are gone after it."""
    for name in (name for name in dataset.columns if name in raw.columns):
        before = raw[name]
        if before.dtype.is_float():
            before = before.fill_nan(None)
        elif before.dtype == pl.String and typed.schema[name].is_float():
            before = before.set(before.str.to_lowercase() == "nan", None)
        lost = before.is_not_null() & typed[name].is_null()
        if lost.any():
            reason = "is not 0 or 1" if name == dataset.label.column else _wanted(typed.schema[name])
            bad = raw.filter(lost)
            yield _rows(bad[ROW], name, bad[name].cast(pl.String, strict=False), reason)


def _wanted(kind: pl.DataType) -> str:
    if kind.is_temporal():
        return "is not a time in the declared form"
    return "is not a number" if kind.is_float() else "is not text"


def _rows(rows: pl.Series, column: str, values: pl.Series, reason: str) -> pl.DataFrame:
    table = pl.DataFrame({"row": rows, "value": values})
    return table.select("row", pl.lit(column).alias("column"), "value", pl.lit(reason).alias("reason"))


def _failures(typed: pl.DataFrame, dataset: DataSet, rules: Validation, now: datetime) -> Iterator[pl.DataFrame]:
    """Let pandera hold the typed table against the schema and return its failures in our four columns."""
    known_at = dataset.label.known_at
    if known_at is not None and known_at in typed.columns:
        early = typed.filter(pl.col(known_at) <= pl.col(dataset.time.column))
        yield _rows(early[ROW], known_at, early[known_at].cast(pl.String), "is not after the transaction")
    try:
        _schema(typed, dataset, rules, now).validate(typed, lazy=True)
    except SchemaErrors as errors:
        if errors.failure_cases["index"].has_nulls():
            raise MlopsError(f"a check itself failed: {errors.failure_cases['failure_case'].to_list()[:3]}") from None
        yield errors.failure_cases.select(
            pl.col("index").cast(pl.Int64).alias("row"),
            "column",
            pl.col("failure_case").cast(pl.String).alias("value"),
            pl.when(pl.col("failure_case").is_in(["NaN", "inf", "-inf"]) & pl.col("column").is_in(dataset.numbers))
            .then(pl.lit(NOT_FINITE))
            .otherwise(pl.col("check").replace("not_nullable", NULL))
            .alias("reason"),
        )


def _schema(typed: pl.DataFrame, dataset: DataSet, rules: Validation, now: datetime) -> pa.DataFrameSchema:
    latest = now + timedelta(seconds=seconds(rules.clock_skew))
    columns = {}
    for name in (name for name in [dataset.id_column, *dataset.columns] if name in typed.columns):
        checks, limit = [], rules.limits.get(name, Limit())
        if name in dataset.numbers:
            checks = list(_number_checks(limit))
        elif name == dataset.id_column:
            checks = [
                pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_first_distinct()), error=DUPLICATE)
            ]
        elif name == dataset.time.column:
            checks = [pa.Check.le(latest, error="lies in the future"), pa.Check.ge(EARLIEST, error="lies before 1900")]
        elif limit.values is not None:
            checks = [_one_of(limit.values)]
        columns[name] = pa.Column(nullable=may_be_null(name, dataset, rules), checks=checks)
    return pa.DataFrameSchema(columns)


def _one_of(values: tuple[str, ...]) -> pa.Check:
    def known(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).cast(pl.String).is_in(values))

    return pa.Check(known, error=f"is not one of {', '.join(values)}")


def _number_checks(limit: Limit) -> Iterator[pa.Check]:
    low, high = (-LARGEST if limit.min is None else limit.min), (LARGEST if limit.max is None else limit.max)
    yield pa.Check.in_range(low, high, error=f"is not between {low:g} and {high:g}")
