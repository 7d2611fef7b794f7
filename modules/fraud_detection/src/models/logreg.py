"""Logistic regression over standardised columns: the baseline that every evaluation states beside its model."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from modules.fraud_detection.src.models.base_model import BaseModel, Floats, Ints, Matrix, check_parameters

FILE = "coefficients.json"


@dataclass(frozen=True)
class Logreg(BaseModel):
    """Log odds = intercept + sum of coefficient * (value - mean); the coefficient already holds 1 / deviation.

    An empty value is taken as the column's mean, so that it says nothing. The parameters are scikit-learn's own.
    """

    means: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, matrix: Matrix, labels: Ints, parameters: Mapping[str, Any], seed: int) -> Self:
        # Only training needs scikit-learn; serving has none installed.
        from sklearn.linear_model import LogisticRegression

        check_parameters("logreg", parameters, inspect.signature(LogisticRegression).parameters)
        values = matrix.astype(np.float64)
        present = ~np.isnan(values)
        counts = np.maximum(present.sum(axis=0), 1)
        means = np.where(present, values, 0).sum(axis=0) / counts
        centred = np.where(present, values - means, 0)
        deviations = np.sqrt((centred**2).sum(axis=0) / counts)
        deviations[deviations == 0] = 1
        learned = LogisticRegression(**{"max_iter": 1_000, **parameters, "random_state": seed})
        learned.fit(centred / deviations, labels)
        coefficients = learned.coef_[0] / deviations
        return cls(tuple(means.tolist()), tuple(coefficients.tolist()), float(learned.intercept_[0]))

    def predict_proba(self, matrix: Matrix) -> Floats:
        margins: Floats = self._centred(matrix) @ np.array(self.coefficients) + self.intercept
        # The logistic function, without overflow far from zero.
        return (1 + np.tanh(margins / 2)) / 2

    def explain(self, matrix: Matrix) -> Floats:
        parts = self._centred(matrix) * np.array(self.coefficients)
        return np.column_stack([parts, np.full(len(matrix), self.intercept)])

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(tuple(values["means"]), tuple(values["coefficients"]), values["intercept"])

    def to_onnx(self) -> bytes:
        # Only training writes graphs; serving has no onnx installed.
        from onnx import TensorProto, helper

        double, columns = TensorProto.DOUBLE, len(self.means)
        constants = [
            helper.make_tensor("means", double, [1, columns], self.means),
            helper.make_tensor("zero", double, [1], [0.0]),
            helper.make_tensor("coefficients", double, [columns, 1], self.coefficients),
            helper.make_tensor("intercept", double, [1], [self.intercept]),
        ]
        nodes = [
            helper.make_node("Cast", ["features"], ["values"], to=double),
            helper.make_node("Sub", ["values", "means"], ["distances"]),
            helper.make_node("IsNaN", ["distances"], ["empty"]),
            helper.make_node("Where", ["empty", "zero", "distances"], ["centred"]),
            helper.make_node("MatMul", ["centred", "coefficients"], ["products"]),
            helper.make_node("Add", ["products", "intercept"], ["margin"]),
            helper.make_node("Sigmoid", ["margin"], ["probability"]),
        ]
        inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, columns])]
        outputs = [helper.make_tensor_value_info("probability", double, [None, 1])]
        graph = helper.make_graph(nodes, "logreg", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString(deterministic=True))

    def _centred(self, matrix: Matrix) -> Floats:
        distances = matrix.astype(np.float64) - np.array(self.means)
        return np.where(np.isnan(distances), 0, distances)
