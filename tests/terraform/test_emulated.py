"""The platform made, used and destroyed on a local AWS; what its state tells, and whom its policies let do what."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from infra import lambda_handler
from mlops.alerting import inbox, messages
from mlops.alerting.alerts import Alert, letter
from mlops.journaling.ledger import Ledger
from tests.terraform import calls, life, rights
from tests.terraform.calls import Right
from tests.terraform.life import Life
from tests.terraform.rights import Statement

pytestmark = pytest.mark.infra

MODULE = "fraud_detection"
LETTER = "monitoring/dead_letters/fraud-transactions/shardId-0/1.json"


class Used(NamedTuple):
    """What came of alerts on the topic, of a dead letter in the bucket, and of the function's environment."""

    heard: list[str]
    noted: list[str]
    connected: lambda_handler.Platform


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """One life of the platform, over before the first test looks."""
    folder = tmp_path_factory.mktemp("life")
    return life.live(folder, lambda address, state: _use(folder, address, state))


def test_it_is_planned_made_and_destroyed(lived: Life) -> None:
    made = re.search(r"Apply complete! Resources: (\d+) added, 0 changed, 0 destroyed", lived.said["apply"])
    assert made is not None, lived.said["apply"][-2_000:]
    assert f"Destroy complete! Resources: {made[1]} destroyed" in lived.said["destroy"]
    print([line for said in lived.said.values() for line in said.splitlines() if " complete! " in line])


def test_made_again_nothing_changes(lived: Life) -> None:
    assert "No changes. Your infrastructure matches the configuration." in lived.said["again"]
    assert "Apply complete! Resources: 0 added, 0 changed, 0 destroyed" in lived.said["again"]


def test_nothing_is_left_when_it_was_destroyed_though_bucket_and_secrets_were_filled(lived: Life) -> None:
    assert lived.left == {}


def test_no_value_of_a_secret_stands_in_the_state_or_in_what_is_said_once_it_was_filled(lived: Life) -> None:
    assert lived.files
    for text in (*lived.files.values(), json.dumps(lived.state), lived.said["again"], lived.said["destroy"]):
        assert lived.secret not in text
    held = [one["address"] for one in lived.planned["resource_changes"] if "secret_version" in one["type"]]
    assert held == []


def test_of_alerts_the_queue_hears_drift_alone_as_its_worker_does(lived: Life) -> None:
    assert sorted(lived.used.heard) == ["drift", "latency"]


def test_a_dead_letter_in_the_bucket_leaves_a_note_in_the_queue_that_the_alarm_stands_on(lived: Life) -> None:
    assert lived.used.noted == [LETTER]
    alarm = lived.values('aws_cloudwatch_metric_alarm.service["stream-dead-letters"]')
    assert alarm["dimensions"] == {"QueueName": lived.values("aws_sqs_queue.stream_dead")["name"]}


def test_the_function_understands_its_environment(lived: Life) -> None:
    connected = lived.used.connected
    assert isinstance(connected.target, lambda_handler.Api)
    assert (connected.bucket, connected.prefix) == ("mlops-fraud-dev", "")


def test_the_list_of_calls_is_what_the_code_makes() -> None:
    assert calls.found() == set(calls.NODE) | set(calls.LAMBDA)


def test_the_node_may_make_every_call_of_the_code(lived: Life) -> None:
    granted = _granted(lived, "node")
    needed = {right for those in calls.NODE.values() for right in map(_plain, those)}
    assert [right for right in needed if not _may(lived, granted, right)] == []


def test_the_node_may_do_nothing_else(lived: Life) -> None:
    granted = _granted(lived, "node")
    needed = {right.action for those in calls.NODE.values() for right in those}
    assert rights.actions(granted) == needed | calls.OTHERS
    assert [right for right in map(_plain, calls.DENIED_TO_THE_NODE) if _may(lived, granted, right)] == []


