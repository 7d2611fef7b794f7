"""What each column may hold, declared once: tables are held against it here, requests by the API."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from mlops.values import Duration, Group
from modules.fraud_detection.src.data.dataset import DataSet

LARGEST = 1e9
"""No number may be larger: sums over a window are kept as whole millionths and must not overflow."""


class Limit(Group):
    """What a column may hold. The API holds requests against the same limits."""

    min: float | None = Field(None, description="The smallest value allowed.")
    max: float | None = Field(None, description="The largest value allowed.")
    values: tuple[str, ...] | None = Field(None, description="The categories allowed.")
    nullable: bool | None = Field(None, description="May be empty; by default only further columns and the label may.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Validation(Group):
    """The limits of every column and how much may fail before the run stops."""

    limits: Mapping[str, Limit] = Field(default_factory=dict, description="Limits by column.")
    max_bad_share: float = Field(0.01, ge=0, le=1, description="The share of bad rows over which the run stops.")
    clock_skew: Duration = Field("5m", description="How far in the future a time may lie.")


def may_be_null(name: str, dataset: DataSet, rules: Validation) -> bool:
    """Tell whether the column may be empty: as its limit says, else only further columns and the label's may."""
    limit = rules.limits.get(name)
    if limit is not None and limit.nullable is not None:
        return limit.nullable
    return name in {*dataset.numeric, *dataset.categorical, dataset.label.column, dataset.label.known_at}
