"""What the tests share: a small world of transactions, settings that keep all in a test's own folder, servers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer
from rich.console import Console

from mlops import bootstrap
from mlops.progress import Phases
from modules.fraud_detection import run_pipeline, settings
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.data.load_data import SIMULATED
from modules.fraud_detection.src.data.synthetic import Simulation
from modules.fraud_detection.src.utils import logger
from tests.services import DATA, missing

pytest_plugins = [
    "tests.between", "tests.feature_store_runtime", "tests.lived", "tests.postgres_server", "tests.redis_server",
]  # fmt: skip

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SMALL = {"customers": 150, "terminals": 100, "days": 70}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first in each worker's share, so that in the end nobody waits for another's.

    pytest-xdist gives each worker an equal share of the list, in its order, and lets who is done steal from the end of
    another's. The files of long tests are dealt out in turns.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("no_cover")]
    others = [item for item in items if not item.get_closest_marker("no_cover")]
    files = list(dict.fromkeys(item.path for item in long))
    dealt: list[pytest.Item] = []
    for number in range(workers):
        share = (len(items) - len(dealt)) // (workers - number)
        mine = [item for item in long if files.index(item.path) % workers == number]
        short = max(0, share - len(mine))
        dealt += mine + others[:short]
        others = others[short:]
    items[:] = dealt + others


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, so that `var/` is its own, and sees none of the caller's settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLOPS_") and not name.startswith("MLOPS_TEST_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture(autouse=True)
def processes_as_their_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of hours and kills that covers nothing that others do not is not slowed down, nor is what it starts."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def transactions() -> pl.DataFrame:
    """About 20,000 simulated transactions of 70 days."""
    return synthetic.simulate(Simulation.model_validate(SMALL))


def small_settings(folder: Path, file: Path | None = None, **groups: Any) -> Settings:
    """Settings of the default data set, or of `file`, small and quick, that keep all in `folder`; groups laid over."""
    quick: dict[str, Any] = {
        "simulation": SMALL,
        "split": {"train": "21d"},
        "model": {"parameters": {"xgb": {"rounds": 20, "max_depth": 3}}, "search": {"xgb": [{}]}},
        "evaluation": {"resamples": 20},
        "platform": {
            "objects": f"file://{folder}/var",
            "ledger": f"sqlite:///{folder}/var/ledger.db",
            "tracking": f"sqlite:///{folder}/var/mlflow.db",
            "artifacts": f"{folder}/var/mlartifacts",
        },
    }
    return settings.read(file, "local", {}, quick | groups)


def small_job(folder: Path, source: str = SIMULATED, file: Path | None = None, **groups: Any) -> Job:
    """A job over the simulation, or over `source`, that keeps everything in `folder`."""
    read = small_settings(folder, file, **groups)
    return Job(read, bootstrap.connect(read.platform), logger.start(read.data.entities), source)


def run(job: Job, only: str | None = None, resume: bool = False) -> Job:
    """Run the pipeline, or one phase of it, without a display."""
    with Phases(list(run_pipeline.PHASES), job.logger, Console(quiet=True)) as progress:
        run_pipeline.run(job, progress, only, resume)
    return job


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose pipeline has run to its end; tests read what it left and change nothing."""
    return run(small_job(tmp_path_factory.mktemp("finished")))


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The address of a running server that speaks AWS's protocols."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket, with the environment set so that boto3 finds the server."""
    for name, value in {
        "AWS_ENDPOINT_URL": aws, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    name = f"bucket-{abs(hash(str(tmp_path)))}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def shared(name: str) -> Path:
    """A file of the shared data beside the project; where there is none the test is skipped.

    With `MLOPS_TEST_REQUIRE_DATA` set it fails.
    """
    path = SHARED / name
    if not path.exists():
        missing(f"{name} is not beside the project", DATA)
    return path
