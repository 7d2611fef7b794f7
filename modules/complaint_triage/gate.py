"""The word `gate`: a registered version beside production, on complaints that neither has learned from."""

import math

import numpy as np
import polars as pl

from mlops.bootstrap import Connected
from mlops.errors import BadInput
from mlops.journaling.ledger import Done
from mlops.releasing.releases import Releases
from mlops.storage import objects
from mlops.storage.objects import PROCESSED
from modules.complaint_triage.settings import NAME, Settings
from modules.complaint_triage.src.data.complaints import PRODUCT, TEXT
from modules.complaint_triage.src.features.words import Floats
from modules.complaint_triage.src.models.artifact import Artifact
from modules.complaint_triage.src.models.evaluate import Costs
from modules.complaint_triage.src.predictor import Triage, wake

JUDGED = "judged"
LEAST = 100
"""Complaints below which nothing can be told."""
Z = 1.959963984540054


def judge(settings: Settings, platform: Connected, version: int, who: str) -> Done:
    """Compare what a version costs with what production does, and write the verdict into the ledger.

    The complaints are the last part of the version's own, without those that stand in production's. Raises `BadInput`
    and `NotFound`.
    """
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    traffic = releases.traffic
    if traffic is None or traffic.production == version:
        raise BadInput(f"there is no other version in production that version {version} could be compared with")
    new, old = _awake(platform, version), _awake(platform, traffic.production)
    rows = _unseen(settings, platform, new.artifact, old.artifact)
    mine, theirs = _costs(new, rows, settings.costs), _costs(old, rows, settings.costs)
    apart = mine - theirs
    mean, reach = float(apart.mean()), Z * float(apart.std(ddof=1)) / math.sqrt(rows.height)
    allowed = settings.gate.most_worse * float(theirs.mean())
    passed = mean - reach <= 0 and mean <= allowed
    figures = {
        "passed": passed, "against": traffic.production, "rows": rows.height,
        "cost_per_1000": 1_000 * float(mine.mean()), "cost_per_1000_of_production": 1_000 * float(theirs.mean()),
        "difference_per_1000_from": 1_000 * (mean - reach), "difference_per_1000_to": 1_000 * (mean + reach),
    }  # fmt: skip
    why = f"not worse than version {traffic.production}" if passed else f"it costs {1_000 * mean:+,.2f} per 1,000"
    return releases.note(JUDGED, version, who, why, figures)


def _awake(platform: Connected, version: int) -> Triage:
    with objects.scratch() as folder:
        return wake(platform.registry.fetch(platform.registry.find(NAME, version), folder))


def _unseen(settings: Settings, platform: Connected, new: Artifact, old: Artifact) -> pl.DataFrame:
    mine, theirs = (_complaints(platform, one.card.snapshot) for one in (new, old))
    last = mine.slice(round(mine.height * (settings.split.train + settings.split.valid)))
    if new.card.snapshot == old.card.snapshot:
        return last
    rows = last.join(theirs.select(TEXT), on=TEXT, how="anti")
    if rows.height < LEAST:
        few = f"only {rows.height} complaints are new to both versions, fewer than {LEAST}"
        raise BadInput(f"{few}; train the version on later ones")
    return rows


def _complaints(platform: Connected, snapshot: str) -> pl.DataFrame:
    with platform.objects.download(f"{PROCESSED}/complaints/{snapshot}.parquet") as path:
        return pl.read_parquet(path)


def _costs(triage: Triage, rows: pl.DataFrame, costs: Costs) -> Floats:
    """What each complaint costs with a version (rows,)."""
    card, found = triage.artifact.card, []
    for text, product in rows.select(TEXT, PRODUCT).rows():
        judged = triage.judge(text)
        wrong = card.products[judged.product] != product
        found.append(costs.review if judged.doubt >= card.review_from else costs.misrouted * wrong)
    return np.array(found, np.float64)
