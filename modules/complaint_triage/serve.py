"""The API of this module: settings in, an application out, in one process or several."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlops import bootstrap, logs, secrets
from mlops.contract import Json
from mlops.releasing.packed import Packed
from mlops.serving import api
from mlops.serving.api import Api, Reach, Service
from mlops.serving.app import Door
from mlops.serving.decider import FOLDER, Kind
from mlops.serving.documents import Described
from mlops.traffic import Traffic, dealt
from modules.complaint_triage.explain import draw
from modules.complaint_triage.predict import NOUNS, read_told
from modules.complaint_triage.settings import NAME, Settings
from modules.complaint_triage.src.data.complaints import ID
from modules.complaint_triage.src.predictor import SAID, SCORE, Triage, wake
from monitoring import prometheus_metrics
from monitoring.prometheus_metrics import Metrics

TITLE = "Complaint triage"
DECISIONS = ("route", "review")
ALONE = Reach("127.0.0.1", 0, 1, None)


def serve(settings: Settings, reach: Reach, tell: Callable[[str], None], packed: Packed | None = None) -> None:
    """Serve what the ledger says, or a packed version, until told to stop.

    Raises `BadConfiguration` for what cannot be served, `Damaged` for a packed version that does not say what it is.
    """
    factory = partial(application, settings, reach, packed)
    several = partial(prometheus_metrics.prepare, FOLDER / "metrics")
    api.serve(factory, settings.platform, settings.serving, reach, tell, several, packed)


def application(settings: Settings, reach: Reach = ALONE, packed: Packed | None = None) -> Door:
    """Make the application of one worker."""
    platform = bootstrap.connect(settings.platform)
    kind = Kind(NAME, Dealing(settings.routing.salt), lambda _pipe, _replay: Waking())
    service = Service(TITLE, NOUNS, kind, read_told, draw, _describes, _described, Lines())
    return Api(service, platform, settings.serving, partial(Metrics, decisions=DECISIONS), reach, packed).door


class Dealing:
    """Deals complaints to the arms, each by its id."""

    def __init__(self, salt: str) -> None:
        self._salt = salt

    def arm(self, traffic: Traffic, row: Mapping[str, Any]) -> str:
        """The arm of a complaint."""
        return dealt(traffic, row[ID], self._salt)


class Waking:
    """Wakes versions, which remember nothing."""

    def wake(self, folder: Path) -> Triage:
        """Wake the version in `folder`. Raises `Damaged`."""
        return wake(folder)

    async def prepare(self, predictor: Triage) -> None:
        """Check that the canned complaint is decided as it should be."""
        predictor.warm_up()


class Lines:
    """What this process says, as lines of its log. No line of ours has a customer's text."""

    def start(self) -> None:
        """Let all that this process says be such lines."""
        logs.start("")

    def stop(self) -> None:
        """Let it say what it says as it did before."""
        logs.stop("")

    def masked(self, text: str) -> str:
        """What may be said to others of a text."""
        return secrets.hidden(text)


def _describes(predictor: Triage) -> Json:
    card = predictor.artifact.card
    return {
        "snapshot": card.snapshot, "products": card.products, "words": len(card.vocabulary.words),
        "review_from": card.review_from,
    }  # fmt: skip


def _described(predictor: Triage) -> Described:
    products = {"enum": list(predictor.artifact.card.products)}
    said = {SAID: products, SCORE: {"type": "number", "minimum": 0, "maximum": 1}, "decision": {"enum": [*DECISIONS]}}
    canned = predictor.artifact.canned.complaint
    example = {name: value for name, value in canned.items() if value is not None}
    return Described(predictor.request, example, said, {"type": "string"}, predictor.artifact.card.products[0])
