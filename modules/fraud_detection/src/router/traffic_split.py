"""Which version decides a transaction: every entity stays with its arm, and raising a weight moves nobody back."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mlops.traffic import PRODUCTION, Traffic, dealt
from mlops.values import Group
from modules.fraud_detection.src.data.dataset import DataSet


class Routing(Group):
    """Who may meet a candidate."""

    salt: str = Field("", description="Another salt deals the entities anew, so that not always the same are first.")
    production_from: float | None = Field(
        None, ge=0, description="Amounts from here on are decided by production alone; empty: candidates see all."
    )


class TrafficSplit:
    """Deals the entities of a data set to the arms: those of its first entity column, or single transactions."""

    def __init__(self, dataset: DataSet, words: Routing) -> None:
        self._key = dataset.entities[0] if dataset.entities else dataset.id_column
        self._amount, self._words = dataset.amount, words

    def arm(self, traffic: Traffic, row: Mapping[str, Any]) -> str:
        """The arm of a cleaned transaction: that of its entity, but for what production alone may decide."""
        return PRODUCTION if self._stays(row) else dealt(traffic, str(row[self._key]), self._words.salt)

    def _stays(self, row: Mapping[str, Any]) -> bool:
        limit, amount = self._words.production_from, row.get(self._amount or "")
        return limit is not None and amount is not None and amount >= limit
