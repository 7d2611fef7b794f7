"""The API, wired: settings in, an application out, in one process or several."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import msgspec

from mlops import bootstrap
from mlops.errors import BadConfiguration, MlopsError, Refused
from mlops.journaling import journal
from mlops.releasing.packed import Packed
from mlops.serving import access, listening
from mlops.serving.app import Call, Door, Guarded, Reply, Route
from mlops.serving.scoring import Outcome
from mlops.storage import objects, redis_pipe
from mlops.storage.objects import EXPLANATIONS, Objects
from modules.fraud_detection import documents
from modules.fraud_detection.counting import Counting
from modules.fraud_detection.decider import FOLDER, MEMORY, Decider
from modules.fraud_detection.explain import Explain
from modules.fraud_detection.predict import Predict
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.predictor import Decision
from modules.fraud_detection.src.utils import logger
from monitoring import prometheus_metrics
from monitoring.prometheus_metrics import Metrics

TITLE = "Fraud detection"
PATIENCE = 30.0
"""Seconds that one of several workers waits for its model before it answers that there is none."""
SAGEMAKER_PORT = 8080
SAGEMAKER_PATHS = frozenset({"/ping", "/invocations", "/metrics"})

encode = msgspec.json.Encoder().encode
log = logging.getLogger(logger.NAME)


@dataclass(frozen=True)
class Reach:
    """Where the API is to be reached; port 0 takes a free one. `sagemaker` is SageMaker's port, where there is one."""

    host: str
    port: int
    workers: int
    sagemaker: int | None


def serve(settings: Settings, reach: Reach, tell: Callable[[str], None], packed: Packed | None = None) -> None:
    """Serve what the ledger says, or a packed version, until told to stop.

    Raises `BadConfiguration` for what cannot be served, `Damaged` for a packed version that does not say what it is.
    """
    access.check_reach(reach.host, settings.serving.keys)
    if reach.workers > 1 and settings.platform.online == MEMORY:
        raise BadConfiguration(
            f"{reach.workers} workers cannot share platform.online memory://; say REDIS_URL=redis://HOST:6379/0, or "
            "--workers 1"
        )
    what = "" if packed is None else f"version {packed.version.number} of {packed.version.name}; "
    journal.connect(settings.platform.journal).close()
    if settings.platform.online != MEMORY:
        redis_pipe.check(settings.platform.online)
    sockets = [listening.bind(reach.host, reach.port)]
    if reach.sagemaker:
        # SageMaker stands before this port and checks who calls.
        sockets.append(listening.bind("0.0.0.0", reach.sagemaker))  # noqa: S104
    if reach.workers > 1:
        prometheus_metrics.prepare(FOLDER / "metrics")
    tell(f"http://{reach.host}:{sockets[0].getsockname()[1]}  ({what}/docs lists the routes; Ctrl-C stops)")
    listening.serve(
        partial(application, settings, reach.sagemaker, reach.workers > 1, packed),
        sockets,
        reach.workers,
        settings.serving.idle_seconds,
    )


def application(
    settings: Settings, sagemaker: int | None = None, one_of_several: bool = False, packed: Packed | None = None
) -> Door:
    """Make the application of one worker."""
    return Api(settings, sagemaker, one_of_several, packed).door


