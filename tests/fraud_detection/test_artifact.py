"""A model as files: whole, verified before anything reads them, awake without any training library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.errors import Damaged, MlopsError
from mlops.storage import objects
from mlops.storage.objects import MODELS
from modules.fraud_detection.job import Job
from modules.fraud_detection.src.explainability import shap_explainer
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.models import artifact
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.predictor import Predictor
from tests.conftest import ROOT

TRAINING_ONLY = ("sklearn", "shap", "matplotlib", "pandera", "onnx", "onnxmltools", "mlflow", "pandas")


@pytest.fixture
def folder(finished: Job, tmp_path: Path) -> Path:
    """The files of a trained model, the test's own copy."""
    home = f"{MODELS}/{finished.records['train']['model'][:16]}"
    return objects.download_folder(finished.platform.objects, home, tmp_path / "model")


@pytest.fixture
def table(finished: Job) -> pl.DataFrame:
    return feature_store.load(finished.platform.objects, finished.records["features"]["snapshot"]).tail(300)


def test_the_hash_of_the_files_is_the_hash_of_the_run(finished: Job, folder: Path) -> None:
    assert Artifact.open(folder).hash == finished.records["train"]["model"]


def test_any_flipped_bit_in_any_file_is_found_before_it_is_read(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(5):
            data = bytearray(whole)
            data[draw.integers(len(data))] ^= 1 << draw.integers(8)
            path.write_bytes(bytes(data))
            with pytest.raises(Damaged):
                Artifact.open(folder)
        path.write_bytes(whole)
    Artifact.open(folder)


@pytest.mark.parametrize(
    "name", ["model.onnx", "card.json", "profile.json", "canned.json", "manifest.json", "model.ubj"]
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Damaged, match=name):
        Artifact.open(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"../../etc/passwd": "0" * 64}))
    with pytest.raises(Damaged):
        Artifact.open(folder)


def test_a_graph_that_strays_from_the_model_is_never_written(folder: Path, table: pl.DataFrame, tmp_path: Path) -> None:
    found = Artifact.open(folder)
    strange = type(found.model).fit(
        found.card.encoder.encode(table), table["is_fraud"].cast(pl.Int64).to_numpy(), {"rounds": 3}, 1
    )
    strange.predict_proba = lambda matrix: found.model.predict_proba(matrix) + 2e-6  # type: ignore[method-assign]
    strange.to_onnx = found.model.to_onnx  # type: ignore[method-assign]
    with pytest.raises(MlopsError, match="away from it, more than 1e-06"):
        rows = found.card.encoder.encode(table)
        artifact.write(tmp_path / "new", strange, found.card, {}, b"{}", rows, found.canned.transaction, rows[:1])
    assert not (tmp_path / "new").exists()


def test_a_version_wakes_and_answers_without_any_training_library(folder: Path, table: pl.DataFrame) -> None:
    table.write_parquet("features.parquet")
    program = f"""
import sys
from importlib.machinery import ModuleSpec
class Refuse:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in {TRAINING_ONLY} else None
    def create_module(self, spec):
        raise ModuleNotFoundError(f"serving imports {{spec.name}}", name=spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Refuse())
import polars as pl
from pathlib import Path
from modules.fraud_detection.src.predictor import Predictor
predictor = Predictor.wake(Path({str(folder)!r}))
table = pl.read_parquet("features.parquet")
print(sum(answer.fraud_probability for answer in predictor.predict(table)))
print(predictor.explain(table.head(1))[0][0].text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = sum(answer.fraud_probability for answer in Predictor.wake(folder).predict(table))
    assert float(done.stdout.splitlines()[0]) == pytest.approx(expected, abs=1e-9)


def test_opening_a_version_leaves_no_trace_for_the_maker_of_its_runtime(folder: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from modules.fraud_detection.src.models.artifact import Artifact
Artifact.open(Path({str(folder)!r}))
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run(
        [sys.executable, "-c", program], env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(home)}, check=True
    )
    assert not [path for path in home.rglob("*") if "onnxruntime" in str(path).lower()]


def test_the_order_and_the_company_of_rows_change_no_answer(folder: Path, table: pl.DataFrame) -> None:
    predictor = Predictor.wake(folder)
    together = predictor.predict(table)
    assert predictor.predict(table.reverse())[::-1] == together
    assert [predictor.predict(table[place])[0] for place in range(40)] == together[:40]


def test_decisions_follow_the_thresholds_of_the_card(folder: Path, table: pl.DataFrame) -> None:
    predictor = Predictor.wake(folder)
    thresholds = predictor.artifact.card.thresholds
    for answer in predictor.predict(table):
        expected = "approve" if answer.fraud_probability < thresholds.review else "review"
        assert answer.decision == ("decline" if answer.fraud_probability >= thresholds.decline else expected)


def test_contributions_of_features_sum_to_the_log_odds_of_the_served_score(folder: Path, table: pl.DataFrame) -> None:
    found = Artifact.open(folder)
    explanation = shap_explainer.explain(found, table)
    scores = found.probability(found.card.encoder.encode(table))
    assert explanation.contributions.shape == (table.height, len(found.card.encoder.features))
    assert np.allclose(explanation.margins, np.log(scores / (1 - scores)), atol=1e-4)


def test_reasons_name_the_strongest_features_with_their_direction(folder: Path, table: pl.DataFrame) -> None:
    found = Artifact.open(folder)
    explanation = shap_explainer.explain(found, table)
    for row, reasons in enumerate(shap_explainer.reasons(found, table, top=4)):
        sizes = [abs(reason.contribution) for reason in reasons]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == pytest.approx(abs(explanation.contributions[row]).max())
        for reason in reasons:
            assert reason.value == table[reason.feature][row]
            assert ("raises the risk" in reason.text) == (reason.contribution > 0)


@given(st.binary(max_size=300))
@settings(max_examples=30, deadline=None)
def test_no_bytes_in_place_of_the_manifest_are_believed(data: bytes) -> None:
    with objects.scratch() as folder:
        (folder / "manifest.json").write_bytes(data)
        with pytest.raises(Damaged):
            Artifact.open(folder)
