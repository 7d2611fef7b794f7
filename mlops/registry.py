"""Model versions: register one, give it a name for its use, find it, fetch its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.errors import NotFound
from mlops.tracking import translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRODUCTION = "production"


@dataclass(frozen=True)
class Version:
    """A registered version of a model and the run it came from."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Registry:
    """The model registry of MLflow."""

    client: "MlflowClient"

    def register(self, name: str, run_id: str, tags: Mapping[str, str]) -> Version:
        """Make the model of a run the next version of `name`."""
        from mlflow.exceptions import MlflowException

        with translated():
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            return _version(self.client.create_model_version(name, f"runs:/{run_id}/model", run_id, dict(tags)))

    def alias(self, name: str, alias: str, number: int) -> None:
        """Call version `number` by `alias`; the version that had the name loses it."""
        with translated():
            self.client.set_registered_model_alias(name, alias, str(number))

    def find(self, name: str, which: str | int) -> Version:
        """Return the version with this alias or number. Raises `NotFound`."""
        from mlflow.exceptions import MlflowException

        try:
            if isinstance(which, int):
                return _version(self.client.get_model_version(name, str(which)))
            return _version(self.client.get_model_version_by_alias(name, which))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        called = f"numbered {which}" if isinstance(which, int) else f"called '{which}'"
        raise NotFound(f"no version of '{name}' is {called}; make one: python -m modules.{name} pipeline")

    def fetch(self, version: Version, folder: Path) -> Path:
        """Copy the files of a version into `folder` and return where they lie. The reader verifies them by hash."""
        folder.mkdir(parents=True, exist_ok=True)
        with translated():
            return Path(self.client.download_artifacts(version.run_id, "model", str(folder)))


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), str(found.run_id), dict(found.tags))
