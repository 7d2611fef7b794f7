"""The images, built from a copy of the source in which secrets lie about, and what was made in their containers."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL
from tests.images.engine import docker, made, started, volume
from tests.services import missing

DOCKERFILE = "modules/fraud_detection/Dockerfile"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hunter2"  # the fake one
ROOMS = ("mlops", "modules", "monitoring", "infra", "scripts", "requirements", "tests")
QUICK = {
    **{f"MLOPS_SIMULATION__{name.upper()}": str(value) for name, value in SMALL.items()},
    "MLOPS_SPLIT__TRAIN": "21d", "MLOPS_EVALUATION__RESAMPLES": "20", "MLOPS_MODEL__PARAMETERS__XGB__ROUNDS": "20",
}  # fmt: skip
CONFINED = [
    "--user", "mlops", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
]  # fmt: skip
VAR, OPT_ML = "/app/var", "/opt/ml"


def environment(values: Mapping[str, str]) -> list[str]:
    """The options that give a container these variables."""
    return [word for name, value in values.items() for word in ("--env", f"{name}={value}")]


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        missing("no Docker engine answers to `docker info`")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as it lies on a laptop, with secrets and a history in it."""
    home = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dockerignore", home)
    for name in (".env", "modules/.env", "modules/fraud_detection/.env.local", ".git/config", "var/journal.db"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(f"PASSWORD={SECRET}\n")
    (home / "pip.conf").write_text(f"[global]\n# {SECRET}\n")
    return home


@pytest.fixture(scope="session")
def images(engine: None, source: Path) -> dict[str, str]:
    """The names of the images by their targets."""
    names = {target: f"fraud-{target}:test" for target in ("train", "serve")}
    for target, name in names.items():
        words = ["--file", str(source / DOCKERFILE), "--target", target, "--tag", name]
        secret = ["--secret", f"id=pip,src={source / 'pip.conf'}"]
        docker("build", *words, "--build-arg", f"GIT_COMMIT={COMMIT}", *secret, str(source), seconds=1_500)
    return names


@pytest.fixture(scope="session")
def var(images: dict[str, str]) -> Iterator[str]:
    """A volume in which the pipeline has run, confined and not as root."""
    with volume() as name:
        options = [*CONFINED, *environment(QUICK), "--volume", f"{name}:{VAR}"]
        docker("run", "--rm", *options, images["train"], "pipeline")
        yield name


@pytest.fixture(scope="session")
def opt_ml(images: dict[str, str], var: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A volume as SageMaker lays it out, in which `train` has run as SageMaker runs it: as root, with all rights."""
    folder = tmp_path_factory.mktemp("channel")
    with made(images["train"], options=["--volume", f"{var}:{VAR}"]) as container:
        snapshots = container.take(f"{VAR}/data/processed/features", folder)
    (snapshot,) = snapshots.iterdir()
    with volume() as name:
        lay_out(images["train"], name, snapshot, '{"rounds": "60", "seed": "3"}')
        mounted = [*environment({"MLOPS_SPLIT__TRAIN": "21d"}), "--volume", f"{name}:{OPT_ML}"]
        docker("run", "--rm", *mounted, images["train"], "train")
        yield name


def lay_out(image: str, name: str, snapshot: Path, hyperparameters: str) -> None:
    """Lay a snapshot and hyperparameters into a volume, as SageMaker does."""
    home = snapshot.parent / name
    shutil.copytree(snapshot, home / "input" / "data" / "train")
    (home / "input" / "config").mkdir()
    (home / "input" / "config" / "hyperparameters.json").write_text(hyperparameters)
    with made(image, options=["--volume", f"{name}:{OPT_ML}"]) as container:
        docker("cp", f"{home}/.", f"{container.id}:{OPT_ML}")


@pytest.fixture(scope="session")
def model(images: dict[str, str], opt_ml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the container left in /opt/ml, outside of it."""
    with made(images["train"], options=["--volume", f"{opt_ml}:{OPT_ML}"]) as container:
        return container.take(OPT_ML, tmp_path_factory.mktemp("left"))


@pytest.fixture(scope="session")
def sagemaker_port(images: dict[str, str], opt_ml: str) -> Iterator[int]:
    """The port of a container that serves what was trained, started as SageMaker starts it."""
    with started(
        images["serve"], "serve", options=["--publish", "127.0.0.1::8080", "--volume", f"{opt_ml}:{OPT_ML}"]
    ) as it:
        yield it.port(8080)
