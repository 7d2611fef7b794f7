"""The global picture of a model's reasons: a summary plot, a bar plot and a table. Its failure never stops training."""

import json
import logging
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl

from modules.fraud_detection.src.explainability.shap_explainer import Explanation, explain
from modules.fraud_detection.src.models.artifact import Artifact

matplotlib.use("Agg")

SUMMARY, BAR, TABLE = "shap_summary.png", "shap_bar.png", "mean_abs_shap.json"
SHOWN = 15
INK, FILL = "#1f2933", "#3566a8"


def write(artifact: Artifact, rows: pl.DataFrame, folder: Path, logger: logging.Logger) -> list[Path]:
    """Explain `rows` and write the plots and the table into `folder`; return what was written.

    Whatever goes wrong here is logged and forgotten: a model without pictures is still a model.
    """
    written: list[Path] = []
    try:
        explanation = explain(artifact, rows)
        written.append(_table(explanation, folder / TABLE))
        written.append(_bar(explanation, folder / BAR))
        written.append(_summary(explanation, artifact, rows, folder / SUMMARY))
    except Exception as error:
        logger.warning("explanations could not be written", extra={"reason": str(error)}, exc_info=True)
    return written


def _table(explanation: Explanation, path: Path) -> Path:
    rows = explanation.importance().to_dicts()
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def _bar(explanation: Explanation, path: Path) -> Path:
    from matplotlib.figure import Figure

    top = explanation.importance().head(SHOWN).reverse()
    figure = Figure(figsize=(9, 0.42 * top.height + 1.4), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(top["feature"].to_list(), top["mean_abs_shap"].to_list(), color=FILL, height=0.68)
    axes.bar_label(bars, fmt="%.3f", padding=4, color=INK, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel("mean |SHAP value| (log odds)")
    axes.set_title(f"What moves the score, over {len(explanation.base):,} transactions", loc="left", color=INK)
    figure.savefig(path, dpi=140)
    return path


def _summary(explanation: Explanation, artifact: Artifact, rows: pl.DataFrame, path: Path) -> Path:
    import shap
    from matplotlib import pyplot

    order = explanation.importance()["feature"].head(SHOWN).to_list()
    places = [explanation.features.index(name) for name in order]
    levels = artifact.card.encoder.levels
    values = np.column_stack([_numbers(rows[name], levels.get(name, ())) for name in order])
    shown = shap.Explanation(explanation.contributions[:, places], explanation.base, values, feature_names=order)
    figure = pyplot.figure()
    try:
        shap.plots.beeswarm(shown, max_display=SHOWN, show=False, plot_size=(9, 0.42 * len(order) + 1.6))
        pyplot.gca().set_title("How each feature moves the score", loc="left", color=INK)
        pyplot.gca().set_xlabel("SHAP value (log odds): left lowers the risk, right raises it")
        pyplot.savefig(path, dpi=140, bbox_inches="tight")
    finally:
        pyplot.close(figure)
    return path


def _numbers(column: pl.Series, levels: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if column.dtype == pl.String:
        places = {level: place for place, level in enumerate(levels)}
        column = column.replace_strict(places, default=None, return_dtype=pl.Float64)
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
