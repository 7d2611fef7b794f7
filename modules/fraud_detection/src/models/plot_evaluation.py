"""The picture of an evaluation: precision against recall, calibration, and where the scores lie."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modules.fraud_detection.src.models.evaluate import Report
from modules.fraud_detection.src.utils.metrics import Floats, Ints, Ranking

INK, MUTED, FRAUD, REST = "#1f2933", "#9aa5b1", "#c2413b", "#3566a8"


def write(report: Report, scores: Floats, labels: Ints, folder: Path) -> Path:
    """Draw the evaluation of scores (rows,) against labels (rows,) into `folder`/evaluation.png."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _precision(left, report, Ranking.of(scores, labels))
    _calibration(middle, report)
    _scores(right, scores, labels)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.title.set_color(INK)
    path = folder / "evaluation.png"
    figure.savefig(path, dpi=140)
    return path


def _precision(axes: Axes, report: Report, ranking: Ranking) -> None:
    true, false = ranking.curve(np.ones(len(ranking.labels)))
    axes.plot(true / true[-1], true / (true + false), color=REST, linewidth=2)
    axes.axhline(report.metrics["fraud_share"], color=MUTED, linestyle="--", linewidth=1)
    low, high = report.intervals["average_precision"]
    axes.set_title(
        f"Average precision {report.metrics['average_precision']:.3f}  ({low:.3f} to {high:.3f})", loc="left"
    )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))


def _calibration(axes: Axes, report: Report) -> None:
    bins = report.reliability
    positive = [value for name in ("score", "fraud") for value in bins[name] if value > 0]
    smallest = min(positive, default=1e-3) / 2
    axes.plot([smallest, 1], [smallest, 1], color=MUTED, linestyle="--", linewidth=1)
    axes.plot(bins["score"].clip(smallest), bins["fraud"].clip(smallest), color=REST, marker="o", linewidth=1.5)
    axes.set(xscale="log", yscale="log", xlabel="mean score of a tenth of the rows", ylabel="share of fraud in it")
    axes.set_title(f"Calibration error {report.metrics['calibration_error']:.4f}", loc="left")


def _scores(axes: Axes, scores: Floats, labels: Ints) -> None:
    bins = np.linspace(0, 1, 41).tolist()
    for value, name, color in ((0, "not fraud", REST), (1, "fraud", FRAUD)):
        axes.hist(scores[labels == value], bins=bins, color=color, alpha=0.65, label=name)
    axes.set(yscale="log", xlabel="score", ylabel="transactions")
    axes.set_title("Scores by label", loc="left")
    # Where a legend fits best is looked for among all bars, which takes a second on a busy machine and warns of it.
    axes.legend(frameon=False, loc="upper center")
