"""Exact explanations of one row: our tables beside XGBoost's own and `shap.TreeExplainer`, interleaved, results equal.

    python -m benchmarks.explaining [--repeats 30]

All sides explain the same single rows with one model of 200 trees, 6 deep, over 30 features. `shap.TreeExplainer` runs
twice: made once before, as a careful service does, and made for every call, as tutorials write it. Every side has one
thread: with all threads, its default, `shap.TreeExplainer` takes several times as long on one row, most of it waiting.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import numpy as np
import shap
import xgboost

from modules.fraud_detection.src.models.base_model import Floats, Matrix
from modules.fraud_detection.src.models.xgb import Xgb

TREES, DEPTH, FEATURES = 200, 6, 30
CALLS = 20
OURS = "tables (ours)"
SLOW = "TreeExplainer, made per call"


def main() -> None:
    """Run all sides in turn, each on the same rows, and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    words = parser.parse_args()
    with xgboost.config_context(nthread=1):
        _compare(words.repeats)


def _compare(repeats: int) -> None:
    draw = np.random.default_rng(0)
    model, prepared = _model(draw)
    sides = _sides(model)
    rows = _matrix(draw, repeats * CALLS)
    apart = max(_largest_difference(sides, rows[place : place + 1]) for place in range(20))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        turn = rows[repeat * CALLS : (repeat + 1) * CALLS]
        for name, explain in sides.items():
            times[name].append(_timed(explain, turn[:1] if name == SLOW else turn))
    print(f"{TREES} trees, depth {DEPTH}, {FEATURES} features; one row a call, one thread, repeats {repeats}")
    print(f"tables made once in {prepared:.2f} s")
    for name, found in times.items():
        ratios = [one / ours for one, ours in zip(found, times[OURS], strict=True)]
        said = f"x ours: median {statistics.median(ratios):8.1f}  min {min(ratios):8.1f}  max {max(ratios):8.1f}"
        print(f"{name:30} median {1e6 * statistics.median(found):10,.0f} us  {said}")
    print(f"largest difference of any value {apart:.1e}")
    assert apart < 1e-4, "the sides disagree"


def _model(draw: np.random.Generator) -> tuple[Xgb, float]:
    """Fit the model and make its tables; the seconds that the tables took, the kernels being compiled."""
    matrix = _matrix(draw, 20_000)
    pull = np.nan_to_num(matrix[:, 0] * matrix[:, 1] + matrix[:, 2:].sum(axis=1) / 3)
    labels = (pull + draw.normal(size=len(matrix)) > 1.5).astype(np.int64)
    model = Xgb.fit(matrix, labels, {"rounds": TREES, "max_depth": DEPTH, "tree_method": "hist"}, 0)
    Xgb.fit(matrix[:500], labels[:500], {"rounds": 1}, 0).explain(matrix[:1])
    began = time.perf_counter()
    model.explain(matrix[:1])
    return model, time.perf_counter() - began


def _matrix(draw: np.random.Generator, rows: int) -> Matrix:
    matrix = draw.normal(size=(rows, FEATURES)).astype(np.float32)
    matrix[draw.random(matrix.shape) < 0.05] = np.nan
    return matrix


def _sides(model: Xgb) -> dict[str, Callable[[Matrix], Floats]]:
    booster = model._booster
    ready = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")

    def by_xgboost(row: Matrix) -> Floats:
        found: Floats = booster.predict(xgboost.DMatrix(row, nthread=1), pred_contribs=True)
        return found

    def by_shap(explainer: shap.TreeExplainer, row: Matrix) -> Floats:
        return np.column_stack([explainer.shap_values(row), np.full(1, explainer.expected_value)])

    def made_per_call(row: Matrix) -> Floats:
        return by_shap(shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent"), row)

    return {
        OURS: model.explain,
        "XGBoost's pred_contribs": by_xgboost,
        "TreeExplainer, made before": lambda row: by_shap(ready, row),
        SLOW: made_per_call,
    }


def _timed(explain: Callable[[Matrix], Floats], rows: Matrix) -> float:
    """The seconds of one call, the mean over `rows` given one at a time."""
    gc.collect()
    began = time.perf_counter()
    for place in range(len(rows)):
        explain(rows[place : place + 1])
    return (time.perf_counter() - began) / len(rows)


def _largest_difference(sides: dict[str, Callable[[Matrix], Floats]], row: Matrix) -> float:
    ours, *others = [explain(row) for explain in sides.values()]
    return max(float(np.abs(ours - other).max()) for other in others)


if __name__ == "__main__":
    main()