class Api:
    """One worker's application and all that it holds."""

    def __init__(
        self, settings: Settings, sagemaker: int | None, one_of_several: bool = False, packed: Packed | None = None
    ) -> None:
        self._settings, self._one_of_several = settings, one_of_several
        self._decider = Decider(settings, bootstrap.connect(settings.platform), [self], packed=packed)
        self._live, self._journal = self._decider.live, self._decider.journal
        routes = [Route("GET", path, handle, scope, sheds) for path, handle, scope, sheds in self._pages()]
        guarded = Guarded(sagemaker, SAGEMAKER_PATHS) if sagemaker else None
        scorer = self._decider.scorer
        routes += Predict(scorer, settings.serving).routes() + Explain(scorer, self._keep).routes()
        self._metrics = Metrics([route.path for route in routes], get_args(Decision))
        self._counting = Counting(self._metrics)
        self.door = Door(
            routes, settings.serving, TITLE, self._start, self._stop, self._metrics.answered, self._document, guarded
        )

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        """Count a batch of answers."""
        self._counting.answered(outcomes, seconds)

    def cache_failed(self) -> None:
        """Count a failure of the store behind the answers."""
        self._counting.cache_failed()

    def _pages(self) -> Sequence[tuple[str, Callable[[Call], Any], str, bool]]:
        return (
            ("/health", self._health, "", False),
            ("/ready", self._ready, "", False),
            ("/ping", self._ready, "", False),
            ("/metrics", self._exposition, "", False),
            ("/model", self._model, "read", True),
        )

    async def _start(self) -> None:
        logger.start_all(self._settings.data.entities)
        await self._decider.start()
        self._gauging = asyncio.get_running_loop().create_task(self._keep_gauging())
        if self._one_of_several:
            # While others answer, a worker that has just begun lets no call come to it before it can decide.
            await asyncio.to_thread(self._live.wait, PATIENCE)

    async def _stop(self) -> None:
        self._gauging.cancel()
        await self._decider.stop()
        logger.stop_all()

    async def _health(self, _: Call) -> Reply:
        return Reply(b'{"alive":true}')

    async def _ready(self, _: Call) -> Reply:
        """Whether a model is awake and the stores answer; and what keeps the newest version from being served."""
        awake, problems = self._live.current, []
        try:
            await asyncio.to_thread(self._journal.journal.head)
        except MlopsError as error:
            problems.append(str(error))
        if awake is None:
            problems.append(self._live.problem or "no model is awake")
        said = {
            "ready": not problems, "version": None if awake is None else awake.number,
            "problem": logger.masked("; ".join(problems) or self._live.problem or "") or None,
        }  # fmt: skip
        return Reply(encode(said), 503 if problems else 200)

    async def _exposition(self, _: Call) -> Reply:
        self._gauge()
        return Reply(self._metrics.exposition(), kind=b"text/plain; version=0.0.4; charset=utf-8")

    def _gauge(self) -> None:
        """Say how things stand: at each scrape, and each second for the scrapes that other workers answer."""
        self._metrics.journal(self._journal.waiting, self._journal.seconds_behind)
        if (awake := self._live.current) is not None:
            self._metrics.serves(NAME, awake.number, awake.hash)

    async def _keep_gauging(self) -> None:
        while True:
            self._gauge()
            await asyncio.sleep(1)

    async def _model(self, _: Call) -> Reply:
        deployed = self._live.deployed
        if deployed is None:
            raise Refused("no model is awake yet; ask again soon", status=503)
        awake = deployed.production
        card = awake.predictor.artifact.card
        said = {
            "name": NAME, "version": awake.number, "traffic": deployed.traffic, "hash": awake.hash,
            "configuration": awake.configuration, "snapshot": card.snapshot, "kind": card.kind,
            "features": card.encoder.features, "thresholds": card.thresholds.model_dump(),
            "code": awake.version.tags.get("code"), "problem": self._live.problem,
        }  # fmt: skip
        return Reply(encode(said))

    def _document(self) -> dict[str, Any]:
        awake = self._live.current
        if awake is None:
            raise Refused("no model is awake yet; ask again soon", status=503)
        predictor = awake.predictor
        example = predictor.artifact.canned.transaction
        return documents.document(TITLE, predictor.request, example, self._settings.serving.max_batch)

    async def _keep(self, name: str, body: bytes) -> None:
        """Store an explanation; its failure is only told to the log."""
        try:
            key = f"{EXPLANATIONS}/decisions/{name}.json"
            await asyncio.to_thread(_write, self._decider.platform.objects, key, body)
        except MlopsError as error:
            log.warning("an explanation could not be stored", extra={"reason": str(error)})


def _write(store: Objects, key: str, body: bytes) -> None:
    objects.write(store, key, body)
