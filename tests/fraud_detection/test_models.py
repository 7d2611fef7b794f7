"""What every kind of model keeps: found by its file, repeatable, exact in its reasons, the same after a reload."""

import importlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.errors import BadConfiguration
from modules.fraud_detection.src.models import base_model
from modules.fraud_detection.src.models.base_model import Ints, Matrix

PARAMETERS = {"xgb": {"rounds": 30, "max_depth": 4}}
KINDS = base_model.kinds()


def planted(rows: int = 3_000, seed: int = 0) -> tuple[Matrix, Ints]:
    """Fraud where the first column is high and the second low; a tenth of all values is empty."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(rows, 5)).astype(np.float32)
    labels = (matrix[:, 0] - matrix[:, 1] + draw.normal(scale=0.5, size=rows) > 2).astype(np.int64)
    matrix[draw.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fitted(kind: str, seed: int = 0) -> base_model.BaseModel:
    return base_model.find(kind).fit(*planted(), PARAMETERS.get(kind, {}), seed)


def test_both_kinds_are_found_by_their_files() -> None:
    assert {"logreg", "xgb"} <= set(KINDS)


def test_a_third_kind_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(importlib.import_module("modules.fraud_detection.src.models.logreg").__file__ or "")
    (tmp_path / "third.py").write_text(source.read_text().replace("class Logreg", "class Third"))
    package = importlib.import_module("modules.fraud_detection.src.models")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert "third" in base_model.kinds()
    matrix, labels = planted()
    assert base_model.find("third").fit(matrix, labels, {}, 0).predict_proba(matrix).shape == labels.shape


@pytest.mark.parametrize("name", ["forest", "base_model", "../evil", ""])
def test_an_unknown_kind_is_refused_with_the_names_of_the_known(name: str) -> None:
    with pytest.raises(BadConfiguration, match="there is: logreg, xgb"):
        base_model.find(name)


def test_it_ranks_planted_fraud_far_above_the_rest(kind: str) -> None:
    matrix, labels = planted(seed=9)
    scores = fitted(kind).predict_proba(matrix)
    assert scores[labels == 1].mean() > 5 * scores[labels == 0].mean()


def test_the_same_input_gives_the_same_model_to_the_last_bit(kind: str) -> None:
    assert fitted(kind).to_onnx() == fitted(kind).to_onnx()


def test_a_reloaded_model_gives_equal_scores_and_reasons(kind: str, tmp_path: Path) -> None:
    model, (matrix, _) = fitted(kind), planted(seed=5)
    model.save(tmp_path)
    again = base_model.find(kind).load(tmp_path)
    assert np.array_equal(again.predict_proba(matrix), model.predict_proba(matrix))
    assert np.array_equal(again.explain(matrix), model.explain(matrix))


def test_no_saved_file_is_a_pickle(kind: str, tmp_path: Path) -> None:
    fitted(kind).save(tmp_path)
    for path in tmp_path.iterdir():
        assert path.suffix in (".json", ".ubj")
        assert not path.read_bytes().startswith(b"\x80")


values = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6, width=32))


@given(st.lists(st.tuples(values, values, values, values, values), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("name", KINDS)
def test_contributions_sum_to_the_margin_and_the_graph_scores_as_the_model(
    name: str, rows: list[tuple[float, ...]]
) -> None:
    model, matrix = MODELS[name], np.array(rows, dtype=np.float32)
    scores = model.predict_proba(matrix)
    margins = model.explain(matrix).sum(axis=1)
    assert np.allclose((1 + np.tanh(margins / 2)) / 2, scores, atol=1e-5)
    served = SESSIONS[name].run(["probability"], {"features": matrix})[0][:, 0]
    assert np.allclose(served, scores, atol=1e-6, rtol=0)


MODELS = {name: fitted(name) for name in KINDS}
SESSIONS = {name: onnxruntime.InferenceSession(model.to_onnx()) for name, model in MODELS.items()}


def test_a_column_that_never_varies_and_one_that_is_always_empty_are_no_trouble(kind: str) -> None:
    matrix, labels = planted()
    matrix[:, 3], matrix[:, 4] = 7.0, np.nan
    scores = base_model.find(kind).fit(matrix, labels, PARAMETERS.get(kind, {}), 0).predict_proba(matrix)
    assert np.isfinite(scores).all()


def test_xgboosts_contributions_are_shaps_own() -> None:
    import shap

    matrix, _ = planted(200)
    model = MODELS["xgb"]
    explained = shap.TreeExplainer(model._booster)  # type: ignore[attr-defined]
    assert np.allclose(explained.shap_values(matrix), model.explain(matrix)[:, :-1], atol=1e-5)
