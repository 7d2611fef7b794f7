"""The module's settings: one YAML file, each group at home with the code that reads it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from mlops import settings
from mlops.releasing.release import Plan
from mlops.serving.access import Serving
from mlops.settings import Platform
from mlops.streaming.stream import Streaming
from mlops.values import Duration, Group
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.data.synthetic import Simulation
from modules.fraud_detection.src.features import declaration
from modules.fraud_detection.src.features.declaration import Declaration
from modules.fraud_detection.src.models.evaluate import Evaluation
from modules.fraud_detection.src.models.fit import Recipe
from modules.fraud_detection.src.models.gate import Gate
from modules.fraud_detection.src.models.split import Split
from modules.fraud_detection.src.router.traffic_split import Routing
from modules.fraud_detection.src.validation.limits import Validation
from modules.fraud_detection.src.validation.transform import Step
from monitoring.drift_check import Monitoring

NAME = "fraud_detection"
WITHOUT_RESULT = ("platform", "serving", "routing", "gate", "retraining", "monitoring", "release", "streaming")
"""Groups that change no trained model."""
MODULE = Path(__file__).parent
FILE = MODULE / "config" / "config.yaml"


class Model(Group):
    """Which model, and the parameters to choose from."""

    kind: str = Field("xgb", description="The file in src/models that holds the model.")
    seed: int = Field(0, ge=0, description="The same seed gives the same model.")
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict, description="By kind: parameters of every try.")
    search: dict[str, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="By kind: the tries, each laid over the parameters."
    )

    @property
    def recipes(self) -> list[Recipe]:
        """What is tried, in order."""
        given, tries = self.parameters.get(self.kind, {}), self.search.get(self.kind) or ({},)
        return [Recipe(self.kind, {**given, **one}, self.seed) for one in tries]


class Retraining(Group):
    """When a candidate is made by itself, and from what."""

    window: Duration = Field("120d", description="How far back transactions are taken.")
    maturity: Duration = Field("7d", description="The latest, whose labels are not known yet, are left out.")
    split: Split = Field(
        Split(train="28d", delay="0d", valid="7d", test="7d", labels="now"), description="Its periods, from there back."
    )
    lease: Duration = Field("5m", description="One whose process died is gone on with after this.")
    cool_down: Duration = Field("7d", description="The least time between two candidates.")


class Settings(Group):
    """Everything that can be set."""

    platform: Platform = Field(default_factory=Platform, description="Where things are kept.")
    simulation: Simulation = Field(default_factory=Simulation, description="The data when none is given.")
    data: DataSet = Field(description="Which column plays which part.")
    validation: Validation = Field(default_factory=Validation, description="What a column may hold.")
    transform: tuple[Step, ...] = Field((), description="Cleaning steps, in order.")
    features: Declaration = Field(default_factory=Declaration, description="Features; none means the usual ones.")
    split: Split = Field(default_factory=Split, description="The periods to learn, choose and test on.")
    model: Model = Field(default_factory=Model, description="The model.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="What mistakes cost.")
    routing: Routing = Field(default_factory=Routing, description="Who may meet a candidate.")
    gate: Gate = Field(default_factory=Gate, description="How much worse than production a candidate may be.")
    retraining: Retraining = Field(default_factory=Retraining, description="How a candidate is made by itself.")
    monitoring: Monitoring = Field(default_factory=Monitoring, description="How it is watched.")
    release: Plan = Field(default_factory=Plan, description="How a candidate comes to production.")
    serving: Serving = Field(default_factory=Serving, description="Who may ask the API, and how much.")
    streaming: Streaming = Field(default_factory=Streaming, description="What the stream worker reads, and how.")

    @model_validator(mode="before")
    @classmethod
    def _usual_features(cls, values: Any) -> Any:
        if isinstance(values, dict) and "features" not in values and isinstance(values.get("data"), dict):
            return values | {"features": declaration.default(DataSet.model_validate(values["data"])).model_dump()}
        return values

    @model_validator(mode="after")
    def _features_can_be_made(self) -> Self:
        if not declaration.features(self.features, self.data):
            raise ValueError("no feature is declared; name some in the group 'features' or leave the group out")
        return self

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all that changes a result: not where things are kept or who may ask."""
        told = self.model_dump_json(exclude=set(WITHOUT_RESULT))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def read(
    file: Path | None, profile: str, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings from `file`, or the module's own; `REDIS_URL` chooses Redis for live state."""
    redis = environ.get("REDIS_URL")
    chosen = {"MLOPS_PLATFORM__ONLINE": redis, **environ} if redis else environ
    return settings.read(Settings, file or FILE, profile, chosen, arguments)
