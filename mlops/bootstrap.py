"""Wiring: from the platform's settings to its connected parts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mlops.journaling.ledger import Ledger, wall
from mlops.releasing import tracking
from mlops.releasing.registry import Registry
from mlops.releasing.tracking import Tracking
from mlops.settings import Platform
from mlops.storage import objects
from mlops.storage.objects import Objects


@dataclass(frozen=True)
class Connected:
    """The platform's parts; MLflow and the ledger are opened by the first who asks for them."""

    settings: Platform
    objects: Objects
    now: Callable[[], int]

    @cached_property
    def tracking(self) -> Tracking:
        return tracking.connect(self.settings.tracking, self.settings.artifacts)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger, self.now)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.tracking.client)


def connect(settings: Platform, now: Callable[[], int] = wall) -> Connected:
    """Connect what the settings name; `now` is the time of the ledger, in microseconds since 1970."""
    return Connected(settings, objects.connect(settings.objects), now)
