"""What a data set is: which column plays which part. A new table needs these few words and no code."""

from datetime import datetime
from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from mlops.values import Duration, Group, seconds

Kind = Literal["id", "timestamp", "number", "category", "label"]


class Time(Group):
    """How the event time is written: a timestamp or date as it is, text in a pattern, or a number since an origin."""

    column: str = Field(description="The column with the event time.")
    pattern: str | None = Field(None, description="strptime pattern of text, such as %d/%m/%Y %H:%M.")
    unit: Literal["s", "ms", "us"] | None = Field(None, description="Unit of a numeric time.")
    origin: datetime = Field(datetime(1970, 1, 1), description="What a numeric time counts from.")


class Label(Group):
    """The label column and when a label becomes known: as a column says, or a fixed time after the event."""

    column: str = Field(description="The column with the label: 1 fraud, 0 not, empty when not known.")
    known_at: str | None = Field(None, description="The column with the time at which the label became known.")
    delay: Duration | None = Field(None, description="Or the fixed time after the event, such as 7d.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.known_at is None) == (self.delay is None):
            raise ValueError("say when a label becomes known: either known_at (a column) or delay (such as 7d)")
        return self


class DataSet(Group):
    """A table of transactions: the part that each of its columns plays. Columns not named here are left alone."""

    id: str | None = Field(None, description="The transaction's id; without one, rows are numbered in file order.")
    time: Time = Field(description="The event time.")
    entities: tuple[str, ...] = Field((), description="Who takes part, most important first: customer, terminal, card.")
    amount: str | None = Field(None, description="The amount of money.")
    label: Label = Field(description="What the model learns.")
    numeric: tuple[str, ...] = Field((), description="Further columns of numbers.")
    categorical: tuple[str, ...] = Field((), description="Further columns of categories.")

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        columns = self.columns
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"column '{twice[0]}' plays two parts; name each column once")
        if self.id is None and self.id_column in columns:
            raise ValueError(f"column '{self.id_column}' has the name that numbered rows get; give it as the id")
        return self

    @property
    def columns(self) -> list[str]:
        """Every column that is named, in the order of the parts."""
        parts = [self.id, self.time.column, *self.entities, *self.numbers, *self.categorical]
        return [name for name in [*parts, self.label.column, self.label.known_at] if name is not None]

    @property
    def id_column(self) -> str:
        """The id's column, also where the rows are numbered by us."""
        return self.id or "row_number"

    @property
    def numbers(self) -> list[str]:
        """The amount and the further numbers."""
        return [*([self.amount] if self.amount else []), *self.numeric]

    @property
    def known_at_column(self) -> str:
        """The column with the time at which a label became known, also where we work it out."""
        return self.label.known_at or "label_known_at"

    def known_at(self) -> pl.Expr:
        """When each row's label becomes known, as an expression over a checked table."""
        if self.label.known_at is not None:
            return pl.col(self.label.known_at)
        return pl.col(self.time.column) + pl.duration(seconds=seconds(self.label.delay or "0s"))
