"""What decides, wired: the versions that answer, what they remember, and the scorer; behind every door the same."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mlops import bootstrap
from mlops.bootstrap import Connected
from mlops.contract import Json, Labelled
from mlops.errors import Damaged, MlopsError
from mlops.journaling.group_commit import GroupCommit
from mlops.releasing.packed import Packed
from mlops.releasing.registry import Version
from mlops.serving.answers import Answers
from mlops.serving.live import Live
from mlops.serving.scoring import Clock, Scorer, Watcher
from mlops.serving.shared_answers import SharedAnswers
from mlops.storage.online import Layout, Logs, Memory
from mlops.storage.online_redis import SCRIPTS, Redis
from mlops.storage.redis_pipe import RedisPipe
from mlops.traffic import Traffic
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.features.online_features import OnlineFeatures
from modules.fraud_detection.src.features.past import Past
from modules.fraud_detection.src.live_predictor import LivePredictor, Make, wake
from modules.fraud_detection.src.router.traffic_split import TrafficSplit
from modules.fraud_detection.src.utils import logger

MEMORY = "memory://"
FOLDER = Path("var/serving")
REMEMBERED = 100_000
"""Answers that are remembered beside the journal."""

log = logging.getLogger(logger.NAME)


class Decider:
    """The scorer of one process and all that it needs; it lives on the event loop on which it was started.

    With `packed` that version decides, and neither the ledger nor the registry is opened.
    """

    def __init__(
        self, settings: Settings, platform: Connected, watchers: Sequence[Watcher] = (), clock: Clock | None = None,
        cache: Path = FOLDER / "versions", packed: Packed | None = None,
    ) -> None:  # fmt: skip
        self.platform, self._packed = platform, packed
        self.journal = GroupCommit(settings.platform.journal)
        self._pasts: dict[str, Past] = {}
        online = settings.platform.online
        self._pipe = None if online == MEMORY else RedisPipe(online, SCRIPTS)
        self.live: Live[LivePredictor] = Live(
            self._traffic, lambda: packed or bootstrap.connect(settings.platform).registry, NAME, self._wake,
            self._prepare, cache,
        )  # fmt: skip
        router, shared = TrafficSplit(settings.data, settings.routing), None
        if self._pipe is not None:
            shared = SharedAnswers(self._pipe, NAME, self.journal.journal.secret)
        self.scorer = Scorer(
            NAME, self.live, router, self.journal, Answers(REMEMBERED), clock or Clock(), watchers, shared
        )

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
        return self.platform.ledger.traffic(NAME) if self._packed is None else self._packed.traffic

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

                return await self.scorer.replay(restore, after)

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
        store = self.platform.objects
        try:
            return feature_store.transactions(store, feature_store.latest(store))
        except MlopsError as error:
            log.warning("the past begins with the journal", extra={"reason": str(error)})
            return None
