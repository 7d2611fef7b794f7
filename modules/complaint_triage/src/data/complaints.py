"""Complaints as rows: which column plays which part, how they are read, and what each must be."""

from dataclasses import dataclass

import polars as pl
from pydantic import Field

from mlops.errors import BadData
from mlops.storage import tables
from mlops.storage.tables import Source
from mlops.values import Group

ROW, REASON = "row", "reason"
ID, RECEIVED, TEXT, PRODUCT = "complaint_id", "received", "text", "product"


class DataSet(Group):
    """A table of complaints: the part that each of its columns plays. Columns not named here are left alone."""

    id: str | None = Field(None, description="The complaint's id; without one, rows are numbered in file order.")
    received: str | None = Field(None, description="When it came in (ISO, UTC); without one, file order counts.")
    text: str = Field(description="What the customer wrote.")
    product: str = Field(description="What it turned out to be about: the queue that it belongs to.")

    @property
    def columns(self) -> list[str]:
        """Every column that is named."""
        return [name for name in (self.id, self.received, self.text, self.product) if name is not None]


class Validation(Group):
    """What a complaint must be."""

    longest: int = Field(30_000, gt=0, description="Characters that a text may have.")
    max_bad_share: float = Field(0.01, ge=0, lt=1, description="Share of bad rows from which on a run stops.")


@dataclass(frozen=True)
class Checked:
    """The good rows in the order in which they came in, under our names; of the bad ones the row and the reason."""

    good: pl.DataFrame
    bad: pl.DataFrame


def load(source: Source, dataset: DataSet) -> pl.DataFrame:
    """Read complaints under our names, in input order, values as they stand. Raises `BadData`."""
    table = tables.read(source, dataset.columns).with_row_index(ROW)
    named = {ID: dataset.id or ROW, TEXT: dataset.text, PRODUCT: dataset.product}
    came = pl.lit(None, pl.String) if dataset.received is None else pl.col(dataset.received)
    return table.select(ROW, *(pl.col(theirs).alias(ours) for ours, theirs in named.items()), came.alias(RECEIVED))


def check(table: pl.DataFrame, rules: Validation, timed: bool) -> Checked:
    """Hold every row against what a complaint must be; `timed` ones need a time. A text is cleaned before."""
    typed = table.with_columns(
        pl.col(ID).cast(pl.String).str.strip_chars(),
        pl.col(PRODUCT).cast(pl.String).str.strip_chars(),
        pl.col(TEXT).cast(pl.String).map_elements(clean, pl.String),
        _moment(table).alias(RECEIVED),
    )
    bad = pl.coalesce(
        pl.when(pl.col(ID).fill_null("") == "").then(pl.lit(f"{ID} is empty")),
        pl.when(pl.col(ID).is_first_distinct().not_()).then(pl.lit(f"{ID} is that of an earlier row")),
        pl.when(pl.col(TEXT).fill_null("") == "").then(pl.lit(f"{TEXT} is empty")),
        pl.when(pl.col(TEXT).str.len_chars() > rules.longest).then(pl.lit(f"{TEXT} is too long")),
        pl.when(pl.col(PRODUCT).fill_null("") == "").then(pl.lit(f"{PRODUCT} is empty")),
        pl.when(pl.lit(timed) & pl.col(RECEIVED).is_null()).then(pl.lit(f"{RECEIVED} is not a time")),
    )
    judged = typed.with_columns(bad.alias(REASON))
    good = judged.filter(pl.col(REASON).is_null()).drop(REASON).sort(RECEIVED, ROW, maintain_order=True)
    return Checked(good, judged.filter(pl.col(REASON).is_not_null()).select(ROW, ID, REASON))


def enforce(checked: Checked, rules: Validation) -> None:
    """Stop with `BadData` when more rows are bad than the rules allow, naming the commonest reason and an example."""
    bad, rows = checked.bad.height, checked.good.height + checked.bad.height
    if bad > rules.max_bad_share * rows:
        reason, count, row = checked.bad.group_by(REASON).agg(pl.len(), pl.min(ROW)).sort("len", REASON).row(-1)
        raise BadData(
            f"{bad:,} of {rows:,} rows are bad (more than validation.max_bad_share {rules.max_bad_share:.1%}); most "
            f"often {reason} ({count:,} rows, first in row {row}); correct the data or the share"
        )


def clean(text: str) -> str:
    """The text with single spaces, the same for a table and a request."""
    return " ".join(text.split())


def _moment(table: pl.DataFrame) -> pl.Expr:
    """When a complaint came in, as microseconds in UTC without a zone; null where that is no time."""
    column, kind = pl.col(RECEIVED), table.schema[RECEIVED]
    if kind == pl.String:
        column = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    elif not kind.is_temporal():
        return pl.lit(None, pl.Datetime("us"))
    elif (isinstance(kind, pl.Datetime) and kind.time_zone is None) or kind == pl.Date:
        return column.cast(pl.Datetime("us"))
    return column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Datetime("us"))
