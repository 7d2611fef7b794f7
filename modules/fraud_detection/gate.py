"""The word `gate`: a registered version beside production, on rows later than both were trained on."""

import time
from collections.abc import Sequence

import numpy as np
import polars as pl

from mlops.bootstrap import Connected
from mlops.errors import BadInput
from mlops.releases import Releases
from modules.fraud_detection import history
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.features import build_features, feature_store
from modules.fraud_detection.src.models import fit, split
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.base_model import Matrix
from modules.fraud_detection.src.models.evaluate import with_earlier_rows
from modules.fraud_detection.src.models.gate import Comparison, Judged, compare
from modules.fraud_detection.watch import artifact_of

JUDGED = "judged"
TIMED = 200


def judge(settings: Settings, platform: Connected, version: int, who: str) -> Comparison:
    """Compare a version with production and write the verdict into the ledger. Raises `BadInput`, `NotFound`."""
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    traffic = releases.traffic
    if traffic is None or traffic.production == version:
        raise BadInput(f"there is no other version in production that version {version} could be compared with")
    candidate, production = artifact_of(platform, version), artifact_of(platform, traffic.production)
    comparison = _compared(settings, platform, candidate, production)
    why = "; ".join(comparison.reasons) or f"not worse than version {traffic.production}"
    figures = {"passed": comparison.passed, "against": traffic.production} | dict(comparison.figures)
    releases.note(JUDGED, version, who, why, figures)
    return comparison


def _compared(settings: Settings, platform: Connected, candidate: Artifact, production: Artifact) -> Comparison:
    snapshots = {artifact.card.snapshot for artifact in (candidate, production)}
    latest = max(snapshots, key=lambda name: feature_store.find(platform.objects, name).until)
    dataset = history.recorded(candidate.card.dataset)
    table = history.of_snapshot(platform, latest, candidate.card.dataset)
    times = table[dataset.time.column]
    period = split.periods(settings.retraining.split, times.dt.min(), times.dt.max()).test  # type: ignore[arg-type]
    rows = fit.labelled(with_earlier_rows(table, dataset), period, dataset)
    matrices = [_matrix(artifact, table, rows) for artifact in (candidate, production)]
    seconds = _seconds((candidate, production), matrices)
    new, old = (
        Judged(artifact.probability(matrix).astype(np.float64), artifact.card.thresholds, took)
        for artifact, matrix, took in zip((candidate, production), matrices, seconds, strict=True)
    )
    return compare(rows, new, old, dataset, settings.evaluation, settings.gate, settings.model.seed)


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
