"""The features of a row alone, and of features before it, for a few live rows at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modules.fraud_detection.src.features.declaration import LAST_HOUR_OF_NIGHT
from modules.fraud_detection.src.features.declaration import Row as RowFeature
from modules.fraud_detection.src.features.windows import Floats, Ints

HOUR = 3_600_000_000
DAY = 24 * HOUR
THURSDAY = 3
"""The weekday of the first of January 1970."""


def fill(
    rows: Sequence[Mapping[str, Any]],
    declared: Sequence[RowFeature],
    categories: Sequence[str],
    made: dict[str, Floats],
) -> None:
    """Add every declared feature but the categories to `made`, which holds those before it by name. Shapes (rows,)."""
    columns: dict[str, Any] = {}

    def numbers(name: str) -> Any:
        if name in made:
            return made[name]
        if name not in columns:
            columns[name] = np.array([row[name] for row in rows], np.float64)
        return columns[name]

    for feature in (feature for feature in declared if feature.name not in categories):
        if feature.kind in TIMES:
            times = np.array([row[feature.of] for row in rows], np.int64)
            made[feature.name] = TIMES[feature.kind](times).astype(np.float64)
        elif feature.kind == "column":
            made[feature.name] = numbers(feature.of)
        elif feature.kind == "log":
            made[feature.name] = np.array([_log(value) for value in numbers(feature.of).tolist()])
        elif feature.kind == "difference":
            made[feature.name] = numbers(feature.of) - numbers(feature.to or feature.of)
        else:
            made[feature.name] = _ratio(numbers(feature.of), numbers(feature.to or feature.of))


def texts(rows: Sequence[Mapping[str, Any]], declared: Sequence[RowFeature], name: str) -> list[str | None]:
    """The texts of a feature that is a category."""
    column = next(feature.of for feature in declared if feature.name == name)
    return [row[column] for row in rows]


def _log(value: float) -> float:
    return math.log1p(value) if value > -1 else math.nan


def _ratio(value: Floats, to: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return np.where(to != 0, value / to, np.nan)


TIMES: Mapping[str, Callable[[Ints], Any]] = {
    "hour": lambda times: times // HOUR % 24,
    "weekday": lambda times: (times // DAY + THURSDAY) % 7,
    "weekend": lambda times: (times // DAY + THURSDAY) % 7 >= 5,
    "night": lambda times: times // HOUR % 24 <= LAST_HOUR_OF_NIGHT,
}
