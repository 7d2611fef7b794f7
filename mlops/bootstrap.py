"""Wiring: from the platform's settings to its connected parts."""

from dataclasses import dataclass
from functools import cached_property

from mlops import objects, tracking
from mlops.ledger import Ledger
from mlops.objects import Objects
from mlops.registry import Registry
from mlops.settings import Platform
from mlops.tracking import Tracking


@dataclass(frozen=True)
class Connected:
    """The platform's parts; MLflow and the ledger are opened by the first who asks for them."""

    settings: Platform
    objects: Objects

    @cached_property
    def tracking(self) -> Tracking:
        return tracking.connect(self.settings.tracking, self.settings.artifacts)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.tracking.client)


def connect(settings: Platform) -> Connected:
    """Connect what the settings name."""
    return Connected(settings, objects.connect(settings.objects))
