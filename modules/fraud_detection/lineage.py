"""From a decision or a model version back to the raw bytes, each step checked by its hash."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops.bootstrap import Connected
from mlops.errors import Damaged, NotFound
from mlops.journaling.journal import Journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.storage import objects
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.models.artifact import Artifact


@dataclass(frozen=True)
class Step:
    """One link of the chain: what it is, its name or hash, and where it lies."""

    what: str
    name: str
    where: str


def decided(journal: Journal, id_: bytes) -> tuple[Step, int]:
    """Find a decision and the number of the version that made it. Raises `NotFound`."""
    row = journal.find(id_)
    if row is None or row.entry.kind != DECISION:
        raise NotFound(f"there is no decision {id_.hex()} in the journal")
    record = decode_record(row.entry.body)
    model = record.model
    about = f"journal row {row.sequence}, arm {model.arm}, model {model.hash[:16]}, configuration {model.configuration}"
    return Step("decision", f"{id_.hex()} about {record.key}", about), model.version


def trace(platform: Connected, which: str | int) -> Iterator[Step]:
    """Walk back from a version, given by alias or number. Raises `NotFound` or `Damaged` where a link is broken."""
    version = platform.registry.find(NAME, which)
    yield Step("version", f"{version.name} {version.number}", f"MLflow run {version.run_id}")
    yield Step("code", version.tags["git_revision"], f"source hash {version.tags['code']}")
    yield Step("configuration", version.tags["configuration"], f"MLflow run {version.run_id}, run/configuration.json")
    with objects.scratch() as folder:
        found = Artifact.open(platform.registry.fetch(version, folder))
    _same("the model", version.tags["model_hash"], found.hash)
    yield Step("model", found.hash, f"{len(found.card.encoder.features)} features, {found.card.kind}")
    manifest = feature_store.find(platform.objects, version.tags["snapshot"])
    _same("the snapshot the model names", manifest.name, found.card.snapshot)
    rows = feature_store.load(platform.objects, manifest.name).height
    yield Step(
        "features", manifest.name, f"{rows:,} rows, {platform.objects.url(feature_store.FOLDER)}/{manifest.name}"
    )
    processed = manifest.parents["processed"]
    with platform.objects.download(processed) as path:
        _same(processed, Path(processed).stem, objects.digest(path)[:16])
    yield Step("transactions", Path(processed).stem, platform.objects.url(processed))
    record = json.loads(objects.read(platform.objects, manifest_of(processed, manifest.parents["raw"])))
    with objects.scratch() as folder:
        home = Path(record["raw_files"][0]).parent.as_posix()
        copies = objects.download_all(platform.objects, record["raw_files"], folder)
        _same(home, version.tags["data_hash"], objects.digest_of_all(copies))
    yield Step("raw data", version.tags["data_hash"], platform.objects.url(home))


def manifest_of(processed: str, raw: str) -> str:
    """The key of the page that says how a processed table was made from raw bytes; others may give the same table."""
    return f"{processed.removesuffix('.parquet')}-{raw[:16]}.json"


def _same(what: str, expected: str, found: str) -> None:
    if expected != found:
        raise Damaged(f"{what} has hash {found}, not {expected}: it was changed after it was written")
