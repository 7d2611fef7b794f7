"""An endpoint: made, changed without a gap, asked, taken away; what is wrong is said, and what it costs always."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra import sagemaker
from infra.deploy_endpoint import main
from mlops.releasing import packed
from mlops.releasing.registry import Version
from mlops.storage import objects
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from tests.conftest import ROOT
from tests.infra.sagemaker_stage import Stage, push

ENDPOINT = "fraud-detection"
Read = pytest.CaptureFixture[str]


def decided(version: int, replayed: bool = False) -> dict[str, Any]:
    """An answer as the API gives it."""
    model = {"name": NAME, "version": version, "arm": "production"}
    return {"transaction_id": "1", "decision_id": "ab", "decision": "approve", "model": model, "replayed": replayed}


@pytest.fixture
def versions(finished: Job, stage: Stage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1, which is in production, and version 2, which is the same model."""
    monkeypatch.setenv("MLOPS_PLATFORM__LEDGER", finished.settings.platform.ledger)
    store = objects.connect(f"s3://{bucket}")
    with finished.platform.objects.download(packed.key(NAME, 1)) as archive:
        store.upload(archive, packed.key(NAME, 1))
        one = packed.unpack(archive, tmp_path / "model").version
    packed.pack(tmp_path / "model", Version(NAME, 2, one.run_id, one.tags), tmp_path / "two.tar.gz")
    store.upload(tmp_path / "two.tar.gz", packed.key(NAME, 2))


def run(stage: Stage, *words: str, answer: Any = None) -> int:
    """Run the command; the endpoint answers as it is told."""
    if answer is not None:
        stage.answer(answer)
    return main(words, stage.pace)


def names() -> dict[str, list[str]]:
    """All that is in the account, by kind."""
    client = boto3.client("sagemaker")
    return {
        "endpoints": [one["EndpointName"] for one in client.list_endpoints()["Endpoints"]],
        "configurations": [one["EndpointConfigName"] for one in client.list_endpoint_configs()["EndpointConfigs"]],
        "models": [one["ModelName"] for one in client.list_models()["Models"]],
    }


def described(name: str = ENDPOINT) -> Any:
    return boto3.client("sagemaker").describe_endpoint(EndpointName=name)


def one_line(read: Read) -> str:
    """The one line that says what is wrong, beside the two that say what it costs."""
    lines = [line for line in read.readouterr().err.splitlines() if not line.startswith("!!")]
    assert len(lines) == 1, lines
    return lines[0]


def test_production_is_deployed_asked_and_told_to_cost_money(
    stage: Stage, versions: None, bucket: str, finished: Job, capsys: Read
) -> None:
    digest = push("fraud-serve", "b" * 40)
    words = ["--environment", "MLOPS_PLATFORM__ONLINE=redis://cache:6379/0", "--instance", "ml.m5.large"]
    assert run(stage, *words, answer=decided(1)) == 0
    printed, found, client = capsys.readouterr(), described(), boto3.client("sagemaker")
    assert (found["EndpointStatus"], names()["endpoints"]) == ("InService", [ENDPOINT])
    configuration = client.describe_endpoint_config(EndpointConfigName=found["EndpointConfigName"])
    (variant,) = configuration["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m5.large", 1)
    model = client.describe_model(ModelName=variant["ModelName"])
    container = model["PrimaryContainer"]
    assert container["ModelDataUrl"] == f"s3://{bucket}/models/{NAME}/1/model.tar.gz"
    assert container["Image"].partition("/")[2] == f"fraud-serve@{digest}"
    assert model["ExecutionRoleArn"] == "arn:aws:iam::123456789012:role/mlops-sagemaker"
    assert container["Environment"] == {
        "MLOPS_PLATFORM__OBJECTS": f"s3://{bucket}",
        "MLOPS_PLATFORM__JOURNAL": "secret://mlops/journal-url",
        "MLOPS_PLATFORM__ONLINE": "redis://cache:6379/0",
    }
    assert json.loads(printed.out.splitlines()[-1]) == decided(1)
    assert printed.err.splitlines() == [
        "!! fraud-detection costs money every hour, asked or not: one ml.m5.large, all day and night",
        "!! take it away when you are done: infra/deploy_endpoint.sh --delete --endpoint fraud-detection",
    ]


