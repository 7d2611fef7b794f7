"""Which rows a model learns from, is chosen on and is tested on: in the order of time, with the delay of labels."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl
from pydantic import Field

from mlops.errors import BadData
from mlops.values import Duration, Group, seconds


class Split(Group):
    """Lengths of the periods, laid back from the end of the data."""

    train: Duration = Field("28d", description="How much a model learns from.")
    delay: Duration = Field(
        "7d", description="The gap before a period is judged, in which its labels are not yet known."
    )
    valid: Duration = Field("7d", description="The period on which parameters and thresholds are chosen.")
    labels: Literal["then", "now"] = Field(
        "then", description="A model learns the labels that were known when its test began, or all known by now."
    )
    test: Duration = Field("7d", description="The period on which the result is reported, touched once.")


@dataclass(frozen=True)
class Period:
    """From `since` to before `until`; only labels known by `known_by` count."""

    since: datetime
    until: datetime
    known_by: datetime

    def rows(self, table: pl.DataFrame, time: str, label: str, known_at: str) -> pl.DataFrame:
        """The rows of the period whose label is known in time."""
        inside = (pl.col(time) >= self.since) & (pl.col(time) < self.until)
        return table.filter(inside & pl.col(label).is_not_null() & (pl.col(known_at) <= self.known_by))


@dataclass(frozen=True)
class Periods:
    """The four periods of one honest run.

    Parameters and thresholds are chosen with a model of `choose_train` judged on `valid`. The model that is kept learns
    from `train`, which ends where its labels were known when `test` began, and is judged on `test`.
    """

    choose_train: Period
    valid: Period
    train: Period
    test: Period


def periods(split: Split, first: datetime, last: datetime) -> Periods:
    """Lay the periods back from the midnight after `last`. Raises `BadData` where the data is too short."""
    end = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    train, delay, valid, test = (
        timedelta(seconds=seconds(x)) for x in (split.train, split.delay, split.valid, split.test)
    )
    test_start = end - test
    train_end = test_start - delay
    hindsight = split.labels == "now"
    valid_start = train_end - valid
    choose_end = valid_start - delay
    if choose_end - train < first - timedelta(days=1):
        wanted = (train + delay + valid + delay + test).days
        raise BadData(
            f"the data covers {(last - first).days} days and the split needs {wanted}: train {split.train}, delay "
            f"{split.delay}, valid {split.valid}, delay {split.delay}, test {split.test}; shorten the group 'split'"
        )
    return Periods(
        choose_train=Period(choose_end - train, choose_end, known_by=datetime.max if hindsight else valid_start),
        valid=Period(valid_start, train_end, known_by=datetime.max),
        train=Period(train_end - train, train_end, known_by=datetime.max if hindsight else test_start),
        test=Period(test_start, end, known_by=datetime.max),
    )
