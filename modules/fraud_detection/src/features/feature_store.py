"""Feature snapshots: immutable tables, named by their content, with a manifest that says where they come from."""

import hashlib
import json
from datetime import datetime
from typing import NamedTuple

import polars as pl
from pydantic import ValidationError

from mlops.errors import Damaged, NotFound
from mlops.storage import objects, tables
from mlops.storage.objects import PROCESSED, Objects
from mlops.values import Group
from modules.fraud_detection.src.data.dataset import DataSet

FOLDER = f"{PROCESSED}/features"
TABLE, MANIFEST = "features.parquet", "manifest.json"


class Manifest(Group):
    """What a snapshot holds and what it was made from. Its hash is the snapshot's name."""

    parents: dict[str, str]
    code: str
    configuration: str
    since: datetime
    until: datetime
    rows: int
    columns: dict[str, str]
    id: str
    time: str
    label: str
    known_at: str
    sha256: str

    @property
    def name(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Roles(NamedTuple):
    """Which columns of a snapshot are its id, its time, its label and the time at which the label became known."""

    id: str
    time: str
    label: str
    known_at: str


def save(
    store: Objects, features: pl.DataFrame, table: pl.DataFrame, dataset: DataSet, parents: dict[str, str], code: str,
    configuration: str,
) -> Manifest:  # fmt: skip
    """Store the features beside the columns that a row is known by: id, time, entities, numbers, categories, label.

    `features` and `table` hold the same rows in the same order.
    """
    parts = [*dataset.entities, *dataset.numbers, *dataset.categorical]
    kept = [dataset.id_column, dataset.time.column, *parts, dataset.label.column]
    keys = table.select(*dict.fromkeys(kept), dataset.known_at().alias(dataset.known_at_column))
    whole = keys.with_columns(features.drop(dataset.id_column))
    roles = Roles(dataset.id_column, dataset.time.column, dataset.label.column, dataset.known_at_column)
    return keep(store, whole, roles, parents, code, configuration)


def keep(
    store: Objects, whole: pl.DataFrame, roles: Roles, parents: dict[str, str], code: str, configuration: str
) -> Manifest:
    """Store a table that holds all of a snapshot. Storing the same content twice stores it once.

    The manifest is written last, so that a snapshot that was cut short is never taken for a whole one.
    """
    with objects.scratch() as folder:
        path = folder / TABLE
        tables.write(whole, path)
        manifest = Manifest(
            parents=parents, code=code, configuration=configuration, rows=whole.height,
            since=whole[roles.time].min(), until=whole[roles.time].max(),
            columns={name: str(kind) for name, kind in whole.schema.items()}, sha256=objects.digest(path),
            **roles._asdict(),
        )  # fmt: skip
        home = f"{FOLDER}/{manifest.name}"
        store.upload_once(path, f"{home}/{TABLE}")
        objects.write_once(store, f"{home}/{MANIFEST}", manifest.model_dump_json(indent=1).encode())
    return manifest


def find(store: Objects, name: str) -> Manifest:
    """Return the manifest of a snapshot. Raises `NotFound`, or `Damaged` for one that was cut short or changed."""
    key = f"{FOLDER}/{name}/{MANIFEST}"
    if not store.exists(key):
        if store.exists(f"{FOLDER}/{name}/{TABLE}"):
            raise Damaged(f"snapshot {name} was cut short while it was written: it has no {MANIFEST}; make it again")
        known = ", ".join(list_names(store)) or "none"
        raise NotFound(f"there is no feature snapshot '{name}'; there is: {known}")
    try:
        manifest = Manifest.model_validate(json.loads(objects.read(store, key)))
    except (ValueError, ValidationError):
        raise Damaged(f"{store.url(key)} is broken; make the snapshot again") from None
    if manifest.name != name:
        raise Damaged(f"{store.url(key)} was changed after it was written; make the snapshot again")
    return manifest


def load(store: Objects, name: str, as_of: datetime | None = None) -> pl.DataFrame:
    """Return the table of a snapshot; with `as_of` only the rows up to then, and only the labels known by then.

    Raises `Damaged` when its bytes are not those that were written.
    """
    manifest = find(store, name)
    with store.download(f"{FOLDER}/{name}/{TABLE}") as path:
        if objects.digest(path) != manifest.sha256:
            raise Damaged(f"{store.url(f'{FOLDER}/{name}/{TABLE}')} is not what was written; make the snapshot again")
        table = pl.read_parquet(path)
    if as_of is None:
        return table
    known = pl.when(pl.col(manifest.known_at) <= as_of).then(pl.col(manifest.label))
    return table.filter(pl.col(manifest.time) <= as_of).with_columns(known.alias(manifest.label))


def transactions(store: Objects, name: str) -> pl.DataFrame:
    """Return the cleaned transactions that a snapshot was made from."""
    with store.download(find(store, name).parents["processed"]) as path:
        return pl.read_parquet(path)


def list_names(store: Objects) -> list[str]:
    """Name every snapshot that was written to its end."""
    return [key.split("/")[-2] for key in store.list(FOLDER) if key.endswith(f"/{MANIFEST}")]


def latest(store: Objects) -> str:
    """Name the snapshot whose data reaches furthest. Raises `NotFound` where there is none."""
    names = list_names(store)
    if not names:
        raise NotFound("there is no feature snapshot yet; make one: python -m modules.fraud_detection pipeline")
    return max(names, key=lambda name: (find(store, name).until, name))
