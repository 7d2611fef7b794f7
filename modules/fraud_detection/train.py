"""From a feature snapshot to a registered model: train, evaluate, explain, register, each a phase of its own."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from mlops.pipeline import Record
from mlops.releasing import packed, revision
from mlops.releasing.registry import MADE_FOR, Version
from mlops.releasing.releases import Releases
from mlops.storage import objects
from mlops.storage.objects import EXPLANATIONS, MODELS
from modules.fraud_detection import program
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import MODULE, NAME
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.explainability import log_explanations
from modules.fraud_detection.src.features import build_features, declaration, feature_store
from modules.fraud_detection.src.models import artifact, fit, plot_evaluation, split
from modules.fraud_detection.src.models.artifact import Artifact, Card, Thresholds
from modules.fraud_detection.src.models.evaluate import choose_thresholds, clumping, report, with_earlier_rows
from modules.fraud_detection.src.models.fit import Recipe
from modules.fraud_detection.src.models.split import Periods
from modules.fraud_detection.src.utils.metrics import Floats, Ranking, average_precision
from monitoring import performance, reference
from monitoring.profile import profile
from monitoring.reference import Reference

SAMPLE = 10_000
EXPLAINED = 2_000
BASELINE = "logreg"
SCORE = "fraud_probability"
PIPELINE = "pipeline"
PLOTS = {"evaluation.png": "evaluation"}
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}


def train(job: Job) -> Record:
    """Choose parameters and thresholds on the validation period, fit on the training period, store the artifact."""
    settings, dataset = job.settings, job.settings.data
    table, periods = _load(job)
    features = declaration.features(settings.features, dataset)
    valid = fit.labelled(table, periods.valid, dataset)
    chosen = fit.choose(
        fit.labelled(table, periods.choose_train, dataset), valid, features, settings.model.recipes, dataset
    )
    thresholds = choose_thresholds(valid, chosen.scores, dataset, settings.evaluation)

    rows = fit.labelled(table, periods.train, dataset)
    fitted = fit.fit(rows, features, chosen.recipe, dataset)
    card = Card(
        kind=chosen.recipe.kind, parameters=dict(chosen.recipe.parameters), seed=chosen.recipe.seed,
        snapshot=job.records["features"]["snapshot"], encoder=fitted.encoder, thresholds=thresholds, dataset=dataset,
        features=settings.features, validation=settings.validation, transform=settings.transform,
    )  # fmt: skip
    served = artifact.served(fitted.model)
    portrait = profile(rows, fitted.encoder.features) | _profile_of_scores(
        table, periods, lambda later: served(fitted.encoder.encode(later)), dataset.time.column
    )
    unseen = fit.labelled(table, periods.test, dataset)
    scores = served(fitted.encoder.encode(unseen))
    told = reference.encode(_reference(scores, unseen, rows, thresholds, job))
    with objects.scratch() as folder:
        sample = fitted.encoder.encode(rows.head(SAMPLE))
        canned = canned_transaction(rows, dataset)
        alone = build_features.build(canned, dataset, settings.features)
        hash_ = artifact.write(
            folder, fitted.model, card, portrait, told, sample, as_request(canned, dataset),
            fitted.encoder.encode(alone),
        )  # fmt: skip
        objects.upload_folder(job.platform.objects, folder, _home(MODELS, hash_))
    return {
        "model": hash_, "kind": card.kind, "parameters": card.parameters, "seed": card.seed, "rows": rows.height,
        "thresholds": thresholds.model_dump(), "validation_average_precision": chosen.average_precision,
    }  # fmt: skip


def evaluate(job: Job) -> Record:
    """Judge the artifact, and the baseline beside it, on the test period: neither model nor thresholds have seen it."""
    settings, dataset = job.settings, job.settings.data
    table, periods = _load(job)
    rows = fit.labelled(with_earlier_rows(table, dataset), periods.test, dataset)
    found, truth = _artifact(job), fit.labels(rows, dataset)
    scores = found.probability(found.card.encoder.encode(rows))
    result = report(rows, scores, found.card.thresholds, dataset, settings.evaluation, settings.model.seed)

    features = declaration.features(settings.features, dataset)
    baseline = fit.fit(fit.labelled(table, periods.train, dataset), features, Recipe(BASELINE, {}, 0), dataset)
    ranking = Ranking.of(baseline.score(rows), truth)
    with objects.scratch() as folder:
        picture = plot_evaluation.write(result, scores, truth, folder)
        job.platform.objects.upload(picture, f"{_home(EXPLANATIONS, found.hash)}/{picture.name}")
    return result.as_json() | {
        "baseline_average_precision": average_precision(ranking, np.ones(rows.height)),
        "test": {"since": periods.test.since.isoformat(), "until": periods.test.until.isoformat()},
    }


def explain(job: Job) -> Record:
    """Draw and store the global explanation of the artifact over a sample of the test period."""
    table, periods = _load(job)
    rows = fit.labelled(table, periods.test, job.settings.data)
    sample, found = rows.sample(min(EXPLAINED, rows.height), seed=job.settings.model.seed), _artifact(job)
    with objects.scratch() as folder:
        written = log_explanations.write(found, sample, folder, job.logger)
        for path in written:
            job.platform.objects.upload(path, f"{_home(EXPLANATIONS, found.hash)}/{path.name}")
        tables = [
            json.loads(path.read_text(encoding="utf-8")) for path in written if path.name == log_explanations.TABLE
        ]
    return {"files": [path.name for path in written], "importance": tables[0] if tables else []}


def register(job: Job) -> Record:
    """Log one MLflow run with everything and make its model the next version, packed; the first goes to production."""
    tags, model = describe(job), job.records["train"]["model"]
    if job.once:
        tags[MADE_FOR] = job.once
        if (version := job.platform.registry.made_for(NAME, job.once)) is not None:
            return _registered(job, version)
    with objects.scratch() as home, job.platform.tracking.run(NAME, tags) as run:
        run.parameters(_parameters(job))
        run.metrics(_metrics(job))
        for name, text in _pages(job).items():
            (home / name).write_text(text, encoding="utf-8")
            run.file(home / name, "run")
        for key in job.platform.objects.list(_home(EXPLANATIONS, model)):
            with job.platform.objects.download(key) as path:
                run.file(path, PLOTS.get(path.name, "explainability"))
        files = objects.download_folder(job.platform.objects, _home(MODELS, model), home / "model")
        run.model(files, artifact.ONNX, Artifact.open(files).card.encoder.columns, SCORE)
    return _registered(job, job.platform.registry.register(NAME, run.run_id, tags))


def from_snapshot(job: Job, name: str | None, register_too: bool = True) -> None:
    """Run the phases from a stored snapshot, the one with the latest data where none is named."""
    store = job.platform.objects
    manifest = feature_store.find(store, name or feature_store.latest(store))
    job.records["features"] = {"snapshot": manifest.name, "raw": manifest.parents["raw"]}
    for phase in (train, evaluate, explain, *([register] if register_too else [])):
        job.records[phase.__name__] = phase(job)
        job.logger.info(f"{phase.__name__} done", extra={"phase": phase.__name__, "snapshot": manifest.name})


def describe(job: Job) -> dict[str, str]:
    """The tags of the version that a job makes: its model, and all that the model came from."""
    return {
        "model_hash": job.records["train"]["model"],
        "snapshot": job.records["features"]["snapshot"],
        "data_hash": job.records["features"]["raw"],
        "configuration": job.settings.hash,
        "git_revision": revision.git(MODULE),
        "code": revision.code(MODULE),
    }


def canned_transaction(rows: pl.DataFrame, dataset: DataSet) -> pl.DataFrame:
    """The latest transaction of a table, alone."""
    return rows.sort(dataset.time.column, dataset.id_column).tail(1)


def as_request(row: pl.DataFrame, dataset: DataSet) -> dict[str, Any]:
    """One row as a request would send it: no label, the time as the data set writes it."""
    time, unit = dataset.time.column, dataset.time.unit
    names = [dataset.id_column, time, *dataset.entities, *dataset.numbers, *dataset.categorical]
    values = row.select(names).row(0, named=True)
    if unit is None:
        return values | {time: values[time].isoformat(timespec="microseconds")}
    return values | {time: (values[time] - dataset.time.origin) / timedelta(**{UNITS[unit]: 1})}


def _load(job: Job) -> tuple[pl.DataFrame, Periods]:
    table = feature_store.load(job.platform.objects, job.records["features"]["snapshot"])
    times = table[job.settings.data.time.column]
    return table, split.periods(job.settings.split, times.dt.min(), times.dt.max())  # type: ignore[arg-type]


def _profile_of_scores(
    table: pl.DataFrame, periods: Periods, score: Callable[[pl.DataFrame], Floats], time: str
) -> dict[str, Any]:
    """Portray the scores of the days after training, which need no label and were not learned from."""
    later = table.filter((pl.col(time) >= periods.train.until) & (pl.col(time) < periods.test.since))
    rows = later if later.height else table.filter(pl.col(time) >= periods.test.since)
    return profile(pl.DataFrame({"score": score(rows)}), ["score"])


def _reference(
    scores: Floats, rows: pl.DataFrame, learned: pl.DataFrame, thresholds: Thresholds, job: Job
) -> Reference:
    """What the version says of itself: its scores (rows,) on rows that it has not learned from, and their labels.

    They are those of the test period; nothing is chosen by them.
    """
    dataset, words, labels = job.settings.data, job.settings.evaluation, fit.labels(rows, job.settings.data)
    said = Reference(
        score=SCORE, flagged_from=thresholds.review, review=words.review_cost, amount=dataset.amount,
        loss_share=words.loss_share, loss_fixed=words.loss_fixed,
        label_share=float(fit.labels(learned, dataset).mean()), label_rows=learned.height,
        clumping=clumping(learned, dataset),
        calibration=performance.calibrate(scores, labels), performance=performance.realised(scores, labels),
    )  # fmt: skip
    decisions = said.decisions(scores, None if dataset.amount is None else rows[dataset.amount])
    return replace(said, performance=performance.realised(scores, labels, decisions))


def _artifact(job: Job) -> Artifact:
    with objects.scratch() as folder:
        home = _home(MODELS, job.records["train"]["model"])
        return Artifact.open(objects.download_folder(job.platform.objects, home, folder))


def _home(folder: str, model: str) -> str:
    return f"{folder}/{model[:16]}"


def _parameters(job: Job) -> dict[str, Any]:
    settings, trained = job.settings, job.records["train"]
    periods = {f"split_{name}": length for name, length in settings.split.model_dump().items()}
    return {
        "kind": trained["kind"],
        "seed": trained["seed"],
        "rows": trained["rows"],
        **trained["parameters"],
        **periods,
    }


def _metrics(job: Job) -> dict[str, float]:
    trained, evaluated = job.records["train"], job.records["evaluate"]
    found = {f"test_{name}": value for name, value in evaluated["metrics"].items()}
    for name, (low, high) in evaluated["intervals"].items():
        found |= {f"test_{name}_low": low, f"test_{name}_high": high}
    found["test_baseline_average_precision"] = evaluated["baseline_average_precision"]
    found["validation_average_precision"] = trained["validation_average_precision"]
    return found | {f"threshold_{name}": value for name, value in trained["thresholds"].items()}


def _pages(job: Job) -> dict[str, str]:
    configuration = job.settings.model_dump_json(indent=1, exclude={"platform"})
    return {"configuration.json": configuration, "records.json": json.dumps(job.records, indent=1, default=str)}


def _registered(job: Job, version: Version) -> Record:
    """Pack a version, before anybody can be sent to it, and tell the ledger of it."""
    packed.keep(job.platform.objects, _home(MODELS, job.records["train"]["model"]), version)
    releases = Releases(NAME, job.platform.ledger, lambda: job.platform.registry)
    return {
        "version": version.number, "run": version.run_id, "production": releases.enter(version, PIPELINE),
    }  # fmt: skip


if __name__ == "__main__":
    program.run("train")
