"""Model versions: register one, give it a name for its use, find it, fetch its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.errors import NotFound
from mlops.releasing.tracking import translated
from mlops.traffic import CANARY, CHALLENGER, PRODUCTION, SHADOW

if TYPE_CHECKING:
    from mlflow import MlflowClient

STAGE, MADE_FOR = "stage", "made_for"
USES = (PRODUCTION, SHADOW, CANARY, CHALLENGER, "previous")


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

    def call(self, name: str, arms: Mapping[str, int]) -> None:
        """Let each version be called what it is in use for, as alias and as the tag `stage`; others lose the name."""
        with translated():
            called = {alias: int(number) for alias, number in self._aliases(name).items() if alias in USES}
            for alias in called.keys() - arms.keys():
                self.client.delete_registered_model_alias(name, alias)
            for alias, number in arms.items():
                if called.get(alias) != number:
                    self.client.set_registered_model_alias(name, alias, str(number))
            stages = {number: alias for alias, number in reversed(list(arms.items()))}
            for number in {*called.values(), *arms.values()}:
                self._tag(name, number, stages.get(number))

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

    def made_for(self, name: str, purpose: str) -> Version | None:
        """Return the version that was registered with this text in its tag `made_for`, if there is one."""
        with translated():
            found = self.client.search_model_versions(f"name = '{name}' and tag.{MADE_FOR} = '{purpose}'")
        return _version(found[0]) if found else None

    def fetch(self, version: Version, folder: Path) -> Path:
        """Copy the files of a version into `folder` and return where they lie. The reader verifies them by hash."""
        folder.mkdir(parents=True, exist_ok=True)
        with translated():
            return Path(self.client.download_artifacts(version.run_id, "model", str(folder)))

    def _aliases(self, name: str) -> Mapping[str, Any]:
        return dict(self.client.get_registered_model(name).aliases)

    def _tag(self, name: str, number: int, stage: str | None) -> None:
        before = self.client.get_model_version(name, str(number)).tags.get(STAGE)
        if stage is None and before is not None:
            self.client.delete_model_version_tag(name, str(number), STAGE)
        elif stage is not None and stage != before:
            self.client.set_model_version_tag(name, str(number), STAGE, stage)


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), str(found.run_id), dict(found.tags))
