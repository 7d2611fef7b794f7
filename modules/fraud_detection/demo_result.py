"""What came of a story: each day with the loop and without it, in numbers and in a picture."""

from collections.abc import Iterator, Sequence
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
AMBER = "#c98a2b"
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
    """Draw who answered, and each day with and without the loop, into a PNG file."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    story, upper, lower = figure.subplots(3, 1, sharex=True, height_ratios=[1.1, 2, 2])
    _who_answered(story, result)
    days, without = result.days, result.days[f"average_precision{WITHOUT_IT}"]
    upper.plot(days["day"], without, color=WITHOUT, linewidth=1.8, label="without the loop")
    upper.plot(days["day"], days["average_precision"], color=WITH, linewidth=2.2, label="with the loop")
    upper.set(ylim=(0, 1.02))
    upper.set_title(f"Average precision, {SMOOTH} days back", loc="left", color=INK)
    costs_of = [days[name].rolling_mean(SMOOTH, min_samples=1) for name in (f"cost{WITHOUT_IT}", "cost")]
    lower.plot(days["day"], costs_of[0], color=WITHOUT, linewidth=1.8, label="without the loop")
    lower.plot(days["day"], costs_of[1], color=WITH, linewidth=2.2, label="with the loop")
    lower.fill_between(days["day"], costs_of[1], costs_of[0], color=GOOD, alpha=0.13, label="saved")
    lower.set(xlabel="day", ylim=(0, None), xlim=(result.story.live, result.story.end))
    lower.set_title(f"Cost of a day: frauds that passed and reviews, mean of {SMOOTH} days", loc="left", color=INK)
    for axes in (story, upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.axvline(result.story.change, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    for axes in (upper, lower):
        axes.grid(color="#e4e7eb", linewidth=0.7)
        axes.legend(frameon=False, loc="upper left", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _who_answered(axes: Axes, result: Result) -> None:
    """Draw a bar for each time in production, in the shadow and as a canary, and a mark for what was found."""
    axes.set_title("Who answered, and what was found", loc="left", color=INK)
    axes.set_yticks([2, 1, 0], ["production", "on trial", "found"])
    axes.set_ylim(-0.6, 2.6)
    axes.tick_params(axis="y", length=0)
    for lane, first, last, color, named in _bars(result):
        axes.barh(lane, last - first, left=first, height=0.62, color=color, edgecolor="white", linewidth=1)
        if named and last - first > 2:
            axes.annotate(named, ((first + last) / 2, lane), ha="center", va="center", fontsize=9, color="white")
    changed = result.story.change, 2.45
    axes.annotate("the world changes", changed, xytext=(4, 0), textcoords="offset points", fontsize=9)
    marks = {"drift": ("drift", BAD), "refused": ("refused", INK), "rolled back": ("rolled back", BAD)}
    for place, event in enumerate(each for each in result.events if each.what in marks):
        text, color = marks[event.what]
        axes.plot(event.day, 0.25, marker="v", color=color, markersize=7)
        named = text if event.version is None else f"{text} v{event.version}"
        axes.annotate(named, (event.day, -0.12 - 0.3 * (place % 2)), ha="center", fontsize=8, color=color)


def _bars(result: Result) -> Iterator[tuple[int, int, int, str, str]]:
    """Each bar: its lane, its first and last day, its colour and its name."""
    production = [event for event in result.events if event.what == "promoted"]
    ends = [*[event.day for event in production[1:]], result.story.end]
    for event, end in zip(production, ends, strict=True):
        yield 2, event.day, end, WITH, f"version {event.version}"
    trial = [event for event in result.events if event.what in ("shadow", "canary", "promoted", "rolled back")]
    for event, after in zip(trial, [*trial[1:], Event(result.story.end, "", None)], strict=True):
        if event.what == "shadow":
            yield 1, event.day, after.day, MUTED, ""
        elif event.what == "canary":
            yield 1, event.day, after.day, AMBER, f"v{event.version}"


def _precision(rows: pl.DataFrame, score: str, dataset: DataSet) -> float | None:
    labels = rows[dataset.label.column].cast(pl.Int64).to_numpy()
    if not 0 < labels.sum() < len(labels):
        return None
    return average_precision(Ranking.of(rows[score].to_numpy(), labels), np.ones(len(labels)))


def _days(day: int | None, since: int) -> str:
    return "never" if day is None else str(day - since)
