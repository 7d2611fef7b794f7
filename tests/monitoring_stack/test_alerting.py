"""The way of an alert: from Prometheus over Alertmanager and SNS into a queue; and who is spared which."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
import yaml

from tests.conftest import ROOT
from tests.monitoring_stack import servers
from tests.monitoring_stack.servers import awaited, get, program

pytestmark = pytest.mark.monitoring

START = ROOT / "infra" / "alertmanager" / "start.sh"
TOPIC = "arn:aws:sns:us-east-1:123456789012:mlops-alerts"


def environment(folder: Path, **words: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder), **words}


def rendered(folder: Path, *command: str, **words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(START), *command], env=environment(folder, **words), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [
    {}, {"ALERTS_TOPIC_ARN": TOPIC, "AWS_REGION": "us-east-1"},
    {"ALERTS_TOPIC_ARN": TOPIC, "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://aws:5000"},
], ids=["nowhere", "aws", "local"])  # fmt: skip
def test_alertmanager_reads_what_the_environment_makes_of_the_template(tmp_path: Path, words: dict[str, str]) -> None:
    made = tmp_path / "alertmanager.yml"
    found = rendered(tmp_path, program("amtool"), "check-config", str(made), **words)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "$" + "{" not in "".join(line for line in made.read_text().splitlines() if not line.startswith("#"))
    receiver = yaml.safe_load(made.read_text())["receivers"][0]
    if not words:
        assert receiver == {"name": "topic"}
        assert "sent to nobody" in found.stderr
        return
    sns = receiver["sns_configs"][0]
    assert (sns["topic_arn"], sns["sigv4"], sns["send_resolved"]) == (TOPIC, {"region": words["AWS_REGION"]}, True)
    assert sns["api_url"] == words.get("AWS_ENDPOINT_URL", "")


@pytest.mark.parametrize(("words", "said"), [
    ({"ALERTS_TOPIC_ARN": "mlops-alerts"}, "ALERTS_TOPIC_ARN is 'mlops-alerts'"),
    ({"ALERTS_TOPIC_ARN": f'{TOPIC}"'}, "ALERTS_TOPIC_ARN is"),
    ({"ALERTS_TOPIC_ARN": TOPIC}, "AWS_REGION is not set"),
    ({"ALERTS_TOPIC_ARN": TOPIC, "AWS_REGION": "a b"}, "AWS_REGION is 'a b'"),
    ({"ALERTS_TOPIC_ARN": TOPIC, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "aws:5000"}, "AWS_ENDPOINT_URL is"),
    ({"ALERTS_TOPIC_ARN": TOPIC, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": 'http://a"|b'}, "AWS_ENDPOINT_URL is"),
])  # fmt: skip
def test_a_wrong_word_ends_it_with_one_line(tmp_path: Path, words: dict[str, str], said: str) -> None:
    found = rendered(tmp_path, "echo", "started", **words)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {said}")
    assert found.stderr.count("\n") == 1


def test_it_becomes_the_command_that_it_is_given(tmp_path: Path) -> None:
    assert rendered(tmp_path, "echo", "two words").stdout == "two words\n"


def test_an_alert_and_its_end_reach_a_queue_and_leave_the_platforms_own_queue_alone(
    tmp_path: Path, aws: str, bucket: str
) -> None:
    sqs, sns = boto3.client("sqs"), boto3.client("sns")
    topic = sns.create_topic(Name=bucket)["TopicArn"]
    everybody, own = (_queue(f"{bucket}-{name}") for name in ("people", "platform"))
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=everybody[1])
    only = json.dumps({"name": ["fraud_detection"]})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=own[1], Attributes={"FilterPolicy": only})
    exporter = tmp_path / "exporter"
    exporter.mkdir()
    (rules := tmp_path / "rules.yml").write_text(yaml.safe_dump(_at_once("TargetDown")))
    words = {"ALERTS_TOPIC_ARN": topic, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": aws}
    credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with servers.alertmanager(tmp_path, environment(tmp_path, **words, **credentials)) as at:
        down = f"127.0.0.1:{servers.free_port()}"
        targets = {"alertmanager:9093": at, "node-exporter:9100": down}
        with servers.prometheus(tmp_path, targets, [rules]):
            raised = awaited(lambda: _messages(sqs, everybody[0]), "a message that it began")[0]
            with servers.node_exporter(exporter, down):
                cleared = awaited(lambda: _messages(sqs, everybody[0]), "a message that it ended")[0]
    assert raised["Subject"] == "FIRING: TargetDown"
    lines = raised["Message"].splitlines()
    assert lines[0].startswith("FIRING (critical) since ")
    assert lines[1] == "node cannot be read"
    assert lines[2].startswith(f"{down} has given Prometheus nothing")
    assert lines[3] == "To do: docker ps --all --filter name=mlops-"
    assert cleared["Subject"] == "RESOLVED: TargetDown"
    assert cleared["Message"].startswith("RESOLVED at ")
    assert raised["MessageAttributes"]["source"]["Value"] == "prometheus"
    assert _messages(sqs, own[0]) == []


def test_what_follows_from_something_worse_is_not_told(tmp_path: Path) -> None:
    worse = [
        {"alertname": "TargetDown", "job": "fraud-api", "module": "a"}, {"alertname": "SchedulerDown"},
        {"alertname": "ErrorBudgetBurnsFast", "module": "b"}, {"alertname": "LatencyBudgetBurnsFast", "module": "b"},
        {"alertname": "DiskNearlyFull", "instance": "n"},
    ]  # fmt: skip
    spared = [
        {"alertname": "NoModelServed", "module": "a"}, {"alertname": "AnswersFail", "module": "a"},
        {"alertname": "DriftCheckStale", "module": "a"}, {"alertname": "ErrorBudgetBurnsSlowly", "module": "b"},
        {"alertname": "LatencyBudgetBurnsSlowly", "module": "b"}, {"alertname": "AnswersSlow", "module": "b"},
        {"alertname": "DiskFillsUp", "instance": "n"},
    ]  # fmt: skip
    told = [
        {"alertname": "NoModelServed", "module": "b"}, {"alertname": "DriftFound", "module": "a"},
        {"alertname": "ErrorBudgetBurnsSlowly", "module": "c"}, {"alertname": "DiskFillsUp", "instance": "m"},
        {"alertname": "TargetDown", "job": "node"},
    ]  # fmt: skip
    with servers.alertmanager(tmp_path, environment(tmp_path)) as at:
        _raise(at, [*worse, *spared, *told])
        awaited(lambda: len(_held(at, True)) == len(spared), "those that follow are held back")
        assert _sorted(_held(at, True)) == _sorted(spared)
        assert _sorted(_held(at, False)) == _sorted([*worse, *told])


def _queue(name: str) -> tuple[str, str]:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def _messages(sqs: Any, url: str) -> list[dict[str, Any]]:
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages", [])
    for each in found:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    return [json.loads(each["Body"]) for each in found]


def _at_once(name: str) -> dict[str, Any]:
    """The rule of an alert, without the wait for whether it lasts."""
    files = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in (servers.CONFIGURATION / "rules").glob("*.yml")
    ]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"] if rule.get("alert") == name]
    return {"groups": [{"name": name, "rules": [rule | {"for": "0s"} for rule in rules]}]}


def _raise(at: str, alerts: Sequence[Mapping[str, str]]) -> None:
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"http://{at}/api/v2/alerts", body, headers), timeout=10) as answer:
        assert answer.status == 200


def _held(at: str, inhibited: bool) -> list[dict[str, str]]:
    found = get(f"http://{at}/api/v2/alerts")
    return [each["labels"] for each in found if bool(each["status"]["inhibitedBy"]) is inhibited]


def _sorted(alerts: Sequence[Mapping[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(each.items()) for each in alerts)