def test_the_same_again_changes_nothing_and_asks_again(stage: Stage, versions: None, capsys: Read) -> None:
    assert run(stage, answer=decided(1)) == 0
    before = names()
    assert run(stage) == 0
    assert names() == before
    assert "has this very version, image and environment already" in capsys.readouterr().out
    assert [call for call, _ in stage.called] == ["create_endpoint"]


def test_an_update_leaves_the_old_ones_until_the_new_are_in_service(stage: Stage, versions: None) -> None:
    assert run(stage, answer=decided(1)) == 0
    old, new = described()["EndpointConfigName"], ""

    def arrives() -> None:
        assert old in names()["models"]
        assert old in names()["configurations"]
        stage.endpoint(ENDPOINT, "InService", new)

    def begins(name: str) -> None:
        nonlocal new
        new = described()["EndpointConfigName"]
        stage.endpoint(name, "Updating", old)

    stage.begins = begins
    stage.script.extend([lambda: None, arrives])
    assert run(stage, "--version", "2", answer=decided(2)) == 0
    assert not stage.script
    assert described()["EndpointConfigName"] == new != old
    assert names() == {"endpoints": [ENDPOINT], "configurations": [new], "models": [new]}


def test_an_update_that_is_rolled_back_is_a_failure_and_removes_nothing(
    stage: Stage, versions: None, capsys: Read
) -> None:
    assert run(stage, answer=decided(1)) == 0
    old = described()["EndpointConfigName"]
    capsys.readouterr()
    stage.begins = lambda name: stage.endpoint(name, "InService", old, "the ping check failed")
    assert run(stage, "--version", "2") == 1
    line = one_line(capsys)
    assert "version 2 did not come into service: fraud-detection: InService, the ping check failed" in line
    assert old in names()["models"]
    assert old in names()["configurations"]


def test_one_that_fails_says_why_and_is_to_be_taken_away_first(stage: Stage, versions: None, capsys: Read) -> None:
    stage.begins = lambda name: stage.endpoint(name, "Failed", reason="no such image")
    assert run(stage) == 1
    assert "version 1 did not come into service: fraud-detection: Failed, no such image" in one_line(capsys)
    assert run(stage) == 1
    assert "take it away first: infra/deploy_endpoint.sh --delete --endpoint fraud-detection" in one_line(capsys)
    assert main(["--delete"], stage.pace) == 0
    stage.begins = lambda name: None
    assert run(stage, answer=decided(1)) == 0


def test_one_that_takes_too_long_is_left_to_come_and_still_costs(stage: Stage, versions: None, capsys: Read) -> None:
    stage.begins = lambda name: stage.endpoint(name, "Creating")
    assert run(stage, "--timeout", "10m") == 2
    assert stage.now == 600
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("!! fraud-detection costs money")
    assert printed[-1] == "timed out: fraud-detection: Creating after 600 seconds"
    # The next attempt waits for it, and finds that it is what was asked for.
    stage.script.append(lambda: stage.endpoint(ENDPOINT, "InService"))
    assert run(stage, answer=decided(1)) == 0
    assert [call for call, _ in stage.called] == ["create_endpoint"]


def test_control_c_says_that_it_still_costs(stage: Stage, versions: None, capsys: Read) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stage.begins = lambda name: stage.endpoint(name, "Creating")
    stage.script.append(interrupt)
    assert run(stage) == 130
    assert "!! fraud-detection costs money" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["body", {}, {"error": {"reason": "no model is awake yet"}}, decided(7), [1]])
def test_one_that_does_not_answer_as_this_version_is_a_failure_and_keeps_the_old_ones(
    stage: Stage, versions: None, answer: Any, capsys: Read
) -> None:
    assert run(stage, answer=decided(1)) == 0
    old = described()["EndpointConfigName"]
    capsys.readouterr()
    assert run(stage, "--version", "2", answer=answer) == 1
    assert f"{ENDPOINT} " in one_line(capsys)
    assert old in names()["models"]


def test_an_answer_that_is_repeated_may_be_of_another_version(stage: Stage, versions: None) -> None:
    """Over a journal that has the canned transaction already, every version repeats what was said of it."""
    assert run(stage, "--version", "2", answer=decided(1, replayed=True)) == 0


