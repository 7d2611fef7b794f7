"""From a decision or a model version back to the raw bytes, each step checked by its hash."""

import json
from collections.abc import Iterator
from pathlib import Path

from mlops.bootstrap import Connected
from mlops.releasing.lineage import Step, begun, same
from mlops.storage import objects
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.models.artifact import Artifact


def trace(platform: Connected, which: str | int) -> Iterator[Step]:
    """Walk back from a version, given by alias or number. Raises `NotFound` or `Damaged` where a link is broken."""
    version = platform.registry.find(NAME, which)
    yield from begun(version)
    with objects.scratch() as folder:
        found = Artifact.open(platform.registry.fetch(version, folder))
    same("the model", version.tags["model_hash"], found.hash)
    yield Step("model", found.hash, f"{len(found.card.encoder.features)} features, {found.card.kind}")
    manifest = feature_store.find(platform.objects, version.tags["snapshot"])
    same("the snapshot the model names", manifest.name, found.card.snapshot)
    rows = feature_store.load(platform.objects, manifest.name).height
    yield Step(
        "features", manifest.name, f"{rows:,} rows, {platform.objects.url(feature_store.FOLDER)}/{manifest.name}"
    )
    processed = manifest.parents["processed"]
    with platform.objects.download(processed) as path:
        same(processed, Path(processed).stem, objects.digest(path)[:16])
    yield Step("transactions", Path(processed).stem, platform.objects.url(processed))
    record = json.loads(objects.read(platform.objects, manifest_of(processed, manifest.parents["raw"])))
    with objects.scratch() as folder:
        home = Path(record["raw_files"][0]).parent.as_posix()
        copies = objects.download_all(platform.objects, record["raw_files"], folder)
        same(home, version.tags["data_hash"], objects.digest_of_all(copies))
    yield Step("raw data", version.tags["data_hash"], platform.objects.url(home))


def manifest_of(processed: str, raw: str) -> str:
    """The key of the page that says how a processed table was made from raw bytes; others may give the same table."""
    return f"{processed.removesuffix('.parquet')}-{raw[:16]}.json"
