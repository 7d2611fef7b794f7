"""A training job: what is asked for, once and no more; its end, good or bad, and an end put to it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from infra import sagemaker
from infra.start_sagemaker_training import main
from mlops.storage import objects
from modules.fraud_detection.job import Job
from modules.fraud_detection.src.features.feature_store import FOLDER
from tests.conftest import ROOT
from tests.infra.sagemaker_stage import Stage, push, store_snapshot

WORDS = ["--module", "fraud_detection"]
GIVEN = [
    "--snapshot",
    "0123456789abcdef",
    "--image",
    "123.dkr.ecr/fraud-train@sha256:0",
    "--role",
    "arn:aws:iam::1:role/x",
]
Read = pytest.CaptureFixture[str]


@pytest.fixture
def snapshot(finished: Job, stage: Stage, bucket: str, tmp_path: Path) -> str:
    """The name of the one snapshot in the bucket."""
    return store_snapshot(finished, bucket, tmp_path)


def jobs() -> list[str]:
    """The names of all jobs, the latest last."""
    found = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return [one["TrainingJobName"] for one in found]


def described(name: str) -> Any:
    return boto3.client("sagemaker").describe_training_job(TrainingJobName=name)


def one_line(read: Read) -> str:
    lines = read.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_job_gets_the_image_the_role_the_latest_snapshot_and_a_place_for_its_model(
    stage: Stage, bucket: str, snapshot: str, capsys: Read
) -> None:
    digest = push("fraud-train", "b" * 40)
    push("fraud-train", "c" * 40, at=2)
    words = [*WORDS, "--wait", "--hyperparameter", "rounds=7", "--hyperparameter", "kind=xgb", "--timeout", "10m"]
    assert main(words, stage.pace) == 0
    (name,) = jobs()
    job = described(name)
    assert name.startswith(f"fraud-detection-{snapshot}-")
    assert job["AlgorithmSpecification"]["TrainingImage"].partition("/")[2] == f"fraud-train@{digest}"
    assert job["RoleArn"] == "arn:aws:iam::123456789012:role/mlops-sagemaker"
    assert job["HyperParameters"] == {"rounds": "7", "kind": "xgb"}
    assert job["OutputDataConfig"]["S3OutputPath"] == f"s3://{bucket}/models/sagemaker/"
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    (channel,) = job["InputDataConfig"]
    folder = channel["DataSource"]["S3DataSource"]["S3Uri"]
    assert channel["ChannelName"] == "train"
    assert folder == f"s3://{bucket}/{FOLDER}/{snapshot}/"
    held = objects.connect(f"s3://{bucket}").list(folder.removeprefix(f"s3://{bucket}/").rstrip("/"))
    assert [key.rpartition("/")[2] for key in held] == ["features.parquet", "manifest.json"]
    assert capsys.readouterr().out.splitlines() == [
        f"started {name}",
        f"{name}: Completed (Completed)",
        f"model: s3://{bucket}/models/sagemaker/{name}/output/model.tar.gz",
    ]


def test_without_wait_it_is_started_and_left_alone(stage: Stage, snapshot: str, capsys: Read) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Starting")
    assert main(WORDS, stage.pace) == 0
    assert capsys.readouterr().out == f"started {jobs()[0]}\n"
    assert stage.now == 0


def test_a_dry_run_prints_exactly_what_would_be_asked_and_starts_nothing(
    stage: Stage, snapshot: str, capsys: Read
) -> None:
    assert main([*WORDS, "--dry-run"], stage.pace) == 0
    printed = json.loads(capsys.readouterr().out)
    assert jobs() == []
    assert main(WORDS, stage.pace) == 0
    assert stage.called == [("create_training_job", printed)]


def test_a_dry_run_that_is_told_everything_asks_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person types it, from another folder, with an address where nobody listens."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    command = [sys.executable, str(ROOT / "infra" / "start_sagemaker_training.py"), *WORDS, *GIVEN, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["RoleArn"] == "arn:aws:iam::1:role/x"


def test_the_same_job_is_not_started_twice_by_mistake_and_again_when_that_is_meant(
    stage: Stage, snapshot: str, capsys: Read
) -> None:
    assert main(WORDS, stage.pace) == 0
    (first,) = jobs()
    capsys.readouterr()
    assert main([*WORDS, "--wait"], stage.pace) == 1
    assert f"error: training job {first} was started before and is Completed" in one_line(capsys)
    assert main([*WORDS, "--again"], stage.pace) == main([*WORDS, "--again"], stage.pace) == 0
    assert jobs() == [first, f"{first}-2", f"{first}-3"]


def test_another_image_snapshot_or_parameter_is_another_job(stage: Stage, snapshot: str) -> None:
    for words in ([], ["--hyperparameter", "rounds=8"], ["--image", "x@sha256:1"], ["--instance", "ml.m5.xlarge"]):
        assert main([*WORDS, *words], stage.pace) == 0
    assert len(set(jobs())) == 4


def test_one_that_runs_already_is_waited_for(stage: Stage, snapshot: str, capsys: Read) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Training")
    assert main(WORDS, stage.pace) == 0
    (name,) = jobs()
    assert main(WORDS, stage.pace) == 1
    capsys.readouterr()
    stage.script.append(lambda: stage.job(name, "Completed", "Completed"))
    assert main([*WORDS, "--wait"], stage.pace) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"{name} runs already", f"{name}: InProgress (Training)"]
    assert jobs() == [name]


def test_every_change_is_told_once_and_a_failure_with_its_reason(stage: Stage, snapshot: str, capsys: Read) -> None:
    states = [("InProgress", "Starting"), ("InProgress", "Training"), ("InProgress", "Training")]
    stage.begins = lambda name: stage.job(name, *states[0])
    for state in states[1:]:
        stage.script.append(lambda state=state: stage.job(jobs()[0], *state))  # type: ignore[misc]
    reason = "AlgorithmError: BadInput: channel 'train' has no manifest.json"
    stage.script.append(lambda: stage.job(jobs()[0], "Failed", "Failed", reason))
    assert main([*WORDS, "--wait"], stage.pace) == 1
    printed, (name,) = capsys.readouterr(), jobs()
    said = [f"{name}: {state}" for state in ("InProgress (Starting)", "InProgress (Training)", "Failed (Failed)")]
    assert printed.out.splitlines() == [f"started {name}", *said]
    assert printed.err == f"error: {name}: Failed (Failed): {reason}\n"


def test_pauses_grow_up_to_a_limit(stage: Stage, snapshot: str) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Training")
    moments: list[float] = []
    stage.script.extend([lambda: moments.append(stage.now)] * 9)
    stage.script.append(lambda: stage.job(jobs()[0], "Completed", "Completed"))
    assert main([*WORDS, "--wait"], stage.pace) == 0
    pauses = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
    assert pauses[0] == 5
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60


def test_one_that_takes_too_long_is_told_to_stop(stage: Stage, snapshot: str, capsys: Read) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Training")
    assert main([*WORDS, "--wait", "--timeout", "90s"], stage.pace) == 2
    (name,) = jobs()
    assert stage.now == 90
    assert stage.called[-1] == ("stop_training_job", {"TrainingJobName": name})
    late = f"timed out: {name}: InProgress (Training) after 90 seconds; it was told to stop"
    assert one_line(capsys) == late


def refused(name: str) -> None:
    raise ClientError({"Error": {"Code": "ValidationException", "Message": f"{name} is Completed"}}, "StopTrainingJob")


def test_one_that_ends_while_it_is_told_to_stop_has_completed(stage: Stage, snapshot: str) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Uploading")

    def stops(name: str) -> None:
        stage.job(name, "Completed", "Completed")
        refused(name)

    stage.stops = stops
    assert main([*WORDS, "--wait", "--timeout", "90s"], stage.pace) == 0


def test_one_that_cannot_be_stopped_is_an_error(stage: Stage, snapshot: str, capsys: Read) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Uploading")
    stage.stops = refused
    assert main([*WORDS, "--wait", "--timeout", "90s"], stage.pace) == 1
    assert "ValidationException" in one_line(capsys)


@pytest.mark.parametrize(("secondary", "code"), [("MaxRuntimeExceeded", 2), ("Stopped", 1)])
def test_one_that_was_stopped_has_not_completed(stage: Stage, snapshot: str, secondary: str, code: int) -> None:
    stage.begins = lambda name: stage.job(name, "Stopped", secondary)
    assert main([*WORDS, "--wait"], stage.pace) == code


def test_control_c_leaves_it_running_and_names_it(stage: Stage, snapshot: str, capsys: Read) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Training")

    def interrupt() -> None:
        raise KeyboardInterrupt

    stage.script.append(interrupt)
    assert main([*WORDS, "--wait"], stage.pace) == 130
    assert one_line(capsys).startswith(f"{jobs()[0]} goes on")
    assert [call for call, _ in stage.called] == ["create_training_job"]
    assert described(jobs()[0])["TrainingJobStatus"] == "InProgress"


def test_a_look_without_an_answer_is_made_again(
    stage: Stage, snapshot: str, monkeypatch: pytest.MonkeyPatch, capsys: Read
) -> None:
    stage.begins = lambda name: stage.job(name, "InProgress", "Training")
    silent = iter([False, True, True, False])
    client = stage.client("sagemaker")
    ask = client.describe_training_job

    def describe(**words: Any) -> Any:
        if next(silent, False):
            raise ConnectTimeoutError(endpoint_url="https://sagemaker")
        return ask(**words)

    client.describe_training_job = describe
    monkeypatch.setattr(
        sagemaker, "client", lambda service: client if service == "sagemaker" else stage.client(service)
    )
    stage.script.extend([lambda: None, lambda: None, lambda: stage.job(jobs()[0], "Completed", "Completed")])
    assert main([*WORDS, "--wait"], stage.pace) == 0
    printed = capsys.readouterr().out
    assert printed.count("no answer, asking again") == 1
    assert "Completed (Completed)" in printed


def manifest(bucket: str, name: str, text: str) -> None:
    objects.write(objects.connect(f"s3://{bucket}"), f"{FOLDER}/{name}/manifest.json", text.encode())


def test_the_latest_snapshot_is_the_one_whose_data_reaches_furthest(stage: Stage, bucket: str) -> None:
    for name, until in {"a": "2026-01-02T00:00:00", "b": "2026-01-02T00:00:00.5", "c": "2025-12-31T23:00:00"}.items():
        manifest(bucket, name, json.dumps({"until": until}))
    # One without a manifest was cut short while it was written.
    objects.write(objects.connect(f"s3://{bucket}"), f"{FOLDER}/z/features.parquet", b"")
    assert main(WORDS, stage.pace) == 0
    assert main([*WORDS, "--snapshot", "c"], stage.pace) == 0
    assert [name.split("-")[2] for name in jobs()] == ["b", "c"]


def nothing(bucket: str) -> None:
    """All is as it was."""


def one_known(bucket: str) -> None:
    manifest(bucket, "known", "{}")


def one_broken(bucket: str) -> None:
    manifest(bucket, "broken", '{"until": "tomorrow"}')


def no_role(bucket: str) -> None:
    boto3.client("iam").delete_role(RoleName=sagemaker.ROLE)


def no_repository(bucket: str) -> None:
    boto3.client("ecr").delete_repository(repositoryName="fraud-train", force=True)


def no_image(bucket: str) -> None:
    no_repository(bucket)
    boto3.client("ecr").create_repository(repositoryName="fraud-train")


def no_bucket(bucket: str) -> None:
    boto3.client("s3").delete_bucket(Bucket=bucket)


SNAPSHOT, IMAGE, ROLE = GIVEN[:2], GIVEN[2:4], GIVEN[4:]


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        (nothing, [], "there is no feature snapshot in s3://"),
        (one_known, ["--snapshot", "unknown"], "there is no feature snapshot 'unknown' in"),
        (one_broken, [], "the manifest of snapshot broken is broken"),
        (no_bucket, [], "there is no bucket"),
        (no_role, [*SNAPSHOT, *IMAGE, "--dry-run"], "there is no role 'mlops-sagemaker'"),
        (no_repository, [*SNAPSHOT, *ROLE, "--dry-run"], "there is no repository 'fraud-train'"),
        (no_image, [*SNAPSHOT, *ROLE, "--dry-run"], "repository 'fraud-train' holds no image; push one"),
        (nothing, ["--module", "nowhere"], "cannot read the configuration"),
        (nothing, ["--profile", "moon"], "has no profile 'moon'"),
        (nothing, ["--timeout", "soon"], "'soon' is no length of time"),
        (nothing, ["--hyperparameter", "rounds"], "'rounds' is not NAME=VALUE"),
        (nothing, ["--wiat"], "unrecognized arguments: --wiat"),
        (nothing, ["--snapshot", "x" * 60, *IMAGE, *ROLE, "--dry-run"], "is no name for SageMaker"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    stage: Stage, bucket: str, spoil: Callable[[str], None], words: list[str], said: str, capsys: Read
) -> None:
    spoil(bucket)
    assert main([*WORDS, *words], stage.pace) == 1
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert said in line
    assert jobs() == []


def test_a_folder_is_no_place_for_sagemaker(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Read) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECTS", "file://var")
    assert main(WORDS, stage.pace) == 1
    assert "platform.objects is 'file://var', where SageMaker cannot read" in one_line(capsys)


def test_an_account_that_does_not_answer_is_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Read
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main([*WORDS, *SNAPSHOT, *IMAGE, "--dry-run"], stage.pace) == 1
    assert "does not answer" in one_line(capsys)
