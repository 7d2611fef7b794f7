"""Training: from a snapshot to a registered model that anyone can ask."""

import json
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
from rich.console import Console

from mlops.progress import Phases
from modules.fraud_detection import run_pipeline, train
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store
from tests.conftest import MakeJob


def run(job: Job, only: str | None = None, resume: bool = False) -> Job:
    with Phases(list(run_pipeline.PHASES), job.logger, Console(quiet=True)) as progress:
        run_pipeline.run(job, progress, only, resume)
    return job


def test_a_run_holds_parameters_metrics_tags_plots_and_a_signed_model(make_job: MakeJob) -> None:
    job = run(make_job())
    client, run_id = job.platform.tracking.client, job.records["register"]["run"]
    logged = client.get_run(run_id).data
    assert logged.params["kind"] == "xgb"
    assert logged.metrics["test_average_precision"] > 2 * logged.metrics["test_fraud_share"]
    assert logged.tags["snapshot"] == job.records["features"]["snapshot"]
    assert logged.tags["configuration"] == job.settings.hash
    assert len(logged.tags["data_hash"]) == 64
    folders = ("explainability", "evaluation", "model", "run")
    names = {file.path for folder in folders for file in client.list_artifacts(run_id, folder)}
    assert {"explainability/shap_summary.png", "explainability/shap_bar.png", "evaluation/evaluation.png"} <= names
    assert {"model/MLmodel", "model/model.onnx", "run/configuration.json"} <= names
    impact = json.loads(Path(client.download_artifacts(run_id, "explainability/mean_abs_shap.json")).read_text())
    card = mlflow.models.Model.load(client.download_artifacts(run_id, "model"))
    assert {row["feature"] for row in impact} == set(card.signature.inputs.input_names())


def test_any_mlflow_tool_loads_the_production_version_and_scores_as_we_do(make_job: MakeJob) -> None:
    job = run(make_job())
    settings = job.settings.platform
    mlflow.set_tracking_uri(settings.tracking)
    mlflow.set_registry_uri(settings.tracking)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@production")
    table = feature_store.load(job.platform.objects, job.records["features"]["snapshot"]).tail(50)
    ours = train._artifact(job)
    matrix = ours.card.encoder.encode(table)
    frame = pl.DataFrame(matrix, schema=ours.card.encoder.columns).to_pandas()
    theirs = np.asarray(loaded.predict(frame)["probability"]).ravel()
    assert np.allclose(theirs, ours.probability(matrix), atol=1e-7)
