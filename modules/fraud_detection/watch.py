"""The watch over the trials of this module: what production and a candidate say of the same transactions."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial

import numpy as np
import polars as pl

from mlops.bootstrap import Connected
from mlops.journaling.journal import Journal
from mlops.journaling.journal_table import JournalTable
from mlops.releasing.release import Flags, Floats, Trial
from mlops.releasing.releases import Releases
from mlops.releasing.watch import Watch
from mlops.storage import objects
from modules.fraud_detection import history
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import build_features
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.evaluate import costs

WOKEN = 4


@dataclass(frozen=True)
class Opinion:
    """What a version says of each transaction: scores, flags and costs (rows,), and the features that it says it of."""

    scores: Floats
    flagged: Flags
    costs: Floats
    features: pl.DataFrame


class Trials:
    """Sees the trials of this module in its journal."""

    def __init__(self, settings: Settings, platform: Connected, journal: Journal) -> None:
        self._settings, self._platform = settings, platform
        self._table = JournalTable(journal, NAME)
        self._artifact = lru_cache(WOKEN)(partial(artifact_of, platform))

    def see(self, production: int, candidate: int, since: int) -> Trial:
        """What both versions say of all that was decided since a time (microseconds since 1970)."""
        self._table.read_on()
        rows = self._table.decisions.filter(pl.col("at") >= since)
        before, now = self._opinion(production, rows), self._opinion(candidate, rows)
        failed = (rows["instead_of"] == candidate).fill_null(False).to_numpy()
        same = self._same(production, rows, before) | self._same(candidate, rows, now)
        return Trial(
            at=rows["at"].to_numpy(), met=(rows["version"] == candidate).to_numpy() | failed, failed=failed,
            took=rows["took"].to_numpy(), same=same | rows["degraded"].to_numpy(), scores=now.scores,
            flagged=now.flagged, costs=now.costs, production_scores=before.scores, production_flagged=before.flagged,
            production_costs=before.costs,
        )  # fmt: skip

    def _opinion(self, version: int, rows: pl.DataFrame) -> Opinion:
        """Let a version judge decided transactions, on the features that the batch engine makes of them."""
        card = self._artifact(version).card
        dataset = history.recorded(card.dataset)
        table = history.known(self._platform, card.snapshot, self._table, card.dataset, datetime.max)
        built = build_features.build(table, dataset, card.features)
        keys = rows.select(pl.col("key").alias(dataset.id_column))
        table, built = (
            keys.join(each, on=dataset.id_column, how="left", maintain_order="left") for each in (table, built)
        )
        scores = self._artifact(version).probability(card.encoder.encode(built)).astype(np.float64)
        flagged = scores >= card.thresholds.review
        found = costs(table, flagged, dataset, self._settings.evaluation)
        return Opinion(scores, flagged, found, built.select(card.encoder.features))

    def _same(self, version: int, rows: pl.DataFrame, opinion: Opinion) -> Flags:
        """Where a version decided, whether it saw what the batch engine makes. Shape (rows,)."""
        names = self._artifact(version).card.encoder.features
        seen = self._table.seen(version, names)
        seen = rows.select("sequence").join(seen, on="sequence", how="left", maintain_order="left")
        alike = [seen[name].eq_missing(opinion.features[name].cast(seen.schema[name])) for name in names]
        same: Flags = np.logical_and.reduce([(rows["version"] == version), *alike])
        return same


def watcher(settings: Settings, platform: Connected, journal: Journal) -> Watch:
    """The watch over this module."""
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    return Watch(releases, Trials(settings, platform, journal).see, settings.release, platform.now)


def artifact_of(platform: Connected, version: int) -> Artifact:
    """Fetch and open the artifact of a version."""
    with objects.scratch() as folder:
        return Artifact.open(platform.registry.fetch(platform.registry.find(NAME, version), folder))
