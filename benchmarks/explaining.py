"""Exact explanations of one row, beside a decision, and our tables beside XGBoost's own and `shap.TreeExplainer`.

    python -m benchmarks.explaining [--repeats 30] [--decisions 5000]

First a version of the default size decides new transactions and explains each decision, one after the other, with its
past in this process and in Redis, and its journal on disk.

Then all sides explain the same single rows with one model of 200 trees, 6 deep, over 30 features. `shap.TreeExplainer`
runs twice: made once before, as a careful service does, and made for every call, as tutorials write it. Every side has
one thread: with all threads, its default, `shap.TreeExplainer` takes several times as long on one row, most of it
waiting.
"""

import argparse
import asyncio
import gc
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import shap
import uvloop
import xgboost

from benchmarks.serving import transactions
from mlops import bootstrap
from mlops.serving.decider import Decider
from mlops.serving.scoring import Decided
from mlops.storage.online import Ask, Memory
from mlops.storage.online_redis import Redis
from modules.fraud_detection import settings
from modules.fraud_detection.decider import kind
from modules.fraud_detection.src.live_predictor import LivePredictor
from modules.fraud_detection.src.models.base_model import Floats, Matrix
from modules.fraud_detection.src.models.xgb import Xgb
from tests.redis_server import RedisServer, program

TREES, DEPTH, FEATURES = 200, 6, 30
CALLS = 20
TOP = 3
WARM = 200
"""Transactions before the first that counts."""
LATE = 2**62
"""A time, in microseconds, after that of every transaction."""
OURS = "tables (ours)"
SLOW = "TreeExplainer, made per call"
Exchange = Callable[[Any, Sequence[Ask]], Awaitable[list[bytes]]]


def main() -> None:
    """Run both parts, each with all its sides in turn, and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--decisions", type=int, default=5_000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _beside_decisions(Path(folder), words.decisions)
    with xgboost.config_context(nthread=1):
        _compare(words.repeats)


def _beside_decisions(folder: Path, count: int) -> None:
    """Train a version, decide with it and explain each decision; print how long every step took."""
    home = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-m", "modules.fraud_detection", "pipeline"], cwd=folder, env=home, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.chdir(folder)
    server = RedisServer(program())
    server.start()
    try:
        times = uvloop.run(_decide_and_explain({"memory://": "memory://", "redis://": server.url}, count))
    finally:
        server.kill()
    print(f"one transaction after the other, {count:,} with each past, microseconds")
    for name, found in times.items():
        p50, p99 = (1e6 * np.percentile(found, percent) for percent in (50, 99))
        print(f"{name:45} p50 {p50:8,.0f}  p99 {p99:8,.0f}")


async def _decide_and_explain(places: Mapping[str, str], count: int) -> dict[str, list[float]]:
    """Take each step with each kind of past in turn, on transactions of the same density; the seconds of each."""
    deciders, times = (
        {name: await _started(online) for name, online in places.items()},
        defaultdict[str, list[float]](list),
    )
    bodies = {name: transactions(name) for name in places}
    kinds: list[tuple[str, Any]] = [("memory://", Memory), ("redis://", Redis)]
    with ExitStack() as patched:
        for name, logs in kinds:
            found = times[f"the past of a transaction, {name}"]
            patched.enter_context(patch.object(logs, "exchange", _timed_exchange(logs.exchange, found)))
        for turn in range(WARM + count):
            if turn == WARM:
                for found in times.values():
                    found.clear()
            for name, decider in deciders.items():
                await _steps(decider, bodies[name], name, times)
    for decider in deciders.values():
        await decider.stop()
    return times


async def _started(online: str) -> Decider[LivePredictor]:
    journal = f"sqlite:///journal_{online.split(':', maxsplit=1)[0]}.db"
    read = settings.read(None, "local", {}, {"platform": {"online": online, "journal": journal}})
    platform = bootstrap.connect(read.platform)
    made = Decider(kind(read, platform), platform)
    await made.start()
    await asyncio.to_thread(made.live.wait, 60)
    return made


async def _steps(
    decider: Decider[LivePredictor], body: Callable[[], bytes], name: str, times: Mapping[str, list[float]]
) -> None:
    """Score one transaction that leaves no trace; decide another, and explain that decision."""
    awake = decider.live.current
    assert awake is not None
    marks = [time.perf_counter()]
    await awake.predictor.predict([awake.predictor.read(body(), LATE)], keep=False)
    marks.append(time.perf_counter())
    (decided,) = await decider.scorer.decide([body()])
    marks.append(time.perf_counter())
    assert isinstance(decided, Decided)
    await decider.scorer.explain(decided.record)
    marks.append(time.perf_counter())
    await decider.scorer.explain(decided.record, TOP)
    marks.append(time.perf_counter())
    awake.predictor._explainer.explain(awake.predictor._matrix(decided.record.seen)[0])
    marks.append(time.perf_counter())
    steps = (
        f"read, its features made and scored, {name}", f"decided and in the journal, {name}",
        "explained, every feature in words", f"explained, the {TOP} strongest in words", "explained, no words",
    )  # fmt: skip
    for step, (began, done) in zip(steps, itertools.pairwise(marks), strict=True):
        times[step].append(done - began)


def _timed_exchange(exchange: Exchange, found: list[float]) -> Exchange:
    async def timed(store: Any, asks: Sequence[Ask]) -> list[bytes]:
        began = time.perf_counter()
        logs = await exchange(store, asks)
        found.append(time.perf_counter() - began)
        return logs

    return timed


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
