"""The training container's side of SageMaker's contract: everything comes from and goes to /opt/ml."""

import json
from pathlib import Path

import yaml

from mlops import bootstrap
from mlops.errors import BadInput
from mlops.releasing import packed
from mlops.releasing.registry import Version
from mlops.settings import Platform
from mlops.storage import objects
from mlops.storage.objects import EXPLANATIONS, MODELS
from modules.fraud_detection import train as phases
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.utils import logger

CHANNEL = "train"


def train(opt_ml: Path, settings: Settings) -> None:
    """Train from the snapshot in the channel `train` and leave the model in `model`, the evaluation in `output/data`.

    The model says of itself that it is no registered version. Hyperparameters lay over the model's parameters; `kind`
    and `seed` are the model's own. Whatever fails is also written to `output/failure`, which SageMaker shows as the
    reason.
    """
    output = opt_ml / "output"
    output.mkdir(parents=True, exist_ok=True)
    try:
        with objects.scratch() as folder:
            _train(opt_ml, settings.model_copy(update={"platform": Platform(objects=f"file://{folder}")}))
    except Exception as error:
        (output / "failure").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


def _train(opt_ml: Path, settings: Settings) -> None:
    settings = _with_hyperparameters(settings, opt_ml / "input" / "config" / "hyperparameters.json")
    job = Job(settings, bootstrap.connect(settings.platform), logger.start(settings.data.entities), str(opt_ml))
    snapshot = _take_in(job, opt_ml / "input" / "data" / CHANNEL)
    phases.from_snapshot(job, snapshot, register_too=False)
    home, data = job.records["train"]["model"][:16], opt_ml / "output" / "data"
    model = objects.download_folder(job.platform.objects, f"{MODELS}/{home}", opt_ml / "model")
    packed.label(model, Version(NAME, packed.UNREGISTERED, "", phases.describe(job)))
    objects.download_folder(job.platform.objects, f"{EXPLANATIONS}/{home}", data)
    (data / "evaluation.json").write_text(json.dumps(job.records["evaluate"], indent=1), encoding="utf-8")


def _with_hyperparameters(settings: Settings, file: Path) -> Settings:
    if not file.is_file():
        return settings
    given = {name: yaml.safe_load(text) for name, text in json.loads(file.read_text(encoding="utf-8")).items()}
    own = {name: given.pop(name) for name in ("kind", "seed") if name in given}
    kind = own.get("kind", settings.model.kind)
    parameters = {**settings.model.parameters, kind: {**settings.model.parameters.get(kind, {}), **given}}
    return settings.model_copy(update={"model": settings.model.model_copy(update={**own, "parameters": parameters})})


def _take_in(job: Job, channel: Path) -> str:
    files = [channel / feature_store.TABLE, channel / feature_store.MANIFEST]
    for file in files:
        if not file.is_file():
            raise BadInput(f"channel '{CHANNEL}' has no {file.name}; point it at one snapshot's folder")
    name = feature_store.Manifest.model_validate_json(files[1].read_text(encoding="utf-8")).name
    for file in files:
        job.platform.objects.upload(file, f"{feature_store.FOLDER}/{name}/{file.name}")
    return name