def test_an_attempt_that_was_cut_short_is_gone_on_with(stage: Stage, versions: None) -> None:
    def cut(**_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        client = stage.client("sagemaker")
        client.create_endpoint_config = cut
        patch.setattr(sagemaker, "client", lambda service: client if service == "sagemaker" else stage.client(service))
        assert run(stage) == 130
    assert [len(found) for found in names().values()] == [0, 0, 1]
    assert run(stage, answer=decided(1)) == 0
    assert [len(found) for found in names().values()] == [1, 1, 1]


def test_all_that_belongs_to_it_is_taken_away_and_twice_is_once(stage: Stage, versions: None, capsys: Read) -> None:
    assert run(stage, answer=decided(1)) == 0
    client = boto3.client("sagemaker")
    foreign = ["fraud-detection-v1", "fraud-detection-v2-v1-0123abcd", "own", "fraud-detection-v1-0123abcde"]
    left = described()["EndpointConfigName"][:-8] + "0123abcd"
    for name in [left, *foreign]:
        client.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::123456789012:role/x")
    capsys.readouterr()
    assert main(["--delete", "--dry-run"], stage.pace) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["EndpointName"], len(planned["EndpointConfigName"]), len(planned["ModelName"])) == (
        [ENDPOINT],
        1,
        2,
    )
    assert names()["endpoints"] == [ENDPOINT]
    assert main(["--delete"], stage.pace) == main(["--delete"], stage.pace) == 0
    assert names() == {"endpoints": [], "configurations": [], "models": foreign}
    printed = capsys.readouterr()
    assert printed.out.count("deleted endpoint") == 1
    assert printed.out.count("nothing of fraud-detection is left, and it costs nothing") == 2
    assert printed.err == ""


def test_one_on_its_way_is_waited_for_before_it_is_taken_away(stage: Stage, versions: None) -> None:
    """SageMaker refuses to delete an endpoint that is being created."""
    stage.begins = lambda name: stage.endpoint(name, "Creating")
    assert run(stage, "--timeout", "60s") == 2
    stage.script.extend([lambda: None, lambda: stage.endpoint(ENDPOINT, "InService")])
    assert main(["--delete"], stage.pace) == 0
    assert not stage.script
    assert names()["endpoints"] == []


