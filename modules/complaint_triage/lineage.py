"""From a model version back to the raw bytes, each step checked by its hash."""

from collections.abc import Iterator

from mlops.bootstrap import Connected
from mlops.releasing.lineage import Step, begun, same
from mlops.storage import objects
from mlops.storage.objects import PROCESSED, RAW
from modules.complaint_triage.settings import NAME
from modules.complaint_triage.src.models.artifact import Artifact


def trace(platform: Connected, which: str | int) -> Iterator[Step]:
    """Walk back from a version, given by alias or number. Raises `NotFound` or `Damaged` where a link is broken."""
    version = platform.registry.find(NAME, which)
    yield from begun(version)
    with objects.scratch() as folder:
        found = Artifact.open(platform.registry.fetch(version, folder))
    same("the model", version.tags["model_hash"], found.hash)
    yield Step("model", found.hash, f"{len(found.card.vocabulary.words):,} words, {len(found.card.products)} products")
    same("the snapshot the model names", version.tags["snapshot"], found.card.snapshot)
    key = f"{PROCESSED}/complaints/{found.card.snapshot}.parquet"
    with platform.objects.download(key) as path:
        same(key, found.card.snapshot, objects.digest(path)[:16])
    yield Step("complaints", found.card.snapshot, platform.objects.url(key))
    home = f"{RAW}/{version.tags['data_hash'][:16]}"
    with objects.scratch() as folder:
        copies = objects.download_all(platform.objects, platform.objects.list(home), folder)
        same(home, version.tags["data_hash"], objects.digest_of_all(copies))
    yield Step("raw data", version.tags["data_hash"], platform.objects.url(home))
