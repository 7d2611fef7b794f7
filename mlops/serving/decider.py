"""What decides, wired: the versions that answer, and the scorer before them; behind every door the same."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from mlops import bootstrap
from mlops.bootstrap import Connected
from mlops.contract import Predictor, Router
from mlops.errors import Damaged
from mlops.journaling.group_commit import GroupCommit
from mlops.releasing.packed import Packed
from mlops.releasing.registry import Version
from mlops.serving.answers import Answers
from mlops.serving.live import Live
from mlops.serving.scoring import Clock, Replay, Scorer, Watcher
from mlops.serving.shared_answers import SharedAnswers
from mlops.storage.online_redis import SCRIPTS
from mlops.storage.redis_pipe import RedisPipe
from mlops.traffic import Traffic

MEMORY = "memory://"
FOLDER = Path("var/serving")
REMEMBERED = 100_000
"""Answers that are remembered beside the journal."""


class Woken(Predictor, Protocol):
    """A predictor that knows what it woke from."""

    @property
    def hash(self) -> str:
        """The hash of its files."""


W = TypeVar("W", bound=Woken)


class Predictors(Protocol[W]):
    """Where a module's predictors come from."""

    def wake(self, folder: Path) -> W:
        """Wake the version whose files lie in `folder`. Raises `Damaged`."""

    async def prepare(self, predictor: W) -> None:
        """Make a predictor ready to decide, on the loop on which it will."""


@dataclass(frozen=True)
class Kind(Generic[W]):
    """What a module gives so that its versions can decide.

    `predictors` gets the connected Redis, where there is one, and the way to what the journal holds.
    """

    name: str
    router: Router
    predictors: Callable[[RedisPipe | None, Replay], Predictors[W]]


class Decider(Generic[W]):
    """The scorer of one process and all that it needs; it lives on the event loop on which it was started.

    With `packed` that version decides, and neither the ledger nor the registry is opened.
    """

    def __init__(
        self, kind: Kind[W], platform: Connected, watchers: Sequence[Watcher] = (), clock: Clock | None = None,
        cache: Path = FOLDER / "versions", packed: Packed | None = None,
    ) -> None:  # fmt: skip
        self.name, self.platform, self._packed = kind.name, platform, packed
        settings, shared = platform.settings, None
        self.journal = GroupCommit(settings.journal)
        self._pipe = None if settings.online == MEMORY else RedisPipe(settings.online, SCRIPTS)
        self.live: Live[W] = Live(
            self._traffic, lambda: packed or bootstrap.connect(settings).registry, kind.name, self._wake,
            self._prepare, cache,
        )  # fmt: skip
        if self._pipe is not None:
            shared = SharedAnswers(self._pipe, kind.name, self.journal.journal.secret)
        self.scorer = Scorer(
            kind.name, self.live, kind.router, self.journal, Answers(REMEMBERED), clock or Clock(), watchers, shared
        )
        self._predictors = kind.predictors(self._pipe, self.scorer.replay)

    async def start(self) -> None:
        """Begin: the journal is open, and the versions are being woken."""
        self._loop = asyncio.get_running_loop()
        await self.journal.open()
        self.live.start()

    async def stop(self) -> None:
        """Finish what was accepted, and let go of everything."""
        await self.scorer.finish()
        await asyncio.to_thread(self.live.stop)
        await self.journal.close()
        if self._packed is None:
            self.platform.ledger.close()
        if self._pipe is not None:
            self._pipe.close()

    def _traffic(self) -> Traffic | None:
        return self.platform.ledger.traffic(self.name) if self._packed is None else self._packed.traffic

    def _wake(self, folder: Path, version: Version) -> W:
        predictor = self._predictors.wake(folder)
        if predictor.hash != version.tags["model_hash"]:
            raise Damaged(f"version {version.number} is registered with another hash than its files have")
        return predictor

    def _prepare(self, predictor: W) -> None:
        asyncio.run_coroutine_threadsafe(self._predictors.prepare(predictor), self._loop).result()
