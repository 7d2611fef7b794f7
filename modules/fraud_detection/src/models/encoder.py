"""From a table of features to the matrix of a model: numbers as they are, a category as one column for each level."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import polars as pl

from mlops.values import Group
from modules.fraud_detection.src.features.declaration import Feature
from modules.fraud_detection.src.models.base_model import Floats, Matrix

LEVELS = 32
ROWS = "__rows"


class Encoder(Group):
    """The features a model was trained on, in order, and the levels of each category, commonest first.

    A level that training has not seen, or that was not among its commonest 32, sets none of the columns.
    """

    features: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]

    @classmethod
    def fit(cls, table: pl.DataFrame, features: Sequence[Feature]) -> Self:
        """Learn the levels from the training rows."""
        levels = {}
        for name in (feature.name for feature in features if feature.is_category):
            counts = table[name].drop_nulls().value_counts(name=ROWS).sort([ROWS, name], descending=[True, False])
            levels[name] = tuple(counts[name].head(LEVELS).to_list())
        return cls(features=tuple(feature.name for feature in features), levels=levels)

    @property
    def columns(self) -> list[str]:
        """The matrix's columns: `amount`, or `channel=web` for a level."""
        return [name if level is None else f"{name}={level}" for name, level in self._cells()]

    def encode(self, table: pl.DataFrame) -> Matrix:
        """Return the matrix (rows, columns); an empty number is NaN."""
        cells = [
            (pl.col(name) == level).fill_null(False) if level is not None else pl.col(name).fill_null(np.nan)
            for name, level in self._cells()
        ]
        named = [cell.cast(pl.Float32).alias(str(place)) for place, cell in enumerate(cells)]
        return table.select(named).to_numpy()

    def of_values(self, values: Floats, texts: Mapping[str, Sequence[str | None]]) -> Matrix:
        """Return the matrix (rows, columns) of features as live rows have them: numbers (rows, features), and texts."""
        if not texts:
            return values.astype(np.float32)
        places = {name: place for place, name in enumerate(self.features)}
        cells = [
            values[:, places[name]] if level is None else [text == level for text in texts[name]]
            for name, level in self._cells()
        ]
        return np.column_stack(cells).astype(np.float32)

    def of_features(self, contributions: Floats) -> Floats:
        """Add up the contributions of a category's columns; (rows, columns + 1) becomes (rows, features + 1)."""
        owners = [self.features.index(name) for name, _ in self._cells()]
        summed = np.zeros((len(contributions), len(self.features) + 1))
        for column, owner in enumerate([*owners, len(self.features)]):
            summed[:, owner] += contributions[:, column]
        return summed

    def _cells(self) -> list[tuple[str, str | None]]:
        cells: list[tuple[str, str | None]] = []
        for name in self.features:
            cells += [(name, level) for level in self.levels[name]] if name in self.levels else [(name, None)]
        return cells
