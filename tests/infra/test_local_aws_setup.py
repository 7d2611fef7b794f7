"""What the stack finds on a local AWS: made once, and read from the beginning after it was lost."""

import contextlib
import uuid
from pathlib import Path

import boto3
import pytest

from infra import local_aws_setup
from infra.local_aws_setup import NAME, STREAM
from mlops import aws
from mlops.alerting import messages
from mlops.alerting.alerts import Alert, letter
from mlops.streaming.leases import Leases
from mlops.streaming.records import Shard

ALERT = Alert("fraud_detection", "drift", "data", "raised", "it moved", {}, "", 1, 1, "0" * 32, 0)


@pytest.fixture
def journal(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A journal's URL, with nothing of ours on the local AWS, and more streams of others than one answer lists."""
    url = f"sqlite:///{tmp_path}/journal.db"
    monkeypatch.setenv("MLOPS_PLATFORM__JOURNAL", url)
    lost()
    kinesis = boto3.client("kinesis")
    while not kinesis.list_streams()["HasMoreStreams"]:
        kinesis.create_stream(StreamName=f"another-{uuid.uuid4().hex}", ShardCount=1)
    return url


def lost() -> None:
    kinesis, sns, sqs = boto3.client("kinesis"), boto3.client("sns"), boto3.client("sqs")
    with contextlib.suppress(kinesis.exceptions.ResourceNotFoundException):
        kinesis.delete_stream(StreamName=STREAM)
    sns.delete_topic(TopicArn=topic())
    for url in sqs.list_queues(QueueNamePrefix=NAME).get("QueueUrls", []):
        sqs.delete_queue(QueueUrl=url)


def topic() -> str:
    """The address of the topic, as who makes it is told, be it there or not."""
    return str(boto3.client("sns").create_topic(Name=NAME)["TopicArn"])


def positions(url: str, stream: str = STREAM) -> list[str | None]:
    leases = Leases(url, stream, 30)
    leases.take()
    found = [lease.position for lease in leases.held()]
    leases.release()
    leases.close()
    return found


def read_to(url: str, stream: str, position: str) -> None:
    """Let a worker read a shard so far."""
    leases = Leases(url, stream, 30)
    leases.know([Shard("shard", (), False)], None)
    leases.take()
    assert leases.keep("shard", position)
    leases.release()
    leases.close()


def test_a_stream_a_topic_and_a_queue_behind_it_are_made_once(journal: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert local_aws_setup.main() == local_aws_setup.main() == 0
    assert capsys.readouterr().out.splitlines() == [f"stream {STREAM}, topic and queue {NAME} are there"] * 2
    assert len(boto3.client("kinesis").list_shards(StreamName=STREAM)["Shards"]) == local_aws_setup.SHARDS
    assert len(boto3.client("sns").list_subscriptions_by_topic(TopicArn=topic())["Subscriptions"]) == 1


def test_the_queue_hears_the_platform_and_not_what_is_said_to_people(journal: str) -> None:
    local_aws_setup.main()
    boto3.client("sns").publish(TopicArn=topic(), Subject="FIRING", Message="to people")
    messages.connect(f"sns://{topic()}").send(letter([ALERT]))
    url = boto3.client("sqs").get_queue_url(QueueName=NAME)["QueueUrl"]
    found = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert len(found) == 1
    assert "it moved" in found[0]["Body"]


def test_a_stream_that_is_new_is_read_from_its_beginning_and_one_that_is_there_goes_on(journal: str) -> None:
    read_to(journal, STREAM, "77")
    read_to(journal, "another", "5")
    local_aws_setup.main()
    assert positions(journal) == []
    assert positions(journal, "another") == ["5"]
    read_to(journal, STREAM, "3")
    local_aws_setup.main()
    assert positions(journal) == ["3"]


def test_where_no_aws_answers_it_is_one_line(
    journal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(aws, "TRIES", 1)
    assert local_aws_setup.main() == 1
    assert capsys.readouterr().err.startswith("error: the local AWS does not answer")
