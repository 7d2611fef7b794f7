"""Drift reports where they are kept: each as JSON and as a page, and the newest of a module, whoever stored it."""

import json
import re
from datetime import datetime

from mlops.errors import BadData
from mlops.storage import objects
from mlops.storage.objects import DRIFT_REPORTS, Objects
from monitoring import drift_page, drift_report
from monitoring.drift_report import DriftReport, plain

MOMENT = "%Y-%m-%dT%H-%M-%S"
STORED = re.compile(r".*/(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)-version-(\d+)/report\.json")


def store(report: DriftReport, place: Objects) -> str:
    """Keep a report as JSON and as a page; return where the page lies."""
    home = f"{DRIFT_REPORTS}/{report.name}/{report.until:{MOMENT}}-version-{report.version}"
    objects.write(place, f"{home}/report.json", json.dumps(plain(report), indent=1, default=str).encode())
    objects.write(place, f"{home}/report.html", drift_page.write(plain(report)).encode())
    return place.url(f"{home}/report.html")


class Newest:
    """Looks for the newest report of a module, and reads only one that it has not given before."""

    def __init__(self, place: Objects, name: str) -> None:
        self._place, self._home, self._given = place, f"{DRIFT_REPORTS}/{name}", ""

    def look(self, now: datetime) -> DriftReport | None:
        """Give the report of the latest check up to `now` (UTC), unless it was given before.

        Raises `BadData`, once, where it cannot be read, and what the place raises.
        """
        names = [name for key in self._place.list(self._home) if (name := STORED.fullmatch(key))]
        # Who asks for a check up to a time to come learns nothing of what comes until then.
        known = [(name[1], int(name[2]), name[0]) for name in names if name[1] <= f"{now:{MOMENT}}"]
        key = max(known)[2] if known else self._given
        if key == self._given:
            return None
        found = objects.read(self._place, key)
        self._given = key
        return _read(found, self._place.url(key))


def _read(found: bytes, url: str) -> DriftReport:
    try:
        return drift_report.read(json.loads(found))
    except (ValueError, BadData) as error:
        raise BadData(f"{url}: {error}") from error
