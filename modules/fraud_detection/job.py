"""One run of the phases: its settings, its connections, and what each phase left for the ones after it."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlops.bootstrap import Connected
from mlops.errors import NotFound
from mlops.storage import objects
from mlops.storage.objects import PROCESSED
from modules.fraud_detection.settings import Settings

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run over one source of data under one configuration.

    Each phase returns a record: names and hashes of what it stored, and figures. Records are kept beside the data, so
    that a phase can run alone and a broken run can go on. A job with a name in `once` registers one version, also when
    it is run again.
    """

    settings: Settings
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
