"""The contract of a model. A new kind is one file in this folder with one class, and one line of configuration."""

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlops.errors import BadConfiguration

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class BaseModel(ABC):
    """Learns a probability from a matrix (rows, columns) of 32-bit floats in which NaN means empty."""

    @classmethod
    @abstractmethod
    def fit(cls, matrix: Matrix, labels: Ints, parameters: Mapping[str, Any], seed: int) -> Self:
        """Learn from rows and their labels (rows,). The same input gives the same model, to the last bit."""

    @abstractmethod
    def predict_proba(self, matrix: Matrix) -> Floats:
        """Return the probability of each row. Shape (rows,)."""

    @abstractmethod
    def explain(self, matrix: Matrix) -> Floats:
        """Return the exact SHAP values in log odds and, last, the base value; each row sums to its log odds.

        Shape (rows, columns + 1). Source: Lundberg et al., From local explanations to global understanding (2020).
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model as data files into `folder`; never a pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""

    @abstractmethod
    def to_onnx(self) -> bytes:
        """Return an ONNX graph with one input `features` (rows, columns) and one output `probability` (rows, 1)."""


def kinds() -> list[str]:
    """Name every kind of model in this folder."""
    package = importlib.import_module(__package__ or "")
    names = (found.name for found in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in names if _class_in(name) is not None)


def find(kind: str) -> type[BaseModel]:
    """Return the model class in the file `kind`.py. Raises `BadConfiguration` naming the kinds there are."""
    found = _class_in(kind) if kind.isidentifier() else None
    if found is None:
        raise BadConfiguration(f"model.kind is '{kind}'; there is: {', '.join(kinds())}")
    return found


def check_parameters(kind: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a parameter that the library behind a kind does not know. Raises `BadConfiguration`."""
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise BadConfiguration(f"model.parameters.{kind} has '{name}', which {kind} does not know{hint}")


def _class_in(name: str) -> type[BaseModel] | None:
    path = f"{__package__}.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return None
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, BaseModel)
            and value.__module__ == path
            and value is not BaseModel
        ):
            return value
    return None
