"""What came of a story: each day with the loop and without it, in numbers and in a picture."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.models.evaluate import Evaluation, costs
from modules.fraud_detection.src.utils.metrics import Floats, Ranking, average_precision

INK, MUTED, WITH, WITHOUT, BAD, GOOD = "#1f2933", "#9aa5b1", "#3566a8", "#c2413b", "#c2413b", "#2f7d4f"
WITHOUT_IT = "_without"
SMOOTH = 7
"""Days that a point of a line looks back over: one day has few frauds."""


class Story(NamedTuple):
    """What happens on which day: the world begins on day 0, the platform decides from `live` to before `end`."""

    live: int
    change: int
    broken: int
    subtle: int
    end: int


class Event(NamedTuple):
    """Something that happened on a day."""

    day: int
    what: str
    version: int | None


class Result(NamedTuple):
    """Each day of a story, and what it comes to.

    `days` has `day`, `average_precision` and `cost` (money) with the loop and `..._without` it, and `bad`, the
    decisions of the bad version. All are judged by the truth, which no part of the platform saw before its time.
    """

    story: Story
    events: Sequence[Event]
    days: pl.DataFrame
    decisions: int

    def first(self, what: str, after: int = 0) -> int | None:
        """The first day from `after` on on which something happened."""
        return next((event.day for event in self.events if event.what == what and event.day >= after), None)


def measure(
    rows: pl.DataFrame, without: Floats, review: float, story: Story, events: Sequence[Event], dataset: DataSet,
    words: Evaluation, start: datetime, bad: int | None,
) -> Result:  # fmt: skip
    """Judge the decisions of a story.

    `rows` are the transactions with their true labels, and `score`, `flagged` and `version` as they were decided;
    `without` (rows,) are the scores of the first version, which flags from `review` on.
    """
    table = rows.with_columns(
        ((pl.col(dataset.time.column) - start).dt.total_days()).alias("day"),
        pl.Series("without", without),
        pl.Series("cost", costs(rows, rows["flagged"].to_numpy(), dataset, words)),
        pl.Series(f"cost{WITHOUT_IT}", costs(rows, without >= review, dataset, words)),
    )
    days = []
    for (day,), mine in table.group_by("day", maintain_order=True):
        back = table.filter(pl.col("day").is_between(day - SMOOTH + 1, day))
        days.append({
            "day": day, "cost": mine["cost"].sum(), f"cost{WITHOUT_IT}": mine[f"cost{WITHOUT_IT}"].sum(),
            "average_precision": _precision(back, "score", dataset),
            f"average_precision{WITHOUT_IT}": _precision(back, "without", dataset),
            "bad": 0 if bad is None else int((mine["version"] == bad).sum()),
        })  # fmt: skip
    return Result(story, events, pl.DataFrame(days), rows.height)


def table(result: Result) -> Table:
    """The numbers that the story comes to."""
    story, days = result.story, result.days
    after = days.filter(pl.col("day") >= story.change)
    found = Table(title="What the loop did", show_header=False, title_justify="left")
    detected, promoted = result.first("drift", story.change), result.first("promoted", story.change)
    early = result.first("drift")
    found.add_row("days to detect the change", _days(detected, story.change))
    found.add_row("false alarms before it", "0" if early is None or early >= story.change else "1")
    found.add_row("days until a better model was in production", _days(promoted, story.change))
    for name, since, until in (
        ("before the change", story.live, story.change), ("after it, before the better model", story.change, promoted),
        ("with the better model", promoted, story.end),
    ):  # fmt: skip
        if since is not None and until is not None:
            # The first days of a period still look back into the one before it.
            mine = days.filter(pl.col("day").is_between(min(since + SMOOTH, until) - 1, until - 1))
            names = ("average_precision", f"average_precision{WITHOUT_IT}")
            ours, theirs = (mine.select(pl.mean(each)).item() for each in names)
            found.add_row(f"average precision {name}", f"{ours:.3f}  (without the loop {theirs:.3f})")
    ours, spent = (float(after[name].to_numpy().sum()) for name in ("cost", f"cost{WITHOUT_IT}"))
    saved = spent - ours
    found.add_row("money saved since the change", f"{saved:,.0f} of {spent:,.0f} that it costs without the loop")
    found.add_row("share of decisions that the bad model made", f"{days['bad'].sum() / result.decisions:.2%}")
    return found


def draw(result: Result, path: Path) -> None:
    """Draw each day with and without the loop, and what happened, into a PNG file."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    days = result.days
    upper.plot(
        days["day"], days[f"average_precision{WITHOUT_IT}"], color=WITHOUT, linewidth=1.8, label="without the loop"
    )
    upper.plot(days["day"], days["average_precision"], color=WITH, linewidth=2.2, label="with the loop")
    upper.set(ylabel=f"average precision, {SMOOTH} days back", ylim=(0, 1.02))
    upper.set_title("A fraud pattern and a spending shift, noticed and answered by themselves", loc="left", color=INK)
    for name, color, label in ((f"cost{WITHOUT_IT}", WITHOUT, "without the loop"), ("cost", WITH, "with the loop")):
        mean = days[name].rolling_mean(SMOOTH, min_samples=1)
        lower.plot(days["day"], mean, color=color, linewidth=2, label=label)
    lower.fill_between(
        days["day"], days["cost"].rolling_mean(SMOOTH, min_samples=1),
        days[f"cost{WITHOUT_IT}"].rolling_mean(SMOOTH, min_samples=1), color=GOOD, alpha=0.12, label="saved",
    )  # fmt: skip
    lower.set(ylabel=f"cost of a day, mean of {SMOOTH}", xlabel="day")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.axvspan(result.story.change, result.story.end, color=MUTED, alpha=0.08, linewidth=0)
        axes.legend(frameon=False, loc="lower left" if axes is upper else "upper left", ncols=3)
    _mark(upper, lower, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _mark(upper: Axes, lower: Axes, result: Result) -> None:
    """Mark what happened, in rows of text that do not meet."""
    said = {
        "drift": ("drift found", BAD), "shadow": ("shadow", MUTED), "canary": ("canary", MUTED),
        "promoted": ("promoted", GOOD), "rolled back": ("rolled back", BAD), "judged": ("", MUTED),
    }  # fmt: skip
    shown = [Event(result.story.change, "the world changes", None), *result.events]
    row, last = 0, -100
    for event in shown:
        text, color = said.get(event.what, (event.what, INK))
        if not text or (event.what == "canary" and event.day - last < 3):
            continue
        for axes in (upper, lower):
            axes.axvline(event.day, color=color, linewidth=0.9, linestyle=":")
        row = (row + 1) % 4 if event.day - last < 9 else 0
        last = event.day
        named = text if event.version is None else f"{text} v{event.version}"
        upper.annotate(
            named, (event.day, 1.0 - 0.055 * row), xytext=(3, 0), textcoords="offset points", fontsize=8, color=color
        )


def _precision(rows: pl.DataFrame, score: str, dataset: DataSet) -> float | None:
    labels = rows[dataset.label.column].cast(pl.Int64).to_numpy()
    if not 0 < labels.sum() < len(labels):
        return None
    return average_precision(Ranking.of(rows[score].to_numpy(), labels), np.ones(len(labels)))


def _days(day: int | None, since: int) -> str:
    return "never" if day is None else str(day - since)
