"""How a module does right now, from its journal alone: how long answers took, and which version failed at them."""

from datetime import timedelta

import msgspec
import polars as pl
from pydantic import Field

from mlops.journaling.journal import Journal
from mlops.journaling.journal_table import JournalTable
from mlops.values import Group

MINUTE = timedelta(minutes=1) // timedelta(microseconds=1)


class Vitals(Group):
    """When answers are too slow, or fail too often."""

    p99: float = Field(100.0, gt=0, description="Milliseconds that 99 of 100 answers may take.")
    failures: float = Field(0.01, gt=0, lt=1, description="The share of decisions on which a candidate may fail.")
    minutes: int = Field(5, ge=1, description="So many minutes in a row must be bad.")
    least: int = Field(20, ge=1, description="A minute with fewer decisions is not judged.")


class Found(msgspec.Struct, frozen=True):
    """The last whole minutes: whether each was bad, the worst and best of them, and how many decisions they had."""

    slow: bool
    failing: bool
    p99: list[float]
    failures: list[float]
    decisions: int


def look(journal: Journal, name: str, words: Vitals, now: int) -> Found:
    """Judge a module in the last whole minutes before `now` (microseconds UTC); one bad answer or minute is none."""
    end = now - now % MINUTE
    table = JournalTable(journal, name, journal.before(end - words.minutes * MINUTE))
    table.read_on()
    rows = table.decisions.filter(pl.col("at") < end)
    minutes = rows.group_by(pl.col("at") // MINUTE).agg(
        pl.col("took").quantile(0.99, "higher").alias("p99"),
        pl.col("instead_of").is_not_null().mean().alias("failures"),
        pl.len().alias("decisions"),
    )  # fmt: skip
    judged = minutes.filter(pl.col("decisions") >= words.least)
    p99, failures = [each / 1_000 for each in judged["p99"]], judged["failures"].to_list()
    full = len(p99) == words.minutes
    return Found(
        slow=full and min(p99) > words.p99, failing=full and min(failures) > words.failures, p99=p99,
        failures=failures, decisions=rows.height,
    )  # fmt: skip
