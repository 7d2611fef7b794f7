"""The API of this module: settings in, an application out, in one process or several."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from mlops import bootstrap
from mlops.contract import Json
from mlops.releasing.packed import Packed
from mlops.serving import api
from mlops.serving.api import Api, Reach, Service
from mlops.serving.app import Door
from mlops.serving.decider import FOLDER
from mlops.serving.documents import Described
from modules.fraud_detection import decider
from modules.fraud_detection.explain import draw
from modules.fraud_detection.predict import NOUNS, read_told
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.live_predictor import LivePredictor
from modules.fraud_detection.src.predictor import Decision
from modules.fraud_detection.src.utils import logger
from monitoring import prometheus_metrics
from monitoring.prometheus_metrics import Metrics

TITLE = "Fraud detection"
SAID = {
    "fraud_probability": {"type": "number", "minimum": 0, "maximum": 1}, "decision": {"enum": [*get_args(Decision)]},
}  # fmt: skip
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
    return api_of(settings, reach, packed).door


def api_of(settings: Settings, reach: Reach = ALONE, packed: Packed | None = None) -> Api[LivePredictor]:
    """Make all that one worker holds."""
    platform = bootstrap.connect(settings.platform)
    service = Service(
        TITLE, NOUNS, decider.kind(settings, platform), read_told, draw, _describes, _described,
        logger.Lines(settings.data.entities),
    )  # fmt: skip
    return Api(service, platform, settings.serving, partial(Metrics, decisions=get_args(Decision)), reach, packed)


def _describes(predictor: LivePredictor) -> Json:
    card = predictor.artifact.card
    return {
        "snapshot": card.snapshot, "kind": card.kind, "features": card.encoder.features,
        "thresholds": card.thresholds.model_dump(),
    }  # fmt: skip


def _described(predictor: LivePredictor) -> Described:
    return Described(predictor.request, predictor.artifact.canned.transaction, SAID, {"type": "boolean"}, True)
