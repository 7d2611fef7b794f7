"""A feature group of SageMaker beside the snapshots: made and filled from them, and read back into one of them."""

from datetime import datetime
from typing import Any

import polars as pl

from mlops.errors import BadData, NotFound
from mlops.storage.feature_group import FeatureGroup, typed
from mlops.storage.objects import PROCESSED, Objects
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.features.feature_store import Manifest, Roles

HOME = f"{PROCESSED}/feature_groups"
SOURCE = "from_snapshot"
"""The feature that says which snapshot a record was put from."""


def create(store: Objects, group: FeatureGroup, snapshot: str, role: str) -> None:
    """Make the group for snapshots like this one; `role` is the ARN by whose rights the service writes to the bucket.

    Raises `BadConfiguration` where the objects are in no bucket, and what the group raises.
    """
    manifest = feature_store.find(store, snapshot)
    schema = {**feature_store.load(store, snapshot).schema, SOURCE: pl.String()}
    group.create(schema, manifest.id, manifest.time, store.url(HOME), role)


def put(store: Objects, group: FeatureGroup, snapshot: str) -> int:
    """Put every row of a snapshot, and return how many there are."""
    table = feature_store.load(store, snapshot)
    group.put(table.with_columns(pl.lit(snapshot).alias(SOURCE)))
    return table.height


def record(store: Objects, group: FeatureGroup, id_: str) -> dict[str, Any]:
    """Return the newest record of an id, without the label. Raises `NotFound`; what is not known is None."""
    found = group.get(id_)
    manifest, schema = _source(store, group, found[SOURCE].to_list())
    row: dict[str, Any] = typed(found, schema).row(0, named=True)
    # The online store keeps the first record of an event time, and the label became known later.
    return {name: value for name, value in row.items() if name not in (manifest.label, manifest.known_at)}


def snapshot(store: Objects, group: FeatureGroup, as_of: datetime | None = None) -> Manifest:
    """Store what the group's part in the bucket holds, up to a moment (UTC), as a snapshot that can be trained from.

    Of each id the newest record counts, and of the labels those that were known by then. Its parents are those of the
    snapshot that reaches furthest among those that its records were put from; all of them are named. Raises `NotFound`
    where there is no record.
    """
    rows = group.rows(as_of)
    if rows.is_empty():
        until = "" if as_of is None else f" up to {as_of:%Y-%m-%d %H:%M:%S}"
        raise NotFound(f"feature group '{group.name}' holds no record{until}; what is put arrives within 15 minutes")
    sources = rows[SOURCE].unique().sort().to_list()
    manifest, schema = _source(store, group, sources)
    table = typed(rows, schema)
    if as_of is not None:
        known = pl.when(pl.col(manifest.known_at) <= as_of).then(pl.col(manifest.label))
        table = table.with_columns(known.alias(manifest.label))
    parents = {
        **manifest.parents, "feature_group": group.name, "snapshots": " ".join(sources),
        "as_of": "all" if as_of is None else as_of.isoformat(),
    }  # fmt: skip
    roles = Roles(manifest.id, manifest.time, manifest.label, manifest.known_at)
    return feature_store.keep(store, table, roles, parents, manifest.code, manifest.configuration)


def _source(store: Objects, group: FeatureGroup, names: list[str | None]) -> tuple[Manifest, pl.Schema]:
    """The snapshot that reaches furthest among those that records came from, and its columns with their types."""
    found = [feature_store.find(store, name) for name in names if name is not None]
    if len(found) < len(names):
        raise BadData(f"feature group '{group.name}' has records that name no snapshot; they were not put from here")
    latest = max(found, key=lambda manifest: (manifest.until, manifest.name))
    return latest, feature_store.load(store, latest.name).schema
