"""One row at a time says the same as a table of rows, to the last bit, also where a category fills several columns.

Each kind of model in turn.
"""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from mlops.storage import objects
from mlops.storage.objects import MODELS
from modules.fraud_detection.job import Job
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.explainability import shap_explainer
from modules.fraud_detection.src.explainability.shap_explainer import Explainer
from modules.fraud_detection.src.features.declaration import Declaration, Row, features
from modules.fraud_detection.src.models import base_model
from modules.fraud_detection.src.models.artifact import Artifact
from modules.fraud_detection.src.models.base_model import BaseModel
from modules.fraud_detection.src.models.encoder import Encoder

PARTS = {"time": {"column": "booked"}, "label": {"column": "bad", "delay": "1d"}}
DATA = DataSet.model_validate({**PARTS, "amount": "euros", "categorical": ["channel", "country"]})
PARAMETERS = {"xgb": {"rounds": 20, "max_depth": 4}}
COLUMNS = Declaration(rows=tuple(Row(name=name, of=name) for name in ("channel", "euros", "country")))


@pytest.fixture
def table() -> pl.DataFrame:
    draw = np.random.default_rng(0)
    euros = draw.gamma(2, 30, 500)
    return pl.DataFrame(
        {
            "channel": draw.choice(["web", "shop", "phone"], 500),
            "euros": [None if one < 20 else one for one in euros.tolist()],
            "country": [None if name == "x" else name for name in draw.choice(["at", "ch", "de", "x"], 500)],
        },
        schema_overrides={"euros": pl.Float64},
    )


@pytest.fixture(params=base_model.kinds())
def trained(request: pytest.FixtureRequest, finished: Job, table: pl.DataFrame) -> Artifact:
    """The artifact of the finished job, with a model over two categories and a number in its place."""
    home = f"{MODELS}/{finished.records['train']['model'][:16]}"
    with objects.scratch() as folder:
        opened = Artifact.open(objects.download_folder(finished.platform.objects, home, folder / "model"))
    encoder = Encoder.fit(table, features(COLUMNS, DATA))
    # Every level counts, so that each column of a category has something to add.
    pull = np.nan_to_num(encoder.encode(table)) @ np.array([0.9, -0.7, 0.4, 0.01, 0.8, -0.5, 0.3])
    labels = (pull + np.random.default_rng(1).normal(size=table.height) > 0.5).astype(np.int64)
    kind = request.param
    model = base_model.find(kind).fit(encoder.encode(table), labels, PARAMETERS.get(kind, {}), 0)
    card = opened.card.model_copy(update={"kind": kind, "encoder": encoder, "dataset": DATA, "features": COLUMNS})
    return replace(opened, card=card, model=model)


def test_a_row_alone_is_explained_as_in_its_table(trained: Artifact, table: pl.DataFrame) -> None:
    explainer, together = Explainer(trained), shap_explainer.explain(trained, table)
    for place, row in enumerate(trained.card.encoder.encode(table)):
        found = explainer.explain(row)
        assert found.contributions == tuple(together.contributions[place].tolist())
        assert found.base == together.base[place]
        assert found.margin == math.fsum([*found.contributions, found.base])


def test_the_parts_add_up_to_the_log_odds_of_the_score(trained: Artifact, table: pl.DataFrame) -> None:
    explainer, matrix = Explainer(trained), trained.card.encoder.encode(table)
    for row, score in zip(matrix, trained.model.predict_proba(matrix), strict=True):
        assert explainer.explain(row).margin == pytest.approx(math.log(score / (1 - score)), abs=1e-5)


def test_the_same_row_gives_the_same_bits_from_another_explainer(trained: Artifact, table: pl.DataFrame) -> None:
    woken = replace(trained, model=_read_again(trained.model))
    for row in trained.card.encoder.encode(table.head(50)):
        assert Explainer(trained).explain(row) == Explainer(woken).explain(row)


def test_reasons_of_a_table_are_those_of_its_rows(trained: Artifact, table: pl.DataFrame) -> None:
    explainer, rows = Explainer(trained), trained.card.encoder.encode(table.head(50))
    for place, found in enumerate(shap_explainer.reasons(trained, table.head(50), top=2)):
        assert found == explainer.reasons(table.row(place, named=True), explainer.explain(rows[place]), top=2)
        assert abs(found[0].contribution) >= abs(found[1].contribution)


def _read_again(model: BaseModel) -> BaseModel:
    with objects.scratch() as folder:
        model.save(folder)
        return type(model).load(folder)
