"""From checked complaints to a registered model: train, evaluate, explain, register, each a phase of its own."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mlops.errors import BadData
from mlops.pipeline import Record
from mlops.releasing import packed, revision
from mlops.releasing.releases import Releases
from mlops.storage import objects
from mlops.storage.objects import EXPLANATIONS, MODELS
from modules.complaint_triage.job import Job
from modules.complaint_triage.settings import MODULE, NAME, Settings
from modules.complaint_triage.src.data.complaints import ID, PRODUCT, RECEIVED, TEXT
from modules.complaint_triage.src.features import words
from modules.complaint_triage.src.features.words import Vector, Words
from modules.complaint_triage.src.models import artifact, linear, plot_words
from modules.complaint_triage.src.models import evaluate as evaluating
from modules.complaint_triage.src.models.artifact import Artifact, Canned, Card
from modules.complaint_triage.src.models.evaluate import Ints, Routed
from modules.complaint_triage.src.models.linear import Linear
from modules.complaint_triage.src.predictor import PORTRAYED, SCORE, Triage
from monitoring import performance, reference
from monitoring.profile import profile
from monitoring.reference import Reference

SAMPLE = 200
LEAST = 10
"""Complaints of which each part must have so many."""
PIPELINE = "pipeline"


class Rows(NamedTuple):
    """A part of the complaints: their texts, and the product of each (rows,); one unknown in training is the last."""

    texts: Sequence[str]
    truth: Ints


class Parts(NamedTuple):
    """The complaints in the order in which they came in, cut into three, and the products of the first."""

    products: tuple[str, ...]
    train: Rows
    valid: Rows
    test: Rows
    canned: dict[str, Any]


def train(job: Job) -> Record:
    """Learn words and weights from the first part, choose on the next who looks, store the artifact."""
    settings, parts = job.settings, _parts(job)
    vocabulary = words.learn(parts.train.texts, settings.words)
    known = Words(vocabulary)
    vectors = [known.vector(text) for text in parts.train.texts]
    fit = partial(linear.fit, words=len(vocabulary.words), strength=settings.model.strength)
    model = fit(vectors, parts.train.truth)
    card = Card(
        products=parts.products, vocabulary=vocabulary,
        review_from=evaluating.review_from(_routed(model, known, parts.valid), settings.costs),
        longest=settings.validation.longest, snapshot=_snapshot(job), strength=settings.model.strength,
    )  # fmt: skip
    awake = Triage(Artifact(card, Canned(complaint=parts.canned, doubt=0.0), "", model, known))
    canned = Canned(complaint=parts.canned, doubt=awake.judge(parts.canned[TEXT]).doubt)
    mistakes = _unseen_mistakes(vectors, parts.train.truth, settings.model.folds, fit)
    told = _reference(_routed(model, known, parts.test), mistakes, card.review_from, settings)
    portrait = _portrait(awake, [*parts.valid.texts, *parts.test.texts])
    with objects.scratch() as folder:
        hash_ = artifact.write(folder, model, card, portrait, reference.encode(told), canned, vectors[:SAMPLE])
        objects.upload_folder(job.platform.objects, folder, _home(MODELS, hash_))
    return {
        "model": hash_, "words": len(vocabulary.words), "products": parts.products, "rows": len(vectors),
        "review_from": card.review_from, "mistakes_in_training": float(mistakes.mean()),
    }  # fmt: skip


def evaluate(job: Job) -> Record:
    """Judge the artifact on the last part: neither weights nor the limit have seen it."""
    parts, found = _parts(job), _artifact(job)
    routed = _routed(found.model, found.words, parts.test)
    return evaluating.report(routed, len(parts.products) + 1, job.settings.costs, found.card.review_from)


def explain(job: Job) -> Record:
    """Draw and store which words speak for which product, over the last part."""
    parts, found = _parts(job), _artifact(job)
    telling = plot_words.telling(found, [found.words.vector(text) for text in parts.test.texts])
    with objects.scratch() as folder:
        table = folder / "words.json"
        table.write_text(json.dumps(telling, indent=1), encoding="utf-8")
        written = [table, plot_words.draw(telling, folder)]
        for path in written:
            job.platform.objects.upload(path, f"{_home(EXPLANATIONS, found.hash)}/{path.name}")
    return {"files": [path.name for path in written], "words": telling}


def register(job: Job) -> Record:
    """Log one MLflow run with everything and make its model the next version, packed; the first goes to production."""
    trained, evaluated = job.records["train"], job.records["evaluate"]
    tags = {
        "model_hash": trained["model"], "snapshot": _snapshot(job), "data_hash": job.records["data"]["hash"],
        "configuration": job.settings.hash, "git_revision": revision.git(MODULE), "code": revision.code(MODULE),
    }  # fmt: skip
    with objects.scratch() as home, job.platform.tracking.run(NAME, tags) as run:
        run.parameters(
            {name: trained[name] for name in ("words", "rows", "products")} | job.settings.split.model_dump()
        )
        run.metrics({f"test_{name}": value for name, value in evaluated.items() if isinstance(value, float)})
        for name, text in _pages(job).items():
            (home / name).write_text(text, encoding="utf-8")
            run.file(home / name, "run")
        for key in job.platform.objects.list(_home(EXPLANATIONS, trained["model"])):
            with job.platform.objects.download(key) as path:
                run.file(path, "explainability")
        files = objects.download_folder(job.platform.objects, _home(MODELS, trained["model"]), home / "model")
        run.model(files, artifact.ONNX, Artifact.open(files).card.vocabulary.words, "probability")
    version = job.platform.registry.register(NAME, run.run_id, tags)
    packed.keep(job.platform.objects, _home(MODELS, trained["model"]), version)
    releases = Releases(NAME, job.platform.ledger, lambda: job.platform.registry)
    production = releases.enter(version, PIPELINE)
    return {"version": version.number, "run": version.run_id, "production": production}


def _parts(job: Job) -> Parts:
    with job.platform.objects.download(job.records["validate"]["processed"]) as path:
        table = pl.read_parquet(path)
    cut = job.settings.split
    ends = [round(table.height * share) for share in (0, cut.train, cut.train + cut.valid, 1)]
    parts = [table[start:end] for start, end in pairwise(ends)]
    if min(part.height for part in parts) < LEAST:
        raise BadData(f"{table.height} complaints are too few to learn from, choose on and test; give more")
    products = tuple(sorted(parts[0][PRODUCT].unique().to_list()))
    places = {product: place for place, product in enumerate(products)}
    train, valid, test = (
        Rows(part[TEXT].to_list(), np.array([places.get(product, len(products)) for product in part[PRODUCT]]))
        for part in parts
    )
    row = table.row(-1, named=True)
    received = None if row[RECEIVED] is None else row[RECEIVED].isoformat(timespec="microseconds")
    return Parts(products, train, valid, test, {ID: row[ID], TEXT: row[TEXT], RECEIVED: received})


def _routed(model: Linear, known: Words, rows: Rows) -> Routed:
    found = np.array([model.probabilities(known.vector(text)) for text in rows.texts])
    return Routed(found.argmax(axis=1), 1 - found.max(axis=1), rows.truth)


def _unseen_mistakes(vectors: Sequence[Vector], truth: Ints, folds: int, fit: Callable[..., Linear]) -> Ints:
    """Whether each training row (rows,) is misrouted by a model of the other folds, which has not seen it."""
    wrong, fold = np.zeros(truth.size, np.int64), np.arange(truth.size) % folds
    for mine in range(folds):
        kinds, others = np.unique(truth[fold != mine], return_inverse=True)
        model = fit([vector for vector, its in zip(vectors, fold, strict=True) if its != mine], others)
        for place in np.flatnonzero(fold == mine).tolist():
            wrong[place] = kinds[model.margins(vectors[place]).argmax()] != truth[place]
    return wrong


def _reference(routed: Routed, mistakes: Ints, limit: float, settings: Settings) -> Reference:
    """What the version says of itself: its doubts on the last part, where it was wrong, and what that costs."""
    scores, labels = routed.doubts, routed.wrong
    said = partial(
        Reference, score=SCORE, flagged_from=limit, review=settings.costs.review, amount=None, loss_share=0.0,
        loss_fixed=settings.costs.misrouted, label_share=float(mistakes.mean()), label_rows=mistakes.size,
        clumping=1.0, calibration=performance.calibrate(scores, labels),
    )  # fmt: skip
    decisions = said(performance=performance.realised(scores, labels)).decisions(scores, None)
    return said(performance=performance.realised(scores, labels, decisions))


def _portrait(awake: Triage, texts: Sequence[str]) -> dict[str, Any]:
    """What is seen of texts that were not learned from, and how much their product is doubted."""
    judged = [awake.judge(text) for text in texts]
    seen = pl.DataFrame([one.seen[: len(PORTRAYED)] for one in judged], schema=list(PORTRAYED), orient="row")
    return profile(seen, PORTRAYED) | profile(pl.DataFrame({"score": [one.doubt for one in judged]}), ["score"])


def _artifact(job: Job) -> Artifact:
    with objects.scratch() as folder:
        home = _home(MODELS, job.records["train"]["model"])
        return Artifact.open(objects.download_folder(job.platform.objects, home, folder))


def _snapshot(job: Job) -> str:
    return Path(job.records["validate"]["processed"]).stem


def _home(folder: str, model: str) -> str:
    return f"{folder}/{model[:16]}"


def _pages(job: Job) -> dict[str, str]:
    configuration = job.settings.model_dump_json(indent=1, exclude={"platform"})
    return {"configuration.json": configuration, "records.json": json.dumps(job.records, indent=1, default=str)}
