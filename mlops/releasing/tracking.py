"""One MLflow run: what went in, what came out, and the files that show it."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops import secrets
from mlops.errors import StorageFailed, Unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SERVER, DRIVEN = "postgresql://", "postgresql+psycopg://"
"""A PostgreSQL server as settings name it, and as SQLAlchemy does with the driver that we have."""
MAKING_TABLES = 710216
"""Of a server's locks, the one under which MLflow's tables are made; the journal's has the number before."""
PATIENCE = 5
"""Seconds to wait for a server to let us in."""
LONGEST_VALUE = 500


@dataclass(frozen=True)
class Tracking:
    """MLflow's store and where it keeps files. `artifacts` is empty when a server decides that itself."""

    client: "MlflowClient"
    artifacts: str

    @contextlib.contextmanager
    def run(self, experiment: str, tags: Mapping[str, str]) -> Iterator["Run"]:
        """Open a run of `experiment`; it ends as FINISHED, or as FAILED when the block raises."""
        with translated():
            run_id = self.client.create_run(self._experiment(experiment), tags=dict(tags)).info.run_id
        try:
            with translated():
                yield Run(self.client, run_id)
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        with translated():
            self.client.set_terminated(run_id, "FINISHED")

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=self.artifacts or None))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


@dataclass(frozen=True)
class Run:
    """An open run."""

    client: "MlflowClient"
    run_id: str

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters; longer texts than the store takes are cut."""
        from mlflow.entities import Param

        rows = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in values.items()]
        self.client.log_batch(self.run_id, params=rows)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log metrics, all at step 0."""
        from mlflow.entities import Metric

        self.client.log_batch(self.run_id, metrics=[Metric(name, value, 0, 0) for name, value in values.items()])

    def file(self, path: Path, folder: str) -> None:
        """Log one file below `folder`."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def model(self, folder: Path, onnx: str, inputs: Sequence[str], output: str) -> None:
        """Log a folder that holds an ONNX file as the run's model, signed, so that any MLflow tool reads it.

        The descriptor is written by hand: `mlflow.onnx.log_model` would load, copy and probe the model for half a
        minute to write the same page.
        """
        import mlflow.pyfunc
        from mlflow.models import Model
        from mlflow.models.signature import ModelSignature
        from mlflow.types import ColSpec, Schema

        signature = ModelSignature(
            inputs=Schema([ColSpec("float", name, required=False) for name in inputs]),
            outputs=Schema([ColSpec("float", output)]),
        )
        card = Model(artifact_path="model", run_id=self.run_id, signature=signature)
        card.add_flavor("onnx", data=onnx, providers=["CPUExecutionProvider"], onnx_session_options=None)
        mlflow.pyfunc.add_to_model(card, loader_module="mlflow.onnx", data=onnx)
        card.save(str(folder / "MLmodel"))
        self.client.log_artifacts(self.run_id, str(folder), "model")


def connect(uri: str, artifacts: str) -> Tracking:
    """Open MLflow's store at `uri`, and make a database's tables, and a SQLite file, where there are none."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # MLflow takes seconds to import, and most commands never need it.
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = secrets.resolve(uri)
    if uri.startswith(SQLITE):
        uri = f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}"
    elif uri.startswith(SERVER):
        uri = f"{DRIVEN}{uri.removeprefix(SERVER)}"
    with translated(), _one_at_a_time(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return Tracking(client, "" if uri.startswith("http") else _located(artifacts))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn MLflow's and its database's complaints into ours, in one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        said = " ".join(str(error).split()).replace(DRIVEN, SERVER)
        line = secrets.hidden(said)
        # What caused it is shown where it is logged, and must not show more.
        cause = error if line == said else None
        raise Unreachable(f"MLflow's store failed: {line}; check platform.tracking") from cause


def _one_at_a_time(uri: str) -> contextlib.AbstractContextManager[None]:
    """Let one process at a time make a database's tables: two at once would each fail on the other's."""
    if uri.startswith(SQLITE):
        return _file_locked(Path(uri.removeprefix(SQLITE)))
    return _server_locked(uri) if uri.startswith(DRIVEN) else contextlib.nullcontext()


@contextlib.contextmanager
def _file_locked(file: Path) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f"{file.name}.lock").open("w")
    except OSError as error:
        raise StorageFailed(f"cannot use {file.parent} for MLflow's store: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _server_locked(uri: str) -> Iterator[None]:
    """Hold the server's lock; it is given back with the connection.

    A server that does not answer is told here and at once: MLflow would go on asking it for minutes.
    """
    import sqlalchemy as sa

    engine = sa.create_engine(uri, poolclass=sa.NullPool, connect_args={"connect_timeout": PATIENCE})
    with engine.connect() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(MAKING_TABLES)))
        yield


def _located(artifacts: str) -> str:
    return artifacts if "://" in artifacts else Path(artifacts).resolve().as_uri()
