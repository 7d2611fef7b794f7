"""Cleaning, step by step: pure functions, each safe to repeat, listed in the configuration."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import polars as pl
import polars.selectors as cs
from pydantic import Field

from mlops.errors import BadConfiguration
from mlops.values import Group


class Step(Group):
    """One cleaning step and the columns it touches; none named means every column that it fits."""

    do: Literal["strip", "lower", "empty_to_null", "absolute", "round_cents"] = Field(description="The step.")
    columns: tuple[str, ...] = Field((), description="The columns; none means all of the fitting type.")


def clean(frame: pl.DataFrame, steps: Sequence[Step]) -> pl.DataFrame:
    """Apply the steps in order. Rows, their order and their number stay; to clean what is clean changes nothing."""
    for step in steps:
        fitting, expression = STEPS[step.do]
        absent = [name for name in step.columns if name not in frame.columns]
        if absent:
            raise BadConfiguration(f"transform step '{step.do}' names column '{absent[0]}', which the data has not")
        chosen = cs.by_name(step.columns) & fitting if step.columns else fitting
        frame = frame.with_columns(expression(chosen.as_expr()))
    return frame


def _strip(column: pl.Expr) -> pl.Expr:
    return column.str.strip_chars()


def _lower(column: pl.Expr) -> pl.Expr:
    return column.str.to_lowercase()


def _empty_to_null(column: pl.Expr) -> pl.Expr:
    # Blanks count as empty, so that it is the same before `strip` and after it.
    return pl.when(column.str.strip_chars() != "").then(column)


def _absolute(column: pl.Expr) -> pl.Expr:
    return column.abs()


def _round_cents(column: pl.Expr) -> pl.Expr:
    return column.round(2)


STEPS: dict[str, tuple[cs.Selector, Callable[[pl.Expr], pl.Expr]]] = {
    "strip": (cs.string(), _strip),
    "lower": (cs.string(), _lower),
    "empty_to_null": (cs.string(), _empty_to_null),
    "absolute": (cs.float(), _absolute),
    "round_cents": (cs.float(), _round_cents),
}


VALUE_STEPS: dict[str, tuple[bool, Callable[[Any], Any]]] = {
    "strip": (False, str.strip),
    "lower": (False, str.lower),
    "empty_to_null": (False, lambda text: text if text.strip() else None),
    "absolute": (True, abs),
    "round_cents": (True, lambda number: round(number * 100) / 100),
}
"""The same steps for one value that is not empty, and whether they are for numbers. A test holds both equal."""
