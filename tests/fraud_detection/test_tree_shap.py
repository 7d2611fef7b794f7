"""Tables of SHAP values: they add up to what XGBoost's own exact algorithm says, for any ensemble and any row."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.fraud_detection.src.models.base_model import Floats, Ints, Matrix
from modules.fraud_detection.src.models.tree_shap import DEEPEST, MOST, TreeShap
from modules.fraud_detection.src.models.xgb import Xgb


def data(seed: int, rows: int = 400, columns: int = 5, empty: float = 0.15) -> tuple[Matrix, Ints]:
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(rows, columns)).round(1).astype(np.float32)
    noise = draw.normal(size=rows)
    labels = (matrix[:, 0] * matrix[:, 1 % columns] + matrix[:, -1] + noise > 0.5).astype(np.int64)
    labels[:2] = 0, 1
    matrix[draw.random(matrix.shape) < empty] = np.nan
    return matrix, labels


def by_xgboost(model: Xgb, matrix: Matrix) -> Floats:
    found: Floats = model._booster.predict(xgboost.DMatrix(matrix, nthread=1), pred_contribs=True)
    return found


@given(
    seed=st.integers(0, 2**20), depth=st.integers(1, 7), rounds=st.integers(1, 12), columns=st.integers(1, 6),
    method=st.sampled_from(["exact", "hist"]), base=st.sampled_from([0.5, 0.02]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_tables_say_what_xgboost_says(
    seed: int, depth: int, rounds: int, columns: int, method: str, base: float
) -> None:
    matrix, labels = data(seed, columns=columns)
    given_ = {"rounds": rounds, "max_depth": depth, "tree_method": method, "base_score": base, "min_child_weight": 0}
    model = Xgb.fit(matrix, labels, given_, 0)
    np.testing.assert_allclose(model.explain(matrix), by_xgboost(model, matrix), atol=1e-5)


def test_values_at_a_threshold_and_empty_ones_go_the_way_that_the_model_goes() -> None:
    matrix, labels = data(1)
    model = Xgb.fit(matrix, labels, {"rounds": 10, "max_depth": 4}, 0)
    tables = TreeShap.of(bytes(model._booster.save_raw("json")))
    assert tables is not None
    edges = sorted({*tables.lows[np.isfinite(tables.lows)], *tables.highs[np.isfinite(tables.highs)]})
    near = np.array([[one] * 5 for edge in edges for one in (edge, np.nextafter(edge, np.float32(-9)))], np.float32)
    rows = np.vstack([near, np.full((1, 5), np.nan, np.float32)])
    margins = model._booster.predict(xgboost.DMatrix(rows, nthread=1), output_margin=True)
    np.testing.assert_allclose(model.explain(rows).sum(axis=1), margins, atol=1e-5)


def test_a_row_comes_out_the_same_to_the_last_bit_in_any_company() -> None:
    matrix, labels = data(2)
    model = Xgb.fit(matrix, labels, {"rounds": 30, "max_depth": 5}, 0)
    together = model.explain(matrix)
    for place in range(20):
        np.testing.assert_array_equal(model.explain(matrix[place : place + 1])[0], together[place])


def test_the_values_are_shapleys_by_their_definition() -> None:
    """One tree, every order in which features can become known, the definition word for word."""
    matrix, labels = data(3, columns=3, empty=0)
    model = Xgb.fit(matrix, labels, {"rounds": 1, "max_depth": 3}, 0)
    tree = json.loads(bytes(model._booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"][0]

    def expected(row: Any, known: frozenset[int], node: int = 0) -> float:
        if tree["left_children"][node] == -1:
            return float(tree["split_conditions"][node])
        left, right, feature = tree["left_children"][node], tree["right_children"][node], tree["split_indices"][node]
        if feature in known:
            return expected(row, known, left if row[feature] < tree["split_conditions"][node] else right)
        covers = tree["sum_hessian"]
        both = covers[left] * expected(row, known, left) + covers[right] * expected(row, known, right)
        return float(both / covers[node])

    for row in matrix[:5]:
        found = model.explain(row.reshape(1, -1))[0]
        for feature in range(3):
            gains = []
            for order in itertools.permutations(range(3)):
                before = frozenset(order[: order.index(feature)])
                gains.append(expected(row, before | {feature}) - expected(row, before))
            assert found[feature] == pytest.approx(math.fsum(gains) / len(gains), abs=1e-6)


def test_ensembles_that_tables_cannot_hold_are_explained_by_xgboost() -> None:
    matrix, labels = data(4, rows=4_000, columns=14)
    deep = Xgb.fit(matrix, labels, {"rounds": 2, "max_depth": DEEPEST + 4, "min_child_weight": 0}, 0)
    assert TreeShap.of(bytes(deep._booster.save_raw("json"))) is None
    dart = Xgb.fit(matrix, labels, {"rounds": 2, "booster": "dart"}, 0)
    assert TreeShap.of(bytes(dart._booster.save_raw("json"))) is None
    hinge = Xgb.fit(matrix, labels, {"rounds": 2, "objective": "binary:hinge"}, 0)
    assert TreeShap.of(bytes(hinge._booster.save_raw("json"))) is None
    for model in (deep, dart, hinge):
        np.testing.assert_array_equal(model.explain(matrix[:9]), by_xgboost(model, matrix[:9]))


def test_tables_that_would_fill_the_memory_are_not_made() -> None:
    matrix, labels = data(5, rows=3_000, columns=14)
    words = {"rounds": 1, "max_depth": 8, "tree_method": "hist", "min_child_weight": 0}
    trees = json.loads(bytes(Xgb.fit(matrix, labels, words, 0)._booster.save_raw("json")))
    kept = trees["learner"]["gradient_booster"]["model"]["trees"]
    small = TreeShap.of(json.dumps(trees).encode())
    assert small is not None
    kept += kept * (MOST // small.table.size)
    assert TreeShap.of(json.dumps(trees).encode()) is None


def test_trees_of_one_leaf_say_only_the_base_value() -> None:
    matrix, labels = data(6)
    model = Xgb.fit(matrix, labels, {"rounds": 3, "gamma": 1e9}, 0)
    np.testing.assert_allclose(model.explain(matrix[:3]), by_xgboost(model, matrix[:3]), atol=1e-6)
    assert not model.explain(matrix[:3])[:, :-1].any()
