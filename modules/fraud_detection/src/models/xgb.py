"""Gradient-boosted trees by XGBoost."""

import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost

from modules.fraud_detection.src.models.base_model import BaseModel, Floats, Ints, Matrix, check_parameters
from modules.fraud_detection.src.models.tree_shap import TreeShap

FILE = "model.ubj"
DEFAULTS: Mapping[str, Any] = {
    "objective": "binary:logistic",
    "tree_method": "exact",
    "base_score": 0.5,
    "max_depth": 3,
    "learning_rate": 0.1,
    "verbosity": 0,
    # One thread: the sum over rows has one order, so the model is the same on every machine.
    "nthread": 1,
}
KNOWN = {*inspect.signature(xgboost.XGBModel.__init__).parameters, "rounds", "eta", "lambda", "alpha", "nthread"}


class Xgb(BaseModel):
    """An XGBoost booster. `rounds` is the number of trees; every other parameter is XGBoost's own."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self._booster = booster

    @classmethod
    def fit(cls, matrix: Matrix, labels: Ints, parameters: Mapping[str, Any], seed: int) -> Self:
        check_parameters("xgb", parameters, KNOWN)
        words = {**DEFAULTS, **parameters, "seed": seed}
        rounds = words.pop("rounds", 100)
        data = xgboost.DMatrix(matrix, labels, nthread=1)
        return cls(xgboost.train(words, data, num_boost_round=rounds))

    def predict_proba(self, matrix: Matrix) -> Floats:
        return self._booster.predict(xgboost.DMatrix(matrix, nthread=1)).astype(np.float64)

    @cached_property
    def _tables(self) -> TreeShap | None:
        return TreeShap.of(bytes(self._booster.save_raw("json")))

    def explain(self, matrix: Matrix) -> Floats:
        if self._tables is not None:
            return self._tables.explain(matrix)
        return self._booster.predict(xgboost.DMatrix(matrix, nthread=1), pred_contribs=True).astype(np.float64)

    def save(self, folder: Path) -> None:
        self._booster.save_model(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(folder / FILE)
        return cls(booster)

    def to_onnx(self) -> bytes:
        # Only training converts; serving has no converter installed.
        from onnx import helper
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        columns = self._booster.num_features()
        proto = convert_xgboost(self._booster, initial_types=[("features", FloatTensorType([None, columns]))])
        graph = proto.graph
        graph.name = "xgb"
        fraud = helper.make_node("Gather", ["probabilities", "fraud_column"], ["probability"], axis=1)
        graph.node.append(fraud)
        graph.initializer.append(helper.make_tensor("fraud_column", 7, [1], [1]))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("probability", 1, [None, 1]))
        return bytes(proto.SerializeToString(deterministic=True))
