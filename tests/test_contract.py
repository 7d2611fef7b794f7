"""What every module keeps to, asked of each that is found: nothing here knows what any of them is about."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mlops import bootstrap
from mlops.journaling import journal
from mlops.journaling.journal import Entry
from mlops.journaling.labels import DECISION, LABEL, decode_record, encode
from mlops.releasing import packed
from mlops.releasing.releases import Releases
from mlops.serving.api import Reach
from tests.api import Answered, Client, answering
from tests.conftest import ROOT

MODULES = sorted(path.parts[-3] for path in (ROOT / "modules").glob("*/config/config.yaml"))
SMALL: Mapping[str, Mapping[str, str]] = {
    "fraud_detection": {
        "MLOPS_SIMULATION__CUSTOMERS": "150", "MLOPS_SIMULATION__TERMINALS": "100", "MLOPS_SIMULATION__DAYS": "70",
        "MLOPS_SPLIT__TRAIN": "21d",
    },
    "complaint_triage": {"MLOPS_SIMULATION__COMPLAINTS": "2500"},
}  # fmt: skip
"""What makes a module's own simulation small. A module that is not named here runs on all of it."""
ALONE = Reach("127.0.0.1", 0, 1, None)


@dataclass(frozen=True)
class Made:
    """A module whose pipeline has run in a folder: all of it is asked by name."""

    name: str
    folder: Path

    def part(self, name: str) -> Any:
        return importlib.import_module(f"modules.{self.name}.{name}")

    def settings(self, home: Path) -> Any:
        """The module's own settings, with what it made, and a journal in `home`."""
        platform = {
            "objects": f"file://{self.folder}/var", "ledger": f"sqlite:///{self.folder}/var/ledger.db",
            "tracking": f"sqlite:///{self.folder}/var/mlflow.db", "artifacts": f"{self.folder}/var/mlartifacts",
            "journal": f"sqlite:///{home}/journal.db",
        }  # fmt: skip
        return self.part("settings").read(None, "local", {}, {"platform": platform})


