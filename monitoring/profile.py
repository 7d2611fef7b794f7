"""The portrait of a table that a model was trained on: what later tables are compared with to see drift."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

BINS = 20
ROWS = "__rows"


def profile(table: pl.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Describe each column: rows, share of empty ones, and either moments and a histogram or the count of each level.

    A histogram has its inner edges at the 5 % quantiles, halfway to the next value, so that no rounding moves a value
    over an edge; `counts` has one more than `edges`: what lies at or below the
    first, between two, and above the last.
    """
    return {
        name: _of_text(table[name]) if table.schema[name] == pl.String else _of_number(table[name]) for name in names
    }


def _of_number(column: pl.Series) -> dict[str, Any]:
    values = column.drop_nulls().cast(pl.Float64).to_numpy()
    described: dict[str, Any] = {"rows": column.len(), "null_share": column.null_count() / max(column.len(), 1)}
    if values.size == 0:
        return described | {"edges": [], "counts": [0]}
    known, quantiles = np.unique(values), np.quantile(values, np.arange(1, BINS) / BINS)
    above = known[np.minimum(np.searchsorted(known, quantiles, side="right"), known.size - 1)]
    edges = np.unique((quantiles + above) / 2)
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)
    moments = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    described |= {name: float(value) for name, value in moments.items()}
    return described | {"edges": edges.tolist(), "counts": counts.tolist()}


def _of_text(column: pl.Series) -> dict[str, Any]:
    counts = column.drop_nulls().value_counts(name=ROWS).sort([ROWS, column.name], descending=[True, False])
    levels = dict(zip(counts[column.name].to_list(), counts[ROWS].to_list(), strict=True))
    return {"rows": column.len(), "null_share": column.null_count() / max(column.len(), 1), "levels": levels}