def test_the_function_may_do_what_it_does_and_what_its_mapping_does_and_nothing_else(lived: Life) -> None:
    granted = _granted(lived, "lambda")
    needed = {*map(_plain, calls.MAPPING), *(right for those in calls.LAMBDA.values() for right in map(_plain, those))}
    assert [right for right in needed if not _may(lived, granted, right)] == []
    # A queue behind it may be encrypted by the key, and to write with the key takes reading with it.
    assert rights.actions(granted) == {action for action, _, _ in needed}
    assert [right for right in map(_plain, calls.DENIED_TO_LAMBDA) if _may(lived, granted, right)] == []


def test_the_schedule_may_send_one_document_to_one_machine(lived: Life) -> None:
    granted = _granted(lived, "scheduler")
    document, machine = lived.values("aws_ssm_document.drift_check")["arn"], lived.values("aws_instance.core")["arn"]
    assert all(rights.allows(granted, "ssm:SendCommand", one) for one in (document, machine))
    shell = "arn:aws:ssm:us-east-1::document/AWS-RunShellScript"
    for other in (shell, f"{document}-2", f"{machine}0"):
        assert not rights.allows(granted, "ssm:SendCommand", other)


def test_no_role_may_do_everything_with_a_service(lived: Life) -> None:
    for role in ("node", "lambda", "sagemaker", "scheduler", "flow"):
        granted = _granted(lived, role)
        assert granted
        assert not [action for action in rights.actions(granted) if "*" in action]


def _use(folder: Path, address: str, state: dict[str, Any]) -> Used:
    """Send alerts as the platform does, put a dead letter as the function does, and wake the function."""
    root = {one["address"]: one["values"] for one in state["values"]["root_module"]["resources"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", **root["aws_lambda_function.stream"]["environment"][0]["variables"],
        }.items():  # fmt: skip
            patch.setenv(name, value)
        topic = messages.connect(f"sns://{root['aws_sns_topic.alerts']['arn']}")
        for kind in ("latency", "drift"):
            topic.send(letter([_alert(kind)]))
        life.client(address, "sns").publish(TopicArn=root["aws_sns_topic.alerts"]["arn"], Message="an alarm to people")
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        heard = inbox.connect("sqs://mlops-alerts", ledger, MODULE).receive(0)
        ledger.close()
        bucket, queue = root["aws_s3_bucket.data"]["bucket"], root["aws_sqs_queue.stream_dead"]["url"]
        return Used([alert.kind for alert in heard], _noted(address, bucket, queue), _connect())


def _noted(address: str, bucket: str, queue: str) -> list[str]:
    """Put a dead letter and something else into the bucket; return the keys of which the queue has a note."""
    s3, sqs = life.client(address, "s3"), life.client(address, "sqs")
    # The server speaks no TLS, and the bucket refuses who comes without.
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    for key in (LETTER, "data/raw/x"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    bodies = [json.loads(one["Body"]) for one in received]
    return [unquote(one["s3"]["object"]["key"]) for body in bodies for one in body.get("Records", [])]


def _connect() -> lambda_handler.Platform:
    """Connect as the function does at its first call."""
    lambda_handler._connected.cache_clear()
    return lambda_handler._connected()


def _alert(kind: str) -> Alert:
    return Alert(MODULE, kind, "data", "raised", "it is so", {}, "", 3, 1, kind.encode().hex().zfill(32), 1)


def _granted(lived: Life, role: str) -> list[Statement]:
    """The statements of a role's own policies, as they are rendered."""
    resources = lived.state["values"]["root_module"]["resources"]
    own = [one["values"]["policy"] for one in resources if one["type"] == "aws_iam_role_policy" and one["name"] == role]
    return rights.statements(own)


def _plain(right: Right) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return right.action, right.resource, tuple(right.context.items())


def _may(lived: Life, granted: list[Statement], right: tuple[str, str, tuple[tuple[str, str], ...]]) -> bool:
    action, resource, context = right
    key = lived.values("aws_kms_key.main")["arn"]
    exact = {calls.API_KEY: lived.values('aws_secretsmanager_secret.this["mlops/api-key"]')["arn"], "KEY": key}
    return rights.allows(granted, action, exact.get(resource, resource), dict(context))