def program(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the project in a folder, as a person would."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env={**kept, "PYTHONPATH": str(ROOT), **environment}, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=MODULES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    done = program(folder, "-m", f"modules.{request.param}", "pipeline", **SMALL.get(request.param, {}))
    assert done.returncode == 0, done.stderr
    return Made(request.param, folder)


@pytest.fixture
def client(made: Made, tmp_path: Path) -> Iterator[Client]:
    settings = made.settings(tmp_path)
    with answering(made.part("serve").application(settings), settings.serving.idle_seconds) as found:
        yield found


def document(client: Client) -> Any:
    return client.get("/openapi.json").body


def example(client: Client) -> dict[str, Any]:
    """A request that the module's own document gives."""
    content = document(client)["paths"]["/predict"]["post"]["requestBody"]["content"]
    return dict(content["application/json"]["example"])


def several(client: Client, count: int) -> list[dict[str, Any]]:
    one = example(client)
    id_ = next(iter(one))
    return [{**one, id_: f"several-{number}"} for number in range(count)]


def without_names(answer: Any) -> Any:
    """What was said, without what differs from one journal or one asking to the next."""
    return {name: value for name, value in answer.items() if name != "replayed"}


def written(folder: Path, kind: str = DECISION) -> list[Any]:
    with closing(journal.connect(f"sqlite:///{folder}/journal.db")) as kept:
        return [row for row in kept.since(0) if row.entry.kind == kind]


def test_there_is_more_than_one_module() -> None:
    assert len(MODULES) > 1


def test_its_pipeline_makes_a_version_whose_files_lie_where_the_layout_says(made: Made, tmp_path: Path) -> None:
    platform = bootstrap.connect(made.settings(tmp_path).platform)
    version = platform.registry.find(made.name, "production")
    assert version.number == 1
    assert {"model_hash", "snapshot", "data_hash", "configuration", "git_revision", "code"} <= version.tags.keys()
    for folder in ("data/raw", "data/processed", "models", "explanations"):
        assert platform.objects.list(folder), folder


def test_the_same_data_and_settings_make_the_same_model(made: Made, tmp_path: Path) -> None:
    done = program(tmp_path, "-m", f"modules.{made.name}", "pipeline", **SMALL.get(made.name, {}))
    assert done.returncode == 0, done.stderr
    hashes = []
    for folder in (made.folder, tmp_path):
        registry = bootstrap.connect(Made(made.name, folder).settings(tmp_path).platform).registry
        hashes.append(registry.find(made.name, 1).tags["model_hash"])
    assert hashes[0] == hashes[1]


def test_a_version_wakes_from_its_archive_without_a_registry(made: Made, client: Client, tmp_path: Path) -> None:
    settings = made.settings(tmp_path)
    said = client.post("/predict", example(client)).body
    with bootstrap.connect(settings.platform).objects.download(packed.key(made.name, 1)) as archive:
        packed.unpack(archive, tmp_path / "alone")
    nowhere = {name: f"sqlite:///{tmp_path}/nowhere/{name}.db" for name in ("ledger", "tracking", "journal")}
    words = {"platform": {**nowhere, "objects": settings.platform.objects}}
    bare = made.part("settings").read(None, "local", {}, words)
    application = made.part("serve").application(bare, ALONE, packed.Packed(tmp_path / "alone"))
    with answering(application, settings.serving.idle_seconds) as alone:
        again = alone.post("/predict", example(client)).body
    assert again == said


def test_many_in_one_body_are_decided_like_one_after_the_other(made: Made, client: Client, tmp_path: Path) -> None:
    many = several(client, 20)
    name = document(client)["paths"]["/predict/batch"]["post"]["requestBody"]["content"]["application/json"]
    together = client.post("/predict/batch", {next(iter(name["example"])): many}).body["results"]
    (tmp_path / "other").mkdir()
    settings = made.settings(tmp_path / "other")
    with answering(made.part("serve").application(settings), settings.serving.idle_seconds) as other:
        apart = [other.post("/predict", one).body for one in many]
    assert [without_names(one) for one in together] == [without_names(one) for one in apart]


def test_the_same_request_is_one_entry_and_another_with_its_id_is_refused(client: Client, tmp_path: Path) -> None:
    one = example(client)
    first, again = client.post("/predict", one), client.post("/predict", one)
    assert (first.status, again.status, again.body["replayed"]) == (200, 200, True)
    assert without_names(first.body) == without_names(again.body)
    other = {**one, **{name: _other(value) for name, value in list(one.items())[1:]}}
    assert client.post("/predict", other).status == 409
    assert len(written(tmp_path)) == 1


def _other(value: Any) -> Any:
    """Another value of the same kind; a time stays, for a later one would lie in the future."""
    if not isinstance(value, str):
        return value + 1
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return f"{value} and more"
    return value


def test_each_field_that_is_needed_is_named_where_it_is_missing_and_none_is_made_up(client: Client) -> None:
    one = example(client)
    schema = document(client)["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"]
    for field in schema["required"]:
        answer = client.post("/predict", {name: value for name, value in one.items() if name != field})
        assert (answer.status, answer.body["error"]["field"]) == (422, field)
    assert client.post("/predict", {**one, "made_up": 1}).status == 422
    assert client.post("/predict", b"{").status == 400


def test_the_parts_of_a_decision_add_up_and_are_the_same_later(client: Client) -> None:
    one = example(client)
    decided = client.post("/predict", one).body
    explained = client.post("/explain", {"decision_id": decided["decision_id"]}).body
    parts = sum(part["contribution"] for part in explained["contributions"])
    assert explained["base_value"] + parts == pytest.approx(explained["margin"], abs=1e-5)
    assert all(part["text"] and part["feature"] for part in explained["contributions"])
    assert client.post("/explain", one).body == explained
    picture = client.post("/explain", one, Accept="image/png")
    assert picture.body.startswith(b"\x89PNG")


def test_a_label_is_a_dated_fact_that_a_later_one_corrects(client: Client, tmp_path: Path) -> None:
    decided = client.post("/predict", example(client)).body
    told = document(client)["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]["example"]
    first, again = client.post("/feedback", told), client.post("/feedback", told)
    assert (first.status, first.body["recorded"], again.body["recorded"]) == (200, True, False)
    label = client.get(f"/decisions/{decided['decision_id']}").body["label"]
    names = list(told)
    assert label[names[1]] == told[names[1]]
    assert client.post("/feedback", {**told, names[0]: "nobody"}).status == 404
    assert len(written(tmp_path, LABEL)) == 1


def test_it_is_counted_without_a_word_of_its_own(client: Client) -> None:
    answers: list[Answered] = [client.post("/predict", one) for one in several(client, 3)]
    lines = client.get("/metrics").body.decode().splitlines()
    counted = sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("decisions_total{"))
    assert counted == len(answers)
    assert all('decision="other"' not in line for line in lines)
    assert client.metric('predict_requests_total{status="200"}') == len(answers)


def test_what_serves_it_imports_no_package_of_training(made: Made) -> None:
    only_trains = {"matplotlib", "mlflow", "onnx", "pandera", "shap", "sklearn"}
    text = f"import sys, modules.{made.name}.serve; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = program(ROOT, "-c", text)
    assert done.returncode == 0, done.stderr
    assert not only_trains & set(done.stdout.split())


def test_a_second_version_answers_its_share_and_is_taken_back(made: Made, tmp_path: Path) -> None:
    words = {**SMALL.get(made.name, {}), "MLOPS_SIMULATION__SEED": "1"}
    done = program(made.folder, "-m", f"modules.{made.name}", "pipeline", **words)
    assert done.returncode == 0, done.stderr
    settings = made.settings(tmp_path)
    platform = bootstrap.connect(settings.platform)
    releases = Releases(made.name, platform.ledger, lambda: platform.registry)
    releases.trial(2, "ab", 1.0, "a test", "to see it answer")
    try:
        with answering(made.part("serve").application(settings), settings.serving.idle_seconds) as client:
            said = client.post("/predict", example(client)).body["model"]
    finally:
        releases.back("a test", "it was seen")
    assert (said["version"], said["arm"]) == (2, "challenger")
    assert releases.traffic is not None
    assert releases.traffic.production == 1


CHECK = """
import sys
from monitoring import drift_check
code = drift_check.main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith("modules.")], "code of a module was used"
sys.exit(code)
"""


def test_it_is_watched_without_code_of_its_own_beside_another_in_one_journal(made: Made, tmp_path: Path) -> None:
    settings = made.settings(tmp_path)
    with answering(made.part("serve").application(settings), settings.serving.idle_seconds) as client:
        many = several(client, 12)
        assert [client.post("/predict", one).status for one in many] == [200] * len(many)
    with closing(journal.connect(settings.platform.journal)) as kept:
        entry = written(tmp_path)[0].entry
        record = decode_record(entry.body)
        theirs = replace(record, row={"of": "another"}, seen=["module"], model=replace(record.model, name="another"))
        kept.append([Entry(DECISION, bytes(16), encode(theirs), entry.at)])
    # What another module decided is no part of what this one remembers.
    with answering(made.part("serve").application(settings), settings.serving.idle_seconds) as client:
        assert client.post("/predict", many[0]).body["replayed"]
    named = {f"MLOPS_PLATFORM__{name.upper()}": value for name, value in settings.platform.model_dump().items()}
    done = program(ROOT, "-c", CHECK, "--module", made.name, "--since", "2020-01-01T00:00:00", **named)
    assert done.returncode in (0, 2), done.stderr
    assert "12 decisions" in done.stdout
    assert f"{made.name}/" in done.stdout
