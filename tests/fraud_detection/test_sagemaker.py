"""Training as a SageMaker container: all from and to /opt/ml, and a failure's reason where it is looked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlops.errors import StorageFailed
from mlops.releasing import packed
from mlops.releasing.packed import Packed
from mlops.storage import objects
from modules.fraud_detection.__main__ import main
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features.feature_store import FOLDER
from modules.fraud_detection.src.models.artifact import Artifact
from tests.conftest import run, small_job


@pytest.fixture
def opt_ml(finished: Job, tmp_path: Path) -> Path:
    """What SageMaker lays out before it starts the container."""
    home = tmp_path / "ml"
    snapshot = finished.records["features"]["snapshot"]
    objects.download_folder(finished.platform.objects, f"{FOLDER}/{snapshot}", home / "input" / "data" / "train")
    config = home / "input" / "config"
    config.mkdir()
    words = {"rounds": "7", "tree_method": "hist", "seed": "3", "learning_rate": "0.2"}
    (config / "hyperparameters.json").write_text(json.dumps(words))
    return home


@pytest.fixture(autouse=True)
def short_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_SPLIT__TRAIN", "21d")


def test_the_container_leaves_a_model_that_wakes_and_its_evaluation(opt_ml: Path, finished: Job) -> None:
    assert main(["train", "--opt-ml", str(opt_ml)]) == 0
    card = Artifact.open(opt_ml / "model").card
    assert (card.seed, card.snapshot) == (3, finished.records["features"]["snapshot"])
    assert {"rounds": 7, "learning_rate": 0.2}.items() <= card.parameters.items()
    evaluation = json.loads((opt_ml / "output" / "data" / "evaluation.json").read_text())
    assert evaluation["metrics"]["average_precision"] > 0
    assert (opt_ml / "output" / "data" / "shap_summary.png").is_file()
    assert not (opt_ml / "output" / "failure").exists()
    assert not Path("var").exists()
    version = Packed(opt_ml / "model").version
    assert (version.name, version.number, version.tags["snapshot"]) == (NAME, 0, card.snapshot)
    assert version.tags["model_hash"] == Artifact.open(opt_ml / "model").hash
    assert version.tags["configuration"] != finished.settings.hash


def test_another_kind_of_model_is_a_hyperparameter(opt_ml: Path) -> None:
    (opt_ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"kind": "logreg"}))
    assert main(["train", "--opt-ml", str(opt_ml)]) == 0
    assert Artifact.open(opt_ml / "model").card.kind == "logreg"


def test_a_misspelt_hyperparameter_is_named_with_the_right_one(
    opt_ml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (opt_ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"max_dept": "3"}))
    assert main(["train", "--opt-ml", str(opt_ml)]) == 1
    assert "which xgb does not know; did you mean 'max_depth'?" in capsys.readouterr().err


def test_a_missing_channel_is_named_in_the_failure_file(opt_ml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (opt_ml / "input" / "data" / "train" / "manifest.json").unlink()
    assert main(["train", "--opt-ml", str(opt_ml)]) == 1
    assert "channel 'train' has no manifest.json" in (opt_ml / "output" / "failure").read_text()
    assert "channel 'train' has no manifest.json" in capsys.readouterr().err
    assert not (opt_ml / "model").exists()


def test_a_registration_that_was_cut_short_is_packed_when_it_goes_on_and_nobody_is_sent_to_it_before(
    tmp_path: Path,
) -> None:
    def broken(*_: object) -> None:
        raise StorageFailed("the disk is gone")

    job = replace(small_job(tmp_path), once="a retraining")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "pack", broken)
        with pytest.raises(StorageFailed):
            run(job)
    assert job.platform.registry.find(NAME, 1).number == 1
    assert job.platform.ledger.traffic(NAME) is None
    assert run(job, resume=True).records["register"]["version"] == 1
    kept = objects.read(job.platform.objects, packed.key(NAME, 1))
    assert job.platform.ledger.traffic(NAME) is not None
    # Version 1 is called 'production' in MLflow by now, which is no part of it.
    run(job, "register")
    assert objects.read(job.platform.objects, packed.key(NAME, 1)) == kept
