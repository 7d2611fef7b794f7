"""The model: for every product a weight for every word; what weighs most is what a text is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mlops.errors import BadData, Damaged
from modules.complaint_triage.src.features.words import Floats, Vector

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FILE = "weights.npy"


@dataclass(frozen=True)
class Linear:
    """Log odds of each product, up to a constant: `bias` (products,) + values @ `weights` (words, products)."""

    weights: Floats
    bias: Floats

    def margins(self, vector: Vector) -> Floats:
        """What speaks for each product (products,)."""
        return self.bias + vector.values @ self.weights[vector.places]

    def probabilities(self, vector: Vector) -> Floats:
        """The probability of each product (products,)."""
        return _softmax(self.margins(vector))

    def save(self, folder: Path) -> None:
        """Write it as one array, the bias last."""
        np.save(folder / FILE, np.vstack([self.weights, self.bias]), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises `Damaged`."""
        try:
            found = np.load(folder / FILE, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise Damaged(f"{folder / FILE} cannot be read: {error}; fetch or train it again") from None
        return cls(found[:-1], found[-1])

    def to_onnx(self) -> bytes:
        """The same as a graph, for tools that read models from the registry: values in, probabilities out."""
        # Only training writes graphs; serving has no onnx installed.
        from onnx import TensorProto, helper

        double, (words, products) = TensorProto.DOUBLE, self.weights.shape
        constants = [
            helper.make_tensor("weights", double, [words, products], self.weights.tobytes(), raw=True),
            helper.make_tensor("bias", double, [products], self.bias),
        ]
        nodes = [
            helper.make_node("Cast", ["features"], ["values"], to=double),
            helper.make_node("MatMul", ["values", "weights"], ["products"]),
            helper.make_node("Add", ["products", "bias"], ["margins"]),
            helper.make_node("Softmax", ["margins"], ["probability"], axis=1),
        ]
        inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, words])]
        outputs = [helper.make_tensor_value_info("probability", double, [None, products])]
        graph = helper.make_graph(nodes, "linear", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString(deterministic=True))


def fit(vectors: Sequence[Vector], labels: NDArray[np.int64], words: int, strength: float) -> Linear:
    """Learn which words speak for which product; `labels` (rows,) count from 0. Raises `BadData` for a single one."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels.tolist())) < 2:
        raise BadData("all complaints are about one product; give some of two or more")
    found = LogisticRegression(C=strength, max_iter=1_000, random_state=0).fit(matrix(vectors, words), labels)
    weights, bias = found.coef_.T, found.intercept_
    if bias.size == 1:
        # Of two products scikit-learn gives the difference.
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]]) / 2
    return Linear(np.ascontiguousarray(weights), bias)


def matrix(vectors: Sequence[Vector], words: int) -> "csr_array":
    """Vectors as rows of a sparse matrix (rows, words)."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(vector.places.size for vector in vectors)])
    values, places = (
        np.concatenate([getattr(vector, name) for vector in vectors] or [np.zeros(0)]) for name in ("values", "places")
    )
    return csr_array((values, places.astype(np.int64), ends), shape=(len(vectors), words))


def _softmax(margins: Floats) -> Floats:
    raised = np.exp(margins - margins.max())
    return np.asarray(raised / raised.sum(), np.float64)
