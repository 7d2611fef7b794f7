"""Choosing the parameters of a model on one period and fitting it on another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mlops.errors import BadData
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features.declaration import Feature
from modules.fraud_detection.src.models import base_model
from modules.fraud_detection.src.models.base_model import BaseModel, Floats, Ints
from modules.fraud_detection.src.models.encoder import Encoder
from modules.fraud_detection.src.models.split import Period
from modules.fraud_detection.src.utils.metrics import Ranking, average_precision


@dataclass(frozen=True)
class Recipe:
    """A kind of model and all that is decided about it before it learns."""

    kind: str
    parameters: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Fitted:
    """A model and the encoder that makes its matrix."""

    model: BaseModel
    encoder: Encoder

    def score(self, rows: pl.DataFrame) -> Floats:
        """The probability of each row of a table of features. Shape (rows,)."""
        return self.model.predict_proba(self.encoder.encode(rows))


@dataclass(frozen=True)
class Chosen:
    """The best of several recipes, and its scores (rows,) on the validation rows."""

    recipe: Recipe
    scores: Floats
    average_precision: float


def labelled(table: pl.DataFrame, period: Period, dataset: DataSet) -> pl.DataFrame:
    """The rows of a period whose label is known in time. Raises `BadData` unless both labels occur."""
    rows = period.rows(table, dataset.time.column, dataset.label.column, dataset.known_at_column)
    label = dataset.label.column
    for value in (1, 0):
        if not (rows[label] == value).any():
            raise BadData(
                f"column '{label}' is never {value} among the {rows.height:,} labelled rows from {period.since} to "
                f"{period.until}; a model needs both labels: correct 'data.label' or lengthen the periods of 'split'"
            )
    return rows


def labels(rows: pl.DataFrame, dataset: DataSet) -> Ints:
    """The labels of the rows as whole numbers. Shape (rows,)."""
    return rows[dataset.label.column].cast(pl.Int64).to_numpy()


def fit(rows: pl.DataFrame, features: Sequence[Feature], recipe: Recipe, dataset: DataSet) -> Fitted:
    """Learn from labelled rows."""
    encoder = Encoder.fit(rows, features)
    kind = base_model.find(recipe.kind)
    return Fitted(kind.fit(encoder.encode(rows), labels(rows, dataset), recipe.parameters, recipe.seed), encoder)


def choose(
    train: pl.DataFrame, valid: pl.DataFrame, features: Sequence[Feature], recipes: Sequence[Recipe], dataset: DataSet
) -> Chosen:
    """Fit every recipe on `train`; return the one of highest average precision on `valid`, the first of equals."""
    tries = []
    for recipe in recipes:
        scores = fit(train, features, recipe, dataset).score(valid)
        ranking = Ranking.of(scores, labels(valid, dataset))
        tries.append(Chosen(recipe, scores, average_precision(ranking, np.ones(valid.height))))
    return max(tries, key=lambda one: one.average_precision)
