"""One run of a module's phases: what each left for the ones after it, and how a broken run goes on."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from mlops.bootstrap import Connected
from mlops.errors import BadInput, NotFound
from mlops.progress import Phases
from mlops.storage import objects
from mlops.storage.objects import PROCESSED

Record = dict[str, Any]


class Configured(Protocol):
    """A module's settings."""

    @property
    def hash(self) -> str:
        """Tell one configuration from another, by all that changes a result."""


S = TypeVar("S", bound=Configured)


@dataclass(frozen=True)
class Job(Generic[S]):
    """A run over one source of data under one configuration.

    Each phase returns a record: names and hashes of what it stored, and figures. Records are kept beside the data, so
    that a phase can run alone and a broken run can go on. A job with a name in `once` registers one version, also when
    it is run again.
    """

    settings: S
    platform: Connected
    logger: logging.Logger
    source: str
    once: str = ""
    records: dict[str, Record] = field(default_factory=dict)

    def keep(self, phase: str, record: Record) -> None:
        """Remember what a phase left; what earlier runs of this phase left is replaced."""
        self.records[phase] = record
        objects.write(self.platform.objects, self._key(phase), json.dumps(record, indent=1, default=str).encode())

    def recall(self, phase: str) -> bool:
        """Load what an earlier run of this phase left, and tell whether there was anything."""
        try:
            self.records[phase] = json.loads(objects.read(self.platform.objects, self._key(phase)))
        except NotFound:
            return False
        return True

    def forget(self, phases: Iterable[str]) -> None:
        """Drop what earlier runs of these phases left, so that a run that breaks is not taken for a whole one."""
        for phase in phases:
            self.platform.objects.delete(self._key(phase))

    def _key(self, phase: str) -> str:
        run = hashlib.sha256(f"{self.settings.hash} {self.source}".encode()).hexdigest()[:16]
        return f"{PROCESSED}/runs/{run}/{phase}.json"


@dataclass(frozen=True)
class Phase(Generic[S]):
    """A step of a pipeline, and how its record is said in a few words."""

    run: Callable[[Job[S]], Record]
    said: Callable[[Record], str]


def run(
    job: Job[S], phases: Mapping[str, Phase[S]], progress: Phases, only: str | None = None, resume: bool = False
) -> None:
    """Run the phases in order; when one fails, none after it runs.

    With `only`, run that phase from what the ones before it left in an earlier run. With `resume`, go on after the last
    phase that an earlier run finished. Raises `BadInput` when an earlier phase has left nothing.
    """
    todo = [only] if only else list(phases)
    if only:
        if only not in phases:
            raise BadInput(f"there is no phase '{only}'; the phases are: {', '.join(phases)}")
        for name in list(phases)[: list(phases).index(only)]:
            if not job.recall(name):
                raise BadInput(
                    f"phase '{only}' needs '{name}', which has not run for this data and configuration; run it first"
                )
    if resume:
        while todo and job.recall(todo[0]):
            todo.pop(0)
    else:
        job.forget(todo)
    for name in todo:
        with progress.phase(name) as said:
            record = phases[name].run(job)
            job.keep(name, record)
            said.append(phases[name].said(record))
