"""Both images, built and used for real: training in one, deciding and explaining in the other, and what is in them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlops.releasing import packed
from mlops.releasing.packed import Packed
from mlops.serving import access
from modules.fraud_detection.src.models.artifact import Artifact
from tests.api import READY_SECONDS, Client, processes
from tests.conftest import ROOT, small_settings
from tests.images.conftest import COMMIT, CONFINED, OPT_ML, SECRET, VAR, environment, lay_out
from tests.images.engine import asked, docker, listed, made, run, started, volume

pytestmark = pytest.mark.images

LOCKS = {"train": "modules/fraud_detection/requirements.txt", "serve": "requirements/serve.txt"}
MEBIBYTES = {"train": 1_500, "serve": 1_000}
"""What the packages of an image may take."""
TOOLS = ("cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cmake", "git", "curl", "wget")

PYTHON = """
import platform
version = platform.python_version()
print(json.dumps({"python_full_version": version, "python_version": ".".join(version.split(".")[:2])}))
"""
PACKAGES = """
import sysconfig, importlib.metadata as packages
found = packages.distributions(path=[sysconfig.get_path("purelib")])
print(json.dumps({one.name: one.version for one in found}))
"""

both = pytest.mark.parametrize("target", ["train", "serve"])


def transaction(number: int) -> dict[str, Any]:
    """A transaction shortly after the simulated ones."""
    return {
        "transaction_id": f"t{number}", "timestamp": f"2025-03-13T{number:02d}:00:00", "customer_id": number % 7,
        "terminal_id": number % 5, "amount": round(5 * 1.4**number, 2),
    }  # fmt: skip


def test_training_as_sagemaker_does_it_leaves_a_model_its_evaluation_and_the_commit_of_the_image(model: Path) -> None:
    card, version = Artifact.open(model / "model").card, Packed(model / "model").version
    assert (card.seed, card.parameters["rounds"]) == (3, 60)
    assert version.tags["git_revision"] == COMMIT
    assert version.tags["model_hash"] == Artifact.open(model / "model").hash
    evaluation = json.loads((model / "output" / "data" / "evaluation.json").read_text())
    assert evaluation["metrics"]["average_precision"] > 0
    assert (model / "output" / "data" / "shap_summary.png").is_file()
    assert not (model / "output" / "failure").exists()


def test_what_was_trained_packs_into_the_archive_that_sagemaker_hands_to_serving(model: Path, tmp_path: Path) -> None:
    version = Packed(model / "model").version
    packed.pack(model / "model", version, tmp_path / packed.ARCHIVE)
    assert packed.unpack(tmp_path / packed.ARCHIVE, tmp_path / "unpacked").version == version


def test_a_training_that_fails_says_why_where_sagemaker_looks(images: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with volume() as name:
        lay_out(images["train"], name, tmp_path / "empty", "{}")
        with made(images["train"], "train", options=["--volume", f"{name}:{OPT_ML}"]) as container:
            done = run("start", "--attach", container.id)
            failure = container.take(f"{OPT_ML}/output/failure", tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: channel 'train' has no ")
    assert "channel 'train' has no " in failure.read_text()


def test_invocations_in_a_container_decide_as_the_word_serve_outside(
    sagemaker_port: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sage, bodies = Client(sagemaker_port), [transaction(number) for number in range(20)]
    pinged(sage)
    said = [sage.post("/invocations", body).body for body in bodies]
    again = sage.post("/invocations", {"transactions": bodies}).body["results"]
    assert again == [{**one, "replayed": True} for one in said]
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "0")
    with processes(small_settings(tmp_path), tmp_path, 1, "--opt-ml", str(model)) as (_, outside):
        assert [outside.post("/predict", body).body for body in bodies] == said
    assert len({one["fraud_probability"] for one in said}) > 4
    assert sage.post("/predict", bodies[0]).status == 404
    sage.close()


def test_the_api_decides_and_explains_what_the_pipeline_made_confined_and_stops_when_it_is_told_to(
    images: dict[str, str], var: str
) -> None:
    key, hash_ = access.make()
    keys = environment({"MLOPS_SERVING__KEYS": f"[{{name: shop, sha256: {hash_}}}]"})
    reached = ["--publish", "127.0.0.1::8000", "--volume", f"{var}:{VAR}"]
    # Without a grace the check fails until there is a model, so that it is seen to fail.
    health = ["--health-interval", "1s", "--health-start-period", "1ms", "--health-retries", "1"]
    began = time.time()
    with started(
        images["serve"], "serve", "--host", "0.0.0.0", options=[*CONFINED, *keys, *reached, *health]
    ) as container:
        healths = container.healths(began, until="healthy")
        assert healths == ["unhealthy", "healthy"], container.logs()
        client, allowed = Client(container.port(8000)), {"Authorization": f"Bearer {key}"}
        assert client.post("/predict", transaction(1)).status == 401
        said = client.post("/predict", transaction(1), **allowed).body
        assert said["model"] == {"name": "fraud_detection", "version": 1, "arm": "production"}
        why = client.post("/explain", {"decision_id": said["decision_id"]}, **allowed)
        assert why.status == 200
        assert why.body["decision_id"] == said["decision_id"]
        client.close()
        code, seconds = container.stop()
        assert code == 0, container.logs()
        # Whoever needs longer is killed by a plain `docker stop`.
        assert seconds < 10
    kept = listed(images["serve"], f"cd {VAR} && find .", ["--volume", f"{var}:{VAR}"])
    assert f"./explanations/decisions/{said['decision_id']}.json" in kept
    # ONNX Runtime keeps a name of the device there when it means to send what it saw.
    assert not [path for path in kept if "onnxruntime" in path]


def test_a_container_without_a_word_says_which_there_are(images: dict[str, str]) -> None:
    for name in images.values():
        done = run("run", "--rm", name)
        assert (done.code, done.out) == (2, "")
        assert "usage: python -m modules.fraud_detection" in done.err
        assert "WORD" in done.err


def test_a_word_that_only_the_other_image_can_do_says_so_in_one_line(images: dict[str, str]) -> None:
    for word in ("pipeline", "train"):
        done = run("run", "--rm", images["serve"], word)
        assert done.code == 1
        assert done.err.startswith(f"error: '{word}' needs ")
        assert done.err.endswith("which is not installed here; use the image fraud-train, or make install")


@both
def test_an_image_has_the_packages_of_its_lock_and_no_other(images: dict[str, str], target: str) -> None:
    lines = (ROOT / LOCKS[target]).read_text().splitlines()
    locked = [Requirement(line.removesuffix("\\")) for line in lines if line and not line.startswith((" ", "#"))]
    there = asked(images[target], PYTHON)
    wanted = {one.name: str(one.specifier) for one in locked if one.marker is None or one.marker.evaluate(there)}
    found = asked(images[target], PACKAGES)
    assert {canonicalize_name(name): f"=={version}" for name, version in found.items()} == wanted
    (size,) = listed(images[target], "du --summarize --block-size=1M /opt/venv | cut -f1")
    assert int(size) < MEBIBYTES[target]


@both
def test_an_image_has_no_tool_no_cache_no_test_and_no_secret(images: dict[str, str], target: str) -> None:
    assert listed(images[target], f"for tool in {' '.join(TOOLS)}; do command -v $tool || true; done") == []
    assert listed(images[target], "find /root /home /tmp /var/tmp -type f -path '*cache*' -o -path '/tmp/*'") == []
    odd = r"-name .git -o -name '.env*' -o -name Dockerfile -o -path '/app/tests*' -o -path '/app/var/*'"
    assert listed(images[target], rf"find /app /opt /root /home \( {odd} \)") == []
    assert listed(images[target], f"grep -rlF {SECRET} /app /etc /root /tmp /opt/venv/pyvenv.cfg || true") == []
    told = docker("history", "--no-trunc", images[target]) + docker("image", "inspect", images[target])
    assert SECRET not in told
    assert f'"org.opencontainers.image.revision": "{COMMIT}"' in told


@both
def test_others_than_root_can_write_to_var_alone_and_nothing_is_left_to_compile(
    images: dict[str, str], target: str
) -> None:
    for user in ("mlops", "10001"):
        found = listed(images[target], "find /app /opt -writable; echo $HOME", ["--user", user])
        assert found == [VAR, VAR]
    sources = listed(images[target], "find /app -name '*.py' -size +0")
    compiled = listed(images[target], "find /app -name '*.pyc' -size +0")
    assert len(compiled) >= len(sources) > 100


def test_serving_says_to_sagemaker_that_its_port_may_be_chosen(images: dict[str, str]) -> None:
    label = '{{index .Config.Labels "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"}}'
    assert docker("image", "inspect", "--format", label, images["serve"]) == "true"


def pinged(client: Client) -> None:
    """Ask /ping, as SageMaker does, until it answers 200."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.get("/ping").status == 200:
                return
        except OSError:
            continue
    raise TimeoutError("the container does not become ready")
