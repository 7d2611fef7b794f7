"""Training: from a snapshot to a registered model that anyone can ask."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from matplotlib import image

from mlops.errors import BadData
from mlops.releasing import revision
from mlops.storage import objects
from mlops.storage.objects import MODELS
from modules.fraud_detection import train
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.explainability import log_explanations
from modules.fraud_detection.src.features import declaration, feature_store
from modules.fraud_detection.src.models import fit
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.fit import Recipe
from tests.conftest import ROOT, run, small_job


def features_of(job: Job) -> pl.DataFrame:
    return feature_store.load(job.platform.objects, job.records["features"]["snapshot"])


def artifact_of(job: Job, folder: Path) -> Artifact:
    home = f"{MODELS}/{job.records['train']['model'][:16]}"
    return Artifact.open(objects.download_folder(job.platform.objects, home, folder))


def test_a_run_holds_parameters_metrics_tags_plots_and_a_signed_model(finished: Job) -> None:
    client, run_id = finished.platform.tracking.client, finished.records["register"]["run"]
    logged = client.get_run(run_id).data
    assert logged.params["kind"] == "xgb"
    assert logged.params["rounds"] == "20"
    assert logged.metrics["test_average_precision"] > 2 * logged.metrics["test_fraud_share"]
    assert logged.tags["snapshot"] == finished.records["features"]["snapshot"]
    assert logged.tags["configuration"] == finished.settings.hash
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", logged.tags["git_revision"])
    assert logged.tags["git_revision"] == revision.git(ROOT)
    assert logged.tags["data_hash"] == finished.records["data"]["hash"]
    folders = ("explainability", "evaluation", "model", "run")
    names = {file.path for folder in folders for file in client.list_artifacts(run_id, folder)}
    assert {"explainability/shap_summary.png", "explainability/shap_bar.png", "evaluation/evaluation.png"} <= names
    assert {"model/MLmodel", "model/model.onnx", "run/configuration.json"} <= names


def test_the_logged_impact_names_the_columns_of_the_models_signature(finished: Job) -> None:
    client, run_id = finished.platform.tracking.client, finished.records["register"]["run"]
    impact = json.loads(Path(client.download_artifacts(run_id, "explainability/mean_abs_shap.json")).read_text())
    card = mlflow.models.Model.load(client.download_artifacts(run_id, "model"))
    assert {row["feature"] for row in impact} == set(card.signature.inputs.input_names())


def test_no_logged_picture_is_blank(finished: Job) -> None:
    client, run_id = finished.platform.tracking.client, finished.records["register"]["run"]
    for path in ("explainability/shap_summary.png", "explainability/shap_bar.png", "evaluation/evaluation.png"):
        pixels = image.imread(client.download_artifacts(run_id, path))
        assert pixels.shape[0] > 300
        assert pixels[:, :, :3].var() > 0.001


def test_any_mlflow_tool_loads_the_production_version_and_scores_as_we_do(finished: Job, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(finished.settings.platform.tracking)
    mlflow.set_registry_uri(finished.settings.platform.tracking)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@production")
    ours, table = artifact_of(finished, tmp_path), features_of(finished).tail(50)
    matrix = ours.card.encoder.encode(table)
    frame = pl.DataFrame(matrix, schema=ours.card.encoder.columns).to_pandas()
    theirs = np.asarray(loaded.predict(frame)["probability"]).ravel()
    assert np.allclose(theirs, ours.probability(matrix), atol=1e-7)


def test_two_runs_on_the_same_input_give_the_same_metrics_and_the_same_model(finished: Job, tmp_path: Path) -> None:
    again = run(small_job(tmp_path))
    assert again.records["data"]["hash"] == finished.records["data"]["hash"]
    assert again.records["features"]["snapshot"] == finished.records["features"]["snapshot"]
    assert again.records["train"]["model"] == finished.records["train"]["model"]
    assert again.records["evaluate"]["metrics"] == finished.records["evaluate"]["metrics"]


def test_the_model_beats_guessing_and_the_loss_falls_as_trees_are_added(finished: Job) -> None:
    dataset, table = finished.settings.data, features_of(finished)
    rows, features = table.head(8_000), declaration.features(finished.settings.features, dataset)
    truth = fit.labels(rows, dataset)
    losses = []
    for rounds in (1, 10, 50):
        recipe = Recipe("xgb", {"rounds": rounds, "tree_method": "hist"}, 0)
        scores = fit.fit(rows, features, recipe, dataset).score(rows)
        losses.append(float(-np.mean(np.where(truth == 1, np.log(scores), np.log(1 - scores)))))
    assert losses == sorted(losses, reverse=True)
    metrics = finished.records["evaluate"]["metrics"]
    assert metrics["average_precision"] > 5 * metrics["fraud_share"]
    assert metrics["cost_per_1000"] < metrics["cost_per_1000_without_model"]


def test_parameters_are_chosen_on_validation_rows_alone(tmp_path: Path) -> None:
    useless, good = {"rounds": 1, "max_depth": 1}, {"rounds": 30, "max_depth": 3}
    job = run(small_job(tmp_path, model={"search": {"xgb": [useless, good]}}))
    assert good.items() <= job.records["train"]["parameters"].items()
    test_metrics = job.records["evaluate"]["metrics"]["average_precision"]
    assert job.records["train"]["validation_average_precision"] != test_metrics


def test_no_label_of_the_test_period_changes_the_model_its_parameters_or_its_thresholds(
    tmp_path: Path, transactions: pl.DataFrame
) -> None:
    def trained(name: str, table: pl.DataFrame) -> dict[str, object]:
        table.write_parquet(tmp_path / f"{name}.parquet")
        record = run(small_job(tmp_path / name, str(tmp_path / f"{name}.parquet"))).records["train"]
        return {key: record[key] for key in ("parameters", "thresholds", "rows", "validation_average_precision")}

    first = run(small_job(tmp_path / "first")).records["evaluate"]["test"]
    late = pl.col("timestamp") >= pl.lit(first["since"]).str.to_datetime()
    flipped = transactions.with_columns(is_fraud=pl.when(late).then(1 - pl.col("is_fraud")).otherwise("is_fraud"))
    assert not flipped.equals(transactions)
    assert trained("flipped", flipped) == trained("as it was", transactions)


def test_a_label_that_is_never_1_stops_training_in_one_line(tmp_path: Path, transactions: pl.DataFrame) -> None:
    transactions.with_columns(is_fraud=pl.lit(0)).write_parquet("honest.parquet")
    job = small_job(tmp_path, str(Path("honest.parquet").resolve()))
    with pytest.raises(BadData, match=r"column 'is_fraud' is never 1 among the .* a model needs both labels"):
        run(job)
    assert "register" not in job.records


def test_pictures_that_cannot_be_drawn_do_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Path:
        raise RuntimeError("no ink")

    monkeypatch.setattr(log_explanations, "_bar", broken)
    job = run(small_job(tmp_path))
    assert job.records["explain"]["files"] == ["mean_abs_shap.json"]
    assert job.records["register"]["version"] == 1


def test_the_first_version_becomes_production_and_the_second_does_not_take_its_place(tmp_path: Path) -> None:
    job = run(small_job(tmp_path))
    assert job.records["register"] | {"run": ""} == {"version": 1, "run": "", "production": True}
    train.from_snapshot(job, job.records["features"]["snapshot"])
    assert job.records["register"]["version"] == 2
    assert job.platform.registry.find(NAME, "production").number == 1