def test_a_dry_run_prints_what_would_be_asked_and_creates_nothing(stage: Stage, versions: None, capsys: Read) -> None:
    assert run(stage, "--dry-run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [*names().values()] == [[], [], []]
    assert json.loads(printed["invoke_endpoint"]["Body"])["transaction_id"]
    assert run(stage, answer=decided(1)) == 0
    client = boto3.client("sagemaker")
    model = client.describe_model(ModelName=printed["create_model"]["ModelName"])
    assert model["PrimaryContainer"] == printed["create_model"]["PrimaryContainer"]
    configuration = client.describe_endpoint_config(EndpointConfigName=printed["create_endpoint"]["EndpointConfigName"])
    assert configuration["ProductionVariants"] == printed["create_endpoint_config"]["ProductionVariants"]


def test_the_container_is_told_where_the_platform_is_and_that_by_the_names_of_secrets(
    stage: Stage, versions: None, bucket: str, capsys: Read
) -> None:
    """The profile `aws` names secrets; what a machine has for itself is no place for a container."""
    assert run(stage, "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["create_model"]["PrimaryContainer"]["Environment"] == {
        "MLOPS_PLATFORM__OBJECTS": f"s3://{bucket}",
        "MLOPS_PLATFORM__ONLINE": "secret://mlops/redis-url",
        "MLOPS_PLATFORM__JOURNAL": "secret://mlops/journal-url",
    }


@pytest.mark.parametrize("words", [[], ["--environment", "MLOPS_PLATFORM__JOURNAL=sqlite:////tmp/journal.db"]])
def test_a_journal_in_the_container_is_warned_about(
    stage: Stage, versions: None, monkeypatch: pytest.MonkeyPatch, words: list[str], capsys: Read
) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__JOURNAL", "sqlite:///var/journal.db")
    assert run(stage, "--dry-run", *words) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: the journal lies in the container and ends with it")
    assert "sqlite:///var" not in printed.out
    assert json.loads(printed.out)


def test_a_model_straight_from_a_training_job_is_deployed_as_number_0(
    stage: Stage, versions: None, bucket: str, tmp_path: Path
) -> None:
    one = packed.Packed(tmp_path / "model").version
    packed.pack(tmp_path / "model", Version(NAME, 0, "", one.tags), tmp_path / "model.tar.gz")
    key = "models/sagemaker/a-job/output/model.tar.gz"
    objects.connect(f"s3://{bucket}").upload(tmp_path / "model.tar.gz", key)
    assert run(stage, "--archive", f"s3://{bucket}/{key}", answer=decided(0)) == 0
    (model,) = names()["models"]
    assert model.startswith("fraud-detection-v0-")


def test_the_shell_script_is_the_same_command(stage: Stage, versions: None, bucket: str) -> None:
    """From another folder, which is where its own files are looked for."""
    script = str(ROOT / "infra" / "deploy_endpoint.sh")
    Path("asked.json").write_text('{"transaction_id": "another"}')
    words = [script, "--dry-run", "--smoke", "asked.json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["create_model"]["PrimaryContainer"]["ModelDataUrl"].startswith(f"s3://{bucket}/")
    assert json.loads(done.stdout)["invoke_endpoint"]["Body"] == Path("asked.json").read_text()
    bad = subprocess.run([script, "--verison", "3"], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (bad.returncode, bad.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "value",
    [
        "MLOPS_PLATFORM__JOURNAL=postgresql://app:hunter2@db/journal", "REDIS_URL=redis://:hunter2@cache:6379/0",
        "MLOPS_PLATFORM__LEDGER=postgresql://db/ledger?user=app&password=hunter2",
    ],
)  # fmt: skip
def test_a_password_is_refused_and_not_repeated(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, value: str, capsys: Read
) -> None:
    assert run(stage, "--environment", value, "--dry-run") == 1
    line = one_line(capsys)
    assert f"the value of {value.partition('=')[0]} holds a password; name a secret instead: secret://NAME" in line
    assert "hunter2" not in line
    monkeypatch.setenv("MLOPS_PLATFORM__JOURNAL", "postgresql://app:hunter2@db/journal")
    assert run(stage, "--dry-run") == 1
    assert "the value of MLOPS_PLATFORM__JOURNAL holds a password" in (line := one_line(capsys))
    assert "hunter2" not in line


def nothing(bucket: str) -> None:
    """All is as it was."""


def no_archive(bucket: str) -> None:
    objects.connect(f"s3://{bucket}").delete(packed.key(NAME, 1))


def no_whole_archive(bucket: str) -> None:
    store = objects.connect(f"s3://{bucket}")
    objects.write(store, packed.key(NAME, 1), objects.read(store, packed.key(NAME, 1))[:-100])


def another_version(bucket: str) -> None:
    store = objects.connect(f"s3://{bucket}")
    objects.write(store, packed.key(NAME, 1), objects.read(store, packed.key(NAME, 2)))


def no_role(bucket: str) -> None:
    boto3.client("iam").delete_role(RoleName=sagemaker.ROLE)


def no_repository(bucket: str) -> None:
    boto3.client("ecr").delete_repository(repositoryName="fraud-serve", force=True)


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        (no_archive, [], f"/models/{NAME}/1/model.tar.gz"),
        (no_whole_archive, [], "is no whole archive; pack it again"),
        (another_version, [], "holds version 2 of 'fraud_detection'; make the version again"),
        (nothing, ["--version", "9"], f"/models/{NAME}/9/model.tar.gz"),
        (nothing, ["--archive", "model.tar.gz"], "'model.tar.gz' is no archive; write s3://BUCKET/KEY.tar.gz"),
        (nothing, ["--archive", "s3://nowhere/model.tar.gz"], "nowhere"),
        (no_role, [], "there is no role 'mlops-sagemaker'"),
        (no_repository, [], "there is no repository 'fraud-serve'"),
        (nothing, ["--smoke", "nowhere.json"], "cannot read nowhere.json"),
        (nothing, ["--instance", "ml.moon"], "ml.moon"),
        (nothing, ["--endpoint", "x" * 60], "is no name for SageMaker"),
        (nothing, ["--environment", "PATH=/bin"], "write MLOPS_..., PROFILE or REDIS_URL"),
        (nothing, ["--environment", "MLOPS_X"], "write MLOPS_..., PROFILE or REDIS_URL"),
        (nothing, ["--version", "one"], "invalid int value: 'one'"),
        (nothing, ["--version", "1", "--delete"], "not allowed with argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    stage: Stage, versions: None, bucket: str, spoil: Callable[[str], None], words: list[str], said: str, capsys: Read
) -> None:
    spoil(bucket)
    assert run(stage, *words) == 1
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert said in line
    assert names()["endpoints"] == []


def test_before_the_first_promotion_the_way_to_one_is_named(
    stage: Stage, versions: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Read
) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__LEDGER", f"sqlite:///{tmp_path}/empty.db")
    assert run(stage) == 1
    assert "no version of 'fraud_detection' is in production; promote one" in one_line(capsys)
