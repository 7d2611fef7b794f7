"""What this module gives so that its versions can decide: predictors that share what they remember, and the router."""

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mlops.bootstrap import Connected
from mlops.contract import Json, Labelled
from mlops.errors import MlopsError
from mlops.serving.decider import Kind
from mlops.serving.scoring import Replay
from mlops.storage.objects import Objects
from mlops.storage.online import Layout, Logs, Memory
from mlops.storage.online_redis import Redis
from mlops.storage.redis_pipe import RedisPipe
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.features.online_features import OnlineFeatures
from modules.fraud_detection.src.features.past import Past
from modules.fraud_detection.src.live_predictor import LivePredictor, Make, wake
from modules.fraud_detection.src.router.traffic_split import TrafficSplit
from modules.fraud_detection.src.utils import logger

log = logging.getLogger(logger.NAME)


def kind(settings: Settings, platform: Connected) -> Kind[LivePredictor]:
    """What decides under these settings."""
    router = TrafficSplit(settings.data, settings.routing)
    return Kind(NAME, router, lambda pipe, replay: Remembering(platform.objects, pipe, replay))


class Remembering:
    """Wakes versions. Those that need the same share one past, in memory or in Redis."""

    def __init__(self, store: Objects, pipe: RedisPipe | None, replay: Replay) -> None:
        self._store, self._pipe, self._replay = store, pipe, replay
        self._pasts: dict[str, Past] = {}

    def wake(self, folder: Path) -> LivePredictor:
        """Wake the version in `folder`. Raises `Damaged` when its files are not what was written."""
        return wake(folder, self._past)

    async def prepare(self, predictor: LivePredictor) -> None:
        """Check that the canned transaction scores as it should, and bring the past back."""
        await predictor.warm_up()
        await predictor.bring_back()

    def _past(self, layout: Layout, make: Make) -> Past:
        if layout.name not in self._pasts:
            store: Logs = Memory(layout) if self._pipe is None else Redis(self._pipe, layout)

            async def replay(features: OnlineFeatures, after: int) -> int:
                async def restore(rows: Sequence[Json], labelled: Sequence[Labelled]) -> None:
                    await features.restore(rows, [(each.row, each.facts) for each in labelled])

                return await self._replay(restore, after)

            self._pasts[layout.name] = Past(make, layout, store, replay, self._training_rows)
        return self._pasts[layout.name]

    def _training_rows(self) -> pl.DataFrame | None:
        """The transactions of the latest snapshot; without them the past begins with the journal."""
        try:
            return feature_store.transactions(self._store, feature_store.latest(self._store))
        except MlopsError as error:
            log.warning("the past begins with the journal", extra={"reason": str(error)})
            return None
