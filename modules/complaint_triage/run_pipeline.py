"""How a model is made, top to bottom: complaints in, a registered and explained model version out."""

from collections.abc import Mapping

from mlops import pipeline
from mlops.pipeline import Phase, Record
from mlops.progress import Phases
from mlops.storage import objects, tables
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
        return {"files": tables.take_in(job.platform.objects, found), "hash": found.hash}


def validate(job: Job) -> Record:
    """Clean every complaint, hold it against what it must be, and stop if too many are not."""
    raw, settings, store = job.records["data"], job.settings, job.platform.objects
    with objects.scratch() as folder:
        files = tables.taken_in(store, raw["files"], raw["hash"], folder)
        table = complaints.load(files, settings.data)
    checked = complaints.check(table, settings.validation, settings.data.received is not None)
    quarantine = tables.put(store, checked.bad, "quarantine") if checked.bad.height else None
    complaints.enforce(checked, settings.validation)
    return {
        "processed": tables.put(store, checked.good.drop(complaints.ROW), "complaints"), "rows": table.height,
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
