"""The second module, alive: what it says, why, and what is seen of the world when it changes."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from rich.console import Console

from mlops import bootstrap, logs
from mlops.errors import BadConfiguration, BadData, BadInput, Damaged, Refused
from mlops.journaling import journal
from mlops.journaling.journal_table import JournalTable
from mlops.progress import Phases
from mlops.storage import objects, tables
from modules.complaint_triage import gate, run_pipeline, settings
from modules.complaint_triage.__main__ import main
from modules.complaint_triage.job import Job
from modules.complaint_triage.serve import application
from modules.complaint_triage.settings import NAME
from modules.complaint_triage.src.data import synthetic
from modules.complaint_triage.src.data.synthetic import Simulation
from modules.complaint_triage.src.models.artifact import ONNX
from modules.complaint_triage.src.predictor import Triage, wake
from monitoring import drift_check
from monitoring.drift_report import DRIFTED, STABLE
from tests.api import Client, answering
from tests.conftest import ROOT

WORLD = Simulation(complaints=3_000)
LATER = 1 << 62


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run(tmp_path_factory.mktemp("triage"), simulation=WORLD.model_dump())


def run(folder: Path, source: str = run_pipeline.SIMULATED, file: Path | None = None, **groups: Any) -> Job:
    platform = {
        "objects": f"file://{folder}/var", "ledger": f"sqlite:///{folder}/var/ledger.db",
        "tracking": f"sqlite:///{folder}/var/mlflow.db", "artifacts": f"{folder}/var/mlartifacts",
        "journal": f"sqlite:///{folder}/journal.db",
    }  # fmt: skip
    read = settings.read(file, "local", {}, {"platform": platform, **groups})
    job = Job(read, bootstrap.connect(read.platform), logs.start(NAME), source)
    with Phases(list(run_pipeline.PHASES), job.logger, Console(quiet=True)) as progress:
        run_pipeline.run(job, progress)
    return job


@pytest.fixture(scope="module")
def files(finished: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    registry = finished.platform.registry
    return registry.fetch(registry.find(NAME, "production"), tmp_path_factory.mktemp("files") / "model")


@pytest.fixture(scope="module")
def triage(files: Path) -> Triage:
    return wake(files)


@pytest.fixture
def client(finished: Job, tmp_path: Path) -> Iterator[Client]:
    platform = finished.settings.platform.model_copy(update={"journal": f"sqlite:///{tmp_path}/own.db"})
    with answering(application(finished.settings.model_copy(update={"platform": platform})), 5) as found:
        yield found


def body(text: str, **more: Any) -> bytes:
    return json.dumps({"complaint_id": "c-1", "text": text, **more}).encode()


def test_it_reads_what_a_complaint_is_about_better_than_who_always_says_the_commonest(finished: Job) -> None:
    found = finished.records["evaluate"]
    assert found["accuracy"] > 0.85 > 2 * found["accuracy_of_the_commonest"]
    assert found["accuracy_of_routed"] > 0.98
    assert found["cost_per_1000"] < found["cost_per_1000_all_reviewed"] / 2


TEXTS = st.lists(
    st.sampled_from(
        ["the", "escrow", "fee", "collector", "report", "card", "bank", "overdraft", "zzz", "é", "7", "xxxx"]
    ),
    max_size=12,
)


@given(TEXTS.map(" ".join) | st.text(max_size=60))
def test_what_words_say_adds_up_to_the_difference_of_two_products(triage: Triage, text: str) -> None:
    judged = triage.judge(text)
    explained = triage.explain(judged.seen)
    parts = sum(part["contribution"] for part in explained.contributions)
    assert explained.base_value + parts == pytest.approx(explained.margin, abs=1e-9)
    found = triage.artifact.model.margins(triage.artifact.words.vector(text))
    assert explained.margin == pytest.approx(float(found[judged.product] - found[judged.next]), abs=1e-9)
    assert explained.margin >= 0
    assert 0 <= judged.doubt < 1


def test_a_word_speaks_for_the_product_that_it_pulls_to(triage: Triage) -> None:
    judged = triage.judge("my escrow account and the mortgage servicer, and a credit card")
    words = {part["feature"]: part for part in triage.explain(judged.seen).contributions}
    assert words["escrow"]["text"] == "'escrow': speaks for Mortgage"
    assert words["escrow"]["contribution"] > 0 > words["card"]["contribution"]
    assert len(triage.explain(judged.seen, 2).contributions) == 2


def test_the_graph_for_other_tools_says_the_same(triage: Triage, files: Path) -> None:
    vector = triage.artifact.words.vector("the escrow account was wrong")
    row = np.zeros((1, len(triage.artifact.card.vocabulary.words)), np.float32)
    row[0, vector.places] = vector.values
    session = onnxruntime.InferenceSession((files / ONNX).read_bytes(), providers=["CPUExecutionProvider"])
    found = session.run(["probability"], {"features": row})[0][0]
    assert found == pytest.approx(triage.artifact.model.probabilities(vector), abs=1e-6)


def test_with_two_products_it_is_the_same_model(tmp_path: Path) -> None:
    world = synthetic.simulate(Simulation(complaints=4_000))
    two = world.filter(pl.col("product").is_in(["Mortgage", "Credit card"]))
    tables.write(two, tmp_path / "two.parquet")
    job = run(tmp_path, str(tmp_path / "two.parquet"))
    assert job.records["train"]["products"] == ("Credit card", "Mortgage")
    assert job.records["evaluate"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        (body(" \n "), "text"), (body("x" * 30_001), "text"), (body("fee", received="soon"), "received"),
        (body("fee", received="2999-01-01T00:00:00Z"), "received"), (body("fee", complaint_id="a\nb"), "complaint_id"),
        (body("fee", product="Card"), None), (b'{"complaint_id": "1"}', "text"), (b"[]", None), (b"{", None),
    ],
)  # fmt: skip
def test_what_is_no_complaint_is_refused_by_field(triage: Triage, given_: bytes, field: str | None) -> None:
    with pytest.raises(Refused) as refused:
        triage.read(given_, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6))
    assert refused.value.field == field


@trying(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=200))
def test_any_text_is_decided_or_refused(triage: Triage, text: str) -> None:
    try:
        request = triage.read(body(text), LATER)
    except Refused as refused:
        assert refused.field in ("text", None)
        return
    answer = asyncio.run(triage.predict([request]))[0]
    assert answer.said["decision"] in ("route", "review")


def test_a_changed_file_is_damage(files: Path, tmp_path: Path) -> None:
    for name in ("weights.npy", "card.json"):
        copy = tmp_path / name.replace(".", "-")
        copy.mkdir()
        for path in files.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (copy / name).write_bytes((files / name).read_bytes()[:-1] + b"\0")
        with pytest.raises(Damaged, match=name):
            wake(copy)


def test_the_truth_is_kept_in_words_and_its_label_is_whether_it_was_misrouted(client: Client) -> None:
    decided = client.post("/predict", body("the servicer lost my mortgage escrow")).body
    assert decided["product"] == "Mortgage"
    for product in ("Mortgage", "Credit card"):
        told = client.post("/feedback", {"complaint_id": "c-1", "product": product}).body
        assert (told["product"], told["recorded"]) == (product, True)
    assert client.post("/feedback", {"complaint_id": "c-1", "product": "Credit card"}).body["recorded"] is False
    assert client.get(f"/decisions/{decided['decision_id']}").body["label"]["product"] == "Credit card"
    assert client.post("/feedback", {"complaint_id": "c-1"}).body["error"]["field"] == "product"


def test_every_curl_line_of_its_page_works_as_printed(client: Client) -> None:
    page = (ROOT / "modules" / NAME / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 3
    for words in lines:
        url = next(word for word in words if word.startswith("localhost:8000/"))
        accept = "image/png" if "Accept: image/png" in words else "application/json"
        sent = words[words.index("-d") + 1].encode()
        answer = client.ask("POST", url.removeprefix("localhost:8000"), sent, {"Accept": accept})
        assert (answer.status, answer.headers["content-type"]) == (200, accept), words


def test_a_new_topic_is_seen_as_drift_and_the_same_world_is_not(finished: Job, tmp_path: Path) -> None:
    words = finished.settings.monitoring.model_copy(update={"maturity": "0s"})
    for name, new, expected in (("same", None, STABLE), ("new", 0, DRIFTED)):
        rows = synthetic.simulate(WORLD.model_copy(update={"seed": 7, "complaints": 800, "new_topic_from": new}))
        platform = finished.settings.platform.model_copy(update={"journal": f"sqlite:///{tmp_path}/{name}.db"})
        with answering(application(finished.settings.model_copy(update={"platform": platform})), 5) as client:
            for complaint, text, product in rows.select("complaint_id", "text", "product").rows():
                assert client.post("/predict", {"complaint_id": complaint, "text": text}).status == 200
                assert client.post("/feedback", {"complaint_id": complaint, "product": product}).status == 200
        with closing(journal.connect(platform.journal)) as kept:
            table = JournalTable(kept, NAME)
            table.read_on()
            until = datetime.now(UTC).replace(tzinfo=None)
            report = drift_check.check(NAME, finished.platform, table, words, until, 1, datetime(2020, 1, 1))
        assert report.verdict == expected, report.headline
        assert report.rows == 800


def promoted(folder: Path, job: Job, version: int) -> subprocess.CompletedProcess[str]:
    """What a person types."""
    named = {f"MLOPS_PLATFORM__{name.upper()}": value for name, value in job.settings.platform.model_dump().items()}
    command = [sys.executable, str(ROOT / "scripts" / "promote_model.py"), "--module", NAME, "--version", str(version)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **named}, text=True, capture_output=True, timeout=120, check=False
    )


def test_a_worse_version_is_refused_with_its_cost_and_one_as_good_is_promoted(tmp_path: Path) -> None:
    world = WORLD.model_dump()
    first = run(tmp_path, simulation=world)
    run(tmp_path, words={"most": 25}, simulation=world)
    run(tmp_path, model={"folds": 4}, simulation=world)
    refused, passed = promoted(tmp_path, first, 2), promoted(tmp_path, first, 3)
    assert refused.returncode == 3
    assert "version 2 refused: it costs +" in refused.stdout
    assert (passed.returncode, passed.stdout.splitlines()[-1]) == (0, "3 in production")
    judged = [done.act for done in first.platform.ledger.acts(NAME) if done.act.act == "judged"]
    assert [(act.version, act.figures["passed"]) for act in judged] == [(2, False), (3, True)]
    assert {act.figures["rows"] for act in judged} == {600}


def test_versions_of_other_complaints_are_compared_on_what_is_new_to_both(tmp_path: Path) -> None:
    job = run(tmp_path, simulation=WORLD.model_dump())
    run(tmp_path, simulation=WORLD.model_dump() | {"seed": 3})
    found = gate.judge(job.settings, job.platform, 2, "a test").act.figures
    assert 400 < found["rows"] < 600
    with pytest.raises(BadInput, match="no other version in production that version 1"):
        gate.judge(job.settings, job.platform, 1, "a test")


def test_wrong_words_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("data: {text: t, product: p}\nsplit: {train: 0.9, valid: 0.2}\n")
    assert main(["pipeline", "--config", "own.yaml"]) == 1
    said = capsys.readouterr().err
    assert "leave nothing to test on" in said
    assert said.count("\n") == 1
    with pytest.raises(BadConfiguration, match="folds"):
        settings.read(None, "local", {"MLOPS_MODEL__FOLDS": "1"})
    few = synthetic.simulate(Simulation(complaints=30))
    tables.write(few, tmp_path / "few.parquet")
    with pytest.raises(BadData, match="too few"):
        run(tmp_path, str(tmp_path / "few.parquet"))
    assert objects.connect(f"file://{tmp_path}/var").list("models") == []
