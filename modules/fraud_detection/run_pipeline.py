"""How a model is made, top to bottom: raw transactions in, a registered and explained model version out."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import polars as pl

from mlops import pipeline
from mlops.pipeline import Phase, Record
from mlops.progress import Phases
from mlops.releasing import revision
from mlops.storage import objects, tables
from modules.fraud_detection import lineage, program
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import MODULE, Settings
from modules.fraud_detection.src.data import load_data
from modules.fraud_detection.src.features import build_features, feature_store
from modules.fraud_detection.src.validation import data_validation, transform
from modules.fraud_detection.train import evaluate, explain, register, train


def data(job: Job) -> Record:
    """Take the raw bytes in: copy the files as they came under the hash of their content."""
    with load_data.open_source(job.source, job.settings.simulation) as source:
        return {"files": tables.take_in(job.platform.objects, source), "hash": source.hash}


def validate(job: Job) -> Record:
    """Hold every value against its limit, quarantine what fails, stop if too much does, clean the rest."""
    raw, settings = job.records["data"], job.settings
    with objects.scratch() as folder:
        files = tables.taken_in(job.platform.objects, raw["files"], raw["hash"], folder)
        table = load_data.load(files, settings.data)
        now = datetime.now(UTC).replace(tzinfo=None)
        checked = data_validation.check(table, settings.data, settings.validation, now)
        quarantine = tables.put(job.platform.objects, checked.quarantine, "quarantine") if checked.bad_rows else None
        data_validation.enforce(checked, settings.validation)
        clean = transform.clean(checked.good.drop(data_validation.ROW), settings.transform)
        processed = tables.put(job.platform.objects, clean, "transactions")
    record = {
        "processed": processed, "raw": raw["hash"], "raw_files": raw["files"], "rows": checked.rows,
        "bad_rows": checked.bad_rows, "quarantine": quarantine, "configuration": job.settings.hash,
    }  # fmt: skip
    page = lineage.manifest_of(processed, raw["hash"])
    objects.write(job.platform.objects, page, json.dumps(record, indent=1).encode())
    return record


def features(job: Job) -> Record:
    """Build every declared feature and store the snapshot that models are trained from."""
    clean, settings = job.records["validate"], job.settings
    with job.platform.objects.download(clean["processed"]) as path:
        table = pl.read_parquet(path)
    built = build_features.build(table, settings.data, settings.features)
    parents = {"raw": clean["raw"], "processed": clean["processed"]}
    manifest = feature_store.save(
        job.platform.objects, built, table, settings.data, parents, revision.code(MODULE), settings.hash
    )
    return {
        "snapshot": manifest.name, "raw": clean["raw"], "rows": manifest.rows, "features": len(built.columns) - 1,
        "since": manifest.since, "until": manifest.until,
    }  # fmt: skip


PHASES: Mapping[str, Phase[Settings]] = {
    "data": Phase(data, lambda found: f"{len(found['files'])} raw files, hash {found['hash'][:16]}"),
    "validate": Phase(validate, lambda found: f"{found['rows']:,} rows, {found['bad_rows']:,} in quarantine"),
    "features": Phase(features, lambda found: f"{found['features']} features, snapshot {found['snapshot']}"),
    "train": Phase(train, lambda found: f"{found['kind']} on {found['rows']:,} rows, model {found['model'][:16]}"),
    "evaluate": Phase(evaluate, lambda found: f"average precision {found['metrics']['average_precision']:.3f}"),
    "explain": Phase(explain, lambda found: f"{len(found['files'])} files"),
    "register": Phase(register, lambda found: f"version {found['version']}"),
}


def run(job: Job, progress: Phases, only: str | None = None, resume: bool = False) -> None:
    """Run the phases, or one of them; nothing is registered unless all before it went well. Raises `BadInput`."""
    pipeline.run(job, PHASES, progress, only, resume)


if __name__ == "__main__":
    program.run("pipeline")
