"""The API, wired: what a module gives in, an application out, in one process or several."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from mlops.bootstrap import Connected
from mlops.contract import Json, Told
from mlops.errors import BadConfiguration, MlopsError, Refused
from mlops.journaling import journal
from mlops.releasing.packed import Packed
from mlops.serving import access, documents, listening
from mlops.serving.access import Serving
from mlops.serving.app import Call, Door, Guarded, Reply, Route
from mlops.serving.decider import MEMORY, Decider, Kind, Woken
from mlops.serving.deciding import Deciding, Nouns
from mlops.serving.documents import Described
from mlops.serving.explaining import Draw, Explaining
from mlops.serving.scoring import Outcome, Watcher
from mlops.settings import Platform
from mlops.storage import redis_pipe

PATIENCE = 30.0
"""Seconds that one of several workers waits for its model before it answers that there is none."""
SAGEMAKER_PORT = 8080
SAGEMAKER_PATHS = frozenset({"/ping", "/invocations", "/metrics"})

encode = msgspec.json.Encoder().encode

W = TypeVar("W", bound=Woken)


@dataclass(frozen=True)
class Reach:
    """Where the API is to be reached; port 0 takes a free one. `sagemaker` is SageMaker's port, where there is one."""

    host: str
    port: int
    workers: int
    sagemaker: int | None


class Metrics(Watcher, Protocol):
    """What counts an API's answers."""

    def replied(self, route: str, status: int, seconds: float) -> None: ...

    def journal(self, waiting: int, seconds_behind: float) -> None: ...

    def serves(self, name: str, version: int, hash_: str) -> None: ...

    def exposition(self) -> bytes: ...


class Lines(Protocol):
    """How what a process says becomes lines of its log."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def masked(self, text: str) -> str: ...


@dataclass(frozen=True)
class Service(Generic[W]):
    """What a module gives so that it can be asked over HTTP.

    `read_told` reads what somebody says of the truth, and `draw` makes an explanation a picture. `describes` is what
    /model says of a predictor beside its version, `described` what the document says of it.
    """

    title: str
    nouns: Nouns
    kind: Kind[W]
    read_told: Callable[[bytes], Told]
    draw: Draw
    describes: Callable[[W], Json]
    described: Callable[[W], Described]
    lines: Lines


def serve(
    factory: Callable[[], Door], platform: Platform, words: Serving, reach: Reach, tell: Callable[[str], None],
    several: Callable[[], None], packed: Packed | None = None,
) -> None:  # fmt: skip
    """Serve the application that `factory` makes until told to stop; `several` is called before there are workers.

    Raises `BadConfiguration` for what cannot be served, `Damaged` for a packed version that does not say what it is.
    """
    access.check_reach(reach.host, words.keys)
    if reach.workers > 1 and platform.online == MEMORY:
        raise BadConfiguration(
            f"{reach.workers} workers cannot share platform.online memory://; say REDIS_URL=redis://HOST:6379/0, or "
            "--workers 1"
        )
    what = "" if packed is None else f"version {packed.version.number} of {packed.version.name}; "
    journal.connect(platform.journal).close()
    if platform.online != MEMORY:
        redis_pipe.check(platform.online)
    sockets = [listening.bind(reach.host, reach.port)]
    if reach.sagemaker:
        # SageMaker stands before this port and checks who calls.
        sockets.append(listening.bind("0.0.0.0", reach.sagemaker))  # noqa: S104
    if reach.workers > 1:
        several()
    tell(f"http://{reach.host}:{sockets[0].getsockname()[1]}  ({what}/docs lists the routes; Ctrl-C stops)")
    listening.serve(factory, sockets, reach.workers, words.idle_seconds)


class Api(Generic[W]):
    """One worker's application and all that it holds."""

    def __init__(
        self, service: Service[W], platform: Connected, words: Serving,
        metrics: Callable[[Sequence[str]], Metrics], reach: Reach, packed: Packed | None = None,
    ) -> None:  # fmt: skip
        self._service, self._words, self._one_of_several = service, words, reach.workers > 1
        self._decider = Decider(service.kind, platform, [self], packed=packed)
        self._live, self._journal = self._decider.live, self._decider.journal
        scorer, nouns = self._decider.scorer, service.nouns
        routes = [Route("GET", path, handle, scope, sheds) for path, handle, scope, sheds in self._pages()]
        routes += Deciding(scorer, words, nouns, service.read_told).routes()
        routes += Explaining(scorer, platform.objects, nouns, service.draw).routes()
        self._metrics = metrics([route.path for route in routes])
        guarded = Guarded(reach.sagemaker, SAGEMAKER_PATHS) if reach.sagemaker else None
        self.door = Door(
            routes, words, service.title, self._start, self._stop, self._metrics.replied, self._document, guarded
        )

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        """Count a batch of answers."""
        self._metrics.answered(outcomes, seconds)

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
        self._service.lines.start()
        await self._decider.start()
        self._gauging = asyncio.get_running_loop().create_task(self._keep_gauging())
        if self._one_of_several:
            # While others answer, a worker that has just begun lets no call come to it before it can decide.
            await asyncio.to_thread(self._live.wait, PATIENCE)

    async def _stop(self) -> None:
        self._gauging.cancel()
        await self._decider.stop()
        self._service.lines.stop()

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
            "problem": self._service.lines.masked("; ".join(problems) or self._live.problem or "") or None,
        }  # fmt: skip
        return Reply(encode(said), 503 if problems else 200)

    async def _exposition(self, _: Call) -> Reply:
        self._gauge()
        return Reply(self._metrics.exposition(), kind=b"text/plain; version=0.0.4; charset=utf-8")

    def _gauge(self) -> None:
        """Say how things stand: at each scrape, and each second for the scrapes that other workers answer."""
        self._metrics.journal(self._journal.waiting, self._journal.seconds_behind)
        if (awake := self._live.current) is not None:
            self._metrics.serves(self._decider.name, awake.number, awake.hash)

    async def _keep_gauging(self) -> None:
        while True:
            self._gauge()
            await asyncio.sleep(1)

    async def _model(self, _: Call) -> Reply:
        deployed = self._live.deployed
        if deployed is None:
            raise Refused("no model is awake yet; ask again soon", status=503)
        awake = deployed.production
        said = {
            "name": self._decider.name, "version": awake.number, "traffic": deployed.traffic, "hash": awake.hash,
            "configuration": awake.configuration, **self._service.describes(awake.predictor),
            "code": awake.version.tags.get("code"), "problem": self._live.problem,
        }  # fmt: skip
        return Reply(encode(said))

    def _document(self) -> dict[str, Any]:
        awake = self._live.current
        if awake is None:
            raise Refused("no model is awake yet; ask again soon", status=503)
        described = self._service.described(awake.predictor)
        return documents.document(self._service.title, self._service.nouns, described, self._words.max_batch)
