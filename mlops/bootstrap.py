"""Wiring: from the platform's settings to its connected parts."""

from dataclasses import dataclass
from functools import cached_property

from mlops import objects, tracking
from mlops.objects import Objects
from mlops.registry import Registry
from mlops.settings import Platform
from mlops.tracking import Tracking


@dataclass(frozen=True)
class Connected:
    """The platform's parts; MLflow is opened by the first one who asks for it."""

    settings: Platform
    objects: Objects

    @cached_property
    def tracking(self) -> Tracking:
        return tracking.connect(self.settings.tracking, self.settings.artifacts)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.tracking.client)


def connect(settings: Platform) -> Connected:
    """Connect what the settings name."""
    return Connected(settings, objects.connect(settings.objects))
