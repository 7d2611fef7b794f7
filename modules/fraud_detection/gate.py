"""The word `gate`: a registered version beside production, on rows later than both were trained on."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from mlops.bootstrap import Connected
from mlops.errors import BadInput
from mlops.journaling.journal import Journal
from mlops.journaling.ledger import Done
from mlops.releasing.releases import Releases
from mlops.values import seconds
from modules.fraud_detection import history
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import build_features
from modules.fraud_detection.src.models import fit, split
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.base_model import Matrix
from modules.fraud_detection.src.models.evaluate import with_earlier_rows
from modules.fraud_detection.src.models.gate import Comparison, Judged, compare
from modules.fraud_detection.watch import artifact_of

JUDGED = "judged"
TIMED = 200


def judge(
    settings: Settings, platform: Connected, journal: Journal, version: int, who: str, now: datetime,
    must_gain: bool = False,
) -> Done:  # fmt: skip
    """Compare a version with production on what is known at `now` (UTC), and write the verdict into the ledger.

    The rows are those that production was trained on and that the journal holds since then, never the candidate's own:
    what its data had wrong must not excuse it. One that `must_gain` has to be better for sure. Raises `BadInput` and
    `NotFound`.
    """
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    traffic = releases.traffic
    if traffic is None or traffic.production == version:
        raise BadInput(f"there is no other version in production that version {version} could be compared with")
    candidate, production = artifact_of(platform, version), artifact_of(platform, traffic.production)
    table = history.known(platform, production.card.snapshot, history.journalled(journal), settings.data, now)
    found = _compared(settings, table, candidate, production, now, must_gain)
    figures = {"passed": found.passed, "against": traffic.production} | dict(found.figures)
    why = found.why or f"not worse than version {traffic.production}"
    return releases.note(JUDGED, version, who, why, figures)


def _compared(
    settings: Settings,
    table: pl.DataFrame,
    candidate: Artifact,
    production: Artifact,
    now: datetime,
    must_gain: bool,
) -> Comparison:
    dataset, words = history.recorded(settings.data), settings.retraining
    matured = table.filter(pl.col(dataset.time.column) < now - timedelta(seconds=seconds(words.maturity)))
    times = matured[dataset.time.column]
    period = split.periods(words.split, times.dt.min(), times.dt.max()).test  # type: ignore[arg-type]
    rows = fit.labelled(with_earlier_rows(matured, dataset), period, dataset)
    matrices = [_matrix(artifact, matured, rows) for artifact in (candidate, production)]
    took = _seconds((candidate, production), matrices)
    new, old = (
        Judged(artifact.probability(matrix).astype(np.float64), artifact.card.thresholds, each)
        for artifact, matrix, each in zip((candidate, production), matrices, took, strict=True)
    )
    return compare(rows, new, old, dataset, settings.evaluation, settings.gate, settings.model.seed, must_gain)


def _matrix(artifact: Artifact, table: pl.DataFrame, rows: pl.DataFrame) -> Matrix:
    """What a version sees of the rows, on the features that it declares."""
    dataset = history.recorded(artifact.card.dataset)
    built = build_features.build(table, dataset, artifact.card.features)
    keys = rows.select(dataset.id_column)
    return artifact.card.encoder.encode(keys.join(built, on=dataset.id_column, how="left", maintain_order="left"))


def _seconds(artifacts: Sequence[Artifact], matrices: Sequence[Matrix]) -> list[float]:
    """The median seconds of each version for one row, asked in turns."""
    took: list[list[float]] = [[], []]
    for place in range(min(TIMED, len(matrices[0]))):
        for mine, artifact, matrix in zip(took, artifacts, matrices, strict=True):
            began = time.perf_counter()
            artifact.probability(matrix[place : place + 1])
            mine.append(time.perf_counter() - began)
    return [float(np.median(mine)) for mine in took]
