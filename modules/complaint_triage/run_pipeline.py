"""How a model is made, top to bottom: complaints in, a registered and explained model version out."""

from collections.abc import Mapping

import polars as pl

from mlops import pipeline
from mlops.pipeline import Phase, Record
from mlops.progress import Phases
from mlops.storage import objects, tables
from mlops.storage.objects import PROCESSED, RAW
from mlops.storage.tables import Source
from modules.complaint_triage.job import Job
from modules.complaint_triage.settings import Settings
from modules.complaint_triage.src.data import complaints, synthetic
from modules.complaint_triage.train import evaluate, explain, register, train

SIMULATED = "simulation"


def data(job: Job) -> Record:
    """Take the raw bytes in: copy the files as they came under the hash of their content."""
    with objects.scratch() as folder:
        if job.source == SIMULATED:
            path = folder / "complaints.parquet"
            tables.write(synthetic.simulate(job.settings.simulation), path)
            found = tables.source([path])
        else:
            found = tables.find(job.source, folder)
        names = [f"{RAW}/{found.hash[:16]}/{place:03d}-{file.name}" for place, file in enumerate(found.files)]
        for file, name in zip(found.files, names, strict=True):
            job.platform.objects.upload_once(file, name)
    return {"files": names, "hash": found.hash}


def validate(job: Job) -> Record:
    """Clean every complaint, hold it against what it must be, and stop if too many are not."""
    raw, settings = job.records["data"], job.settings
    with objects.scratch() as folder:
        source = Source(tuple(objects.download_all(job.platform.objects, raw["files"], folder)), raw["hash"])
        table = complaints.load(source, settings.data)
    checked = complaints.check(table, settings.validation, settings.data.received is not None)
    quarantine = _store(job, checked.bad, "quarantine") if checked.bad.height else None
    complaints.enforce(checked, settings.validation)
    return {
        "processed": _store(job, checked.good.drop(complaints.ROW), "complaints"), "rows": table.height,
        "bad_rows": checked.bad.height, "quarantine": quarantine,
    }  # fmt: skip


PHASES: Mapping[str, Phase[Settings]] = {
    "data": Phase(data, lambda found: f"{len(found['files'])} raw files, hash {found['hash'][:16]}"),
    "validate": Phase(validate, lambda found: f"{found['rows']:,} rows, {found['bad_rows']:,} in quarantine"),
    "train": Phase(train, lambda found: f"{found['words']:,} words of {found['rows']:,} complaints"),
    "evaluate": Phase(evaluate, lambda found: f"accuracy {found['accuracy']:.3f}"),
    "explain": Phase(explain, lambda found: f"{len(found['files'])} files"),
    "register": Phase(register, lambda found: f"version {found['version']}"),
}


def run(job: Job, progress: Phases, only: str | None = None, resume: bool = False) -> None:
    """Run the phases, or one of them; nothing is registered unless all before it went well. Raises `BadInput`."""
    pipeline.run(job, PHASES, progress, only, resume)


def _store(job: Job, table: pl.DataFrame, name: str) -> str:
    """Store a table under the hash of its bytes and return its key."""
    with objects.scratch() as folder:
        path = folder / f"{name}.parquet"
        tables.write(table, path)
        key = f"{PROCESSED}/{name}/{objects.digest(path)[:16]}.parquet"
        job.platform.objects.upload_once(path, key)
    return key
