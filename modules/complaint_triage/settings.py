"""The module's settings: one YAML file, each group at home with the code that reads it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from mlops import settings
from mlops.serving.access import Serving
from mlops.settings import Platform
from mlops.values import Group
from modules.complaint_triage.src.data.complaints import DataSet, Validation
from modules.complaint_triage.src.data.synthetic import Simulation
from modules.complaint_triage.src.features.words import Learning
from modules.complaint_triage.src.models.evaluate import Costs
from monitoring.drift_check import Monitoring

NAME = "complaint_triage"
WITHOUT_RESULT = ("platform", "serving", "routing", "gate", "monitoring")
"""Groups that change no trained model."""
MODULE = Path(__file__).parent
FILE = MODULE / "config" / "config.yaml"


class Split(Group):
    """The parts of the complaints, in the order in which they came in: to learn, to choose, and the rest to test."""

    train: float = Field(0.6, gt=0, lt=1, description="The share to learn from.")
    valid: float = Field(0.2, gt=0, lt=1, description="The share after it, on which it is chosen who looks.")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.train + self.valid >= 1:
            raise ValueError(f"train {self.train} and valid {self.valid} leave nothing to test on; lower one")
        return self


class Model(Group):
    """The model's parameters."""

    strength: float = Field(10.0, gt=0, description="How far weights may go: the inverse of their penalty.")
    folds: int = Field(5, ge=2, description="Parts of the training rows that are each judged by a model of the others.")


class Routing(Group):
    """Who may meet a candidate."""

    salt: str = Field("", description="Another salt deals the complaints anew.")


class Gate(Group):
    """How much worse than production a version may be."""

    most_worse: float = Field(0.05, ge=0, description="Share by which it may cost more, where chance allows that.")


class Settings(Group):
    """Everything that can be set."""

    platform: Platform = Field(default_factory=Platform, description="Where things are kept.")
    simulation: Simulation = Field(default_factory=Simulation, description="The data when none is given.")
    data: DataSet = Field(description="Which column plays which part.")
    validation: Validation = Field(default_factory=Validation, description="What a complaint must be.")
    words: Learning = Field(default_factory=Learning, description="Which words are learned.")
    split: Split = Field(default_factory=Split, description="What is learned from, chosen on and tested on.")
    model: Model = Field(default_factory=Model, description="The model.")
    costs: Costs = Field(default_factory=Costs, description="What mistakes cost.")
    gate: Gate = Field(default_factory=Gate, description="How much worse than production a version may be.")
    routing: Routing = Field(default_factory=Routing, description="Who may meet a candidate.")
    monitoring: Monitoring = Field(default_factory=Monitoring, description="How it is watched.")
    serving: Serving = Field(default_factory=Serving, description="Who may ask the API, and how much.")

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits over all that changes a result: not where things are kept or who may ask."""
        told = self.model_dump_json(exclude=set(WITHOUT_RESULT))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def read(
    file: Path | None, profile: str, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings from `file`, or the module's own; `REDIS_URL` chooses Redis for the answers workers share."""
    redis = environ.get("REDIS_URL")
    chosen = {"MLOPS_PLATFORM__ONLINE": redis, **environ} if redis else environ
    return settings.read(Settings, file or FILE, profile, chosen, arguments)
