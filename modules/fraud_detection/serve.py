"""The API, wired: settings in, an application out, in one process or several."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec
import polars as pl

from mlops import access, bootstrap, journal, listening, objects, redis_pipe
from mlops.answers import Answers
from mlops.contract import Json, Labelled
from mlops.errors import BadConfiguration, Damaged, MlopsError, Refused
from mlops.group_commit import GroupCommit
from mlops.live import Live
from mlops.objects import EXPLANATIONS, Objects
from mlops.online import Layout, Logs, Memory
from mlops.online_redis import SCRIPTS, Redis
from mlops.redis_pipe import RedisPipe
from mlops.registry import Version
from mlops.scoring import Clock, Decided, Outcome, Scorer
from mlops.serving import Call, Door, Guarded, Reply, Route
from mlops.shared_answers import SharedAnswers
from mlops.traffic import Traffic
from modules.fraud_detection import documents
from modules.fraud_detection.explain import Explain
from modules.fraud_detection.predict import Predict
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.features.online_features import OnlineFeatures
from modules.fraud_detection.src.features.past import Past
from modules.fraud_detection.src.live_predictor import LivePredictor, Make, wake
from modules.fraud_detection.src.predictor import Decision
from modules.fraud_detection.src.router.traffic_split import TrafficSplit
from modules.fraud_detection.src.utils import logger
from monitoring import prometheus_metrics
from monitoring.prometheus_metrics import Metrics

MEMORY = "memory://"
TITLE = "Fraud detection"
FOLDER = Path("var/serving")
REMEMBERED = 100_000
"""Answers that are remembered beside the journal."""
PATIENCE = 30.0
"""Seconds that one of several workers waits for its model before it answers that there is none."""
SAGEMAKER_PORT = 8080
SAGEMAKER_PATHS = frozenset({"/ping", "/invocations", "/metrics"})

encode = msgspec.json.Encoder().encode
log = logging.getLogger(logger.NAME)


@dataclass(frozen=True)
class Reach:
    """Where the API is to be reached; port 0 takes a free one."""

    host: str
    port: int
    workers: int
    sagemaker: bool


def serve(settings: Settings, reach: Reach, tell: Callable[[str], None]) -> None:
    """Serve until told to stop. Raises `BadConfiguration` for what cannot be served."""
    access.check_reach(reach.host, settings.serving.keys)
    if reach.workers > 1 and settings.platform.online == MEMORY:
        raise BadConfiguration(
            f"{reach.workers} workers cannot share platform.online memory://; say REDIS_URL=redis://HOST:6379/0, or "
            "--workers 1"
        )
    journal.connect(settings.platform.journal).close()
    if settings.platform.online != MEMORY:
        redis_pipe.check(settings.platform.online)
    sockets = [listening.bind(reach.host, reach.port)]
    if reach.sagemaker:
        # SageMaker stands before this port and checks who calls.
        sockets.append(listening.bind("0.0.0.0", SAGEMAKER_PORT))  # noqa: S104
    if reach.workers > 1:
        prometheus_metrics.prepare(FOLDER / "metrics")
    tell(f"http://{reach.host}:{sockets[0].getsockname()[1]}  (/docs lists the routes; Ctrl-C stops)")
    listening.serve(
        partial(application, settings, reach.sagemaker, reach.workers > 1),
        sockets,
        reach.workers,
        settings.serving.idle_seconds,
    )


def application(settings: Settings, sagemaker: bool = False, one_of_several: bool = False) -> Door:
    """Make the application of one worker."""
    return Api(settings, sagemaker, one_of_several).door


class Api:
    """One worker's application and all that it holds."""

    def __init__(self, settings: Settings, sagemaker: bool, one_of_several: bool = False) -> None:
        self._settings, self._one_of_several = settings, one_of_several
        self._platform = bootstrap.connect(settings.platform)
        routes = [Route("GET", path, handle, scope, sheds) for path, handle, scope, sheds in self._pages()]
        guarded = Guarded(SAGEMAKER_PORT, SAGEMAKER_PATHS) if sagemaker else None
        self._journal = GroupCommit(settings.platform.journal)
        self._pasts: dict[str, Past] = {}
        self._pipe = None if settings.platform.online == MEMORY else RedisPipe(settings.platform.online, SCRIPTS)
        self._live: Live[LivePredictor] = Live(
            self._traffic, lambda: bootstrap.connect(settings.platform).registry, NAME, self._wake, self._prepare,
            FOLDER / "versions",
        )  # fmt: skip
        router, shared = TrafficSplit(settings.data, settings.routing), None
        if self._pipe is not None:
            shared = SharedAnswers(self._pipe, NAME, self._journal.journal.secret)
        self._scorer = Scorer(NAME, self._live, router, self._journal, Answers(REMEMBERED), Clock(), [self], shared)
        routes += Predict(self._scorer, settings.serving).routes() + Explain(self._scorer, self._keep).routes()
        self._metrics = Metrics([route.path for route in routes], get_args(Decision))
        self.door = Door(
            routes, settings.serving, TITLE, self._start, self._stop, self._metrics.answered, self._document, guarded
        )

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        """Count a batch of answers."""
        decided = [one for one in outcomes if isinstance(one, Decided)]
        fresh = [one.record for one in decided if not one.replayed]
        self._metrics.predicted(
            [one.status if isinstance(one, Refused) else 200 for one in outcomes],
            seconds,
            len(decided) - len(fresh),
            sum(record.degraded for record in fresh),
            Counter((record.model.arm, record.model.version, record.said["decision"]) for record in fresh),
        )

    def cache_failed(self) -> None:
        """Count a failure of the store behind the answers."""
        self._metrics.cache_failed()

    def _pages(self) -> Sequence[tuple[str, Callable[[Call], Any], str, bool]]:
        return (
            ("/health", self._health, "", False),
            ("/ready", self._ready, "", False),
            ("/ping", self._ready, "", False),
            ("/metrics", self._exposition, "", False),
            ("/model", self._model, "read", True),
        )

    async def _start(self) -> None:
        logger.start(self._settings.data.entities)
        self._loop = asyncio.get_running_loop()
        await self._journal.open()
        self._live.start()
        self._gauging = self._loop.create_task(self._keep_gauging())
        if self._one_of_several:
            # While others answer, a worker that has just begun lets no call come to it before it can decide.
            await asyncio.to_thread(self._live.wait, PATIENCE)

    async def _stop(self) -> None:
        self._gauging.cancel()
        await self._scorer.finish()
        await asyncio.to_thread(self._live.stop)
        await self._journal.close()
        self._platform.ledger.close()
        if self._pipe is not None:
            self._pipe.close()

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

    def _traffic(self) -> Traffic | None:
        return self._platform.ledger.traffic(NAME)

    def _wake(self, folder: Path, version: Version) -> LivePredictor:
        predictor = wake(folder, self._past)
        if predictor.artifact.hash != version.tags["model_hash"]:
            raise Damaged(f"version {version.number} is registered with another hash than its files have")
        return predictor

    def _past(self, layout: Layout, make: Make) -> Past:
        """One past for each layout: versions that need the same share it."""
        if layout.name not in self._pasts:
            store: Logs = Memory(layout) if self._pipe is None else Redis(self._pipe, layout)

            async def replay(features: OnlineFeatures, after: int) -> int:
                async def restore(rows: Sequence[Json], labelled: Sequence[Labelled]) -> None:
                    await features.restore(rows, [(each.row, each.facts) for each in labelled])

                return await self._scorer.replay(restore, after)

            self._pasts[layout.name] = Past(make, layout, store, replay, self._training_rows)
        return self._pasts[layout.name]

    def _prepare(self, predictor: LivePredictor) -> None:
        """Bring the past back, on the loop that decides, and check that the canned transaction scores as it should."""
        asyncio.run_coroutine_threadsafe(self._bring_back(predictor), self._loop).result()

    async def _bring_back(self, predictor: LivePredictor) -> None:
        await predictor.warm_up()
        await predictor.bring_back()

    def _training_rows(self) -> pl.DataFrame | None:
        """The transactions of the latest snapshot; without them the past begins with the journal."""
        store = self._platform.objects
        try:
            return feature_store.transactions(store, feature_store.latest(store))
        except MlopsError as error:
            log.warning("the past begins with the journal", extra={"reason": str(error)})
            return None

    async def _keep(self, name: str, body: bytes) -> None:
        """Store an explanation; its failure is only told to the log."""
        try:
            await asyncio.to_thread(_write, self._platform.objects, f"{EXPLANATIONS}/decisions/{name}.json", body)
        except MlopsError as error:
            log.warning("an explanation could not be stored", extra={"reason": str(error)})


def _write(store: Objects, key: str, body: bytes) -> None:
    objects.write(store, key, body)
