"""The inbox: what was raised reaches a worker until it is done, by the ledger, a queue, or a topic and a queue."""

import io
import json

import boto3
import pytest

from mlops import logs
from mlops.alerting import alerts, inbox, messages
from mlops.alerting.alarms import Alarms
from mlops.alerting.alerts import Alert
from mlops.alerting.inbox import Inbox
from mlops.errors import BadConfiguration
from mlops.journaling.ledger import Ledger
from tests.mlops.alerting.test_alerts import NAME, Clock, ledger, line_of, python, queue, subscribe, topic

__all__ = ["ledger", "queue", "topic"]

HOUR = 3_600_000_000


class Way:
    """From an alarm to an inbox by one of the ways."""

    def __init__(self, ledger: Ledger, sinks: tuple[str, ...], url: str) -> None:
        self.clock, self.ledger, self.url = Clock(), ledger, url
        self.sinks = [messages.connect(sink) for sink in sinks]
        self.alarms = Alarms(ledger, NAME, self.sinks, self.clock, calm=1)
        self.inbox = self.another()

    def another(self) -> Inbox:
        return inbox.connect(self.url, self.ledger, NAME, self.clock)

    def raised(self, what: str) -> Alert:
        said = self.alarms.say("drift", what, True, "x", {"amount": 0.3}, version=3)
        assert said is not None
        assert self.alarms.deliver() == {}
        return said

    def later(self) -> None:
        """Let the time pass after which what was given and is not done is given again."""
        self.clock.at += HOUR


@pytest.fixture(params=["ledger", "queue", "topic", "raw topic"])
def way(request: pytest.FixtureRequest, ledger: Ledger, bucket: str) -> Way:
    if request.param == "ledger":
        return Way(ledger, (), "ledger://")
    boto3.client("sqs").create_queue(QueueName=bucket, Attributes={"VisibilityTimeout": "0"})
    if request.param == "queue":
        return Way(ledger, (f"sqs://{bucket}",), f"sqs://{bucket}")
    arn = boto3.client("sns").create_topic(Name=bucket)["TopicArn"]
    subscribe(arn, f"sqs://{bucket}", RawMessageDelivery=str(request.param == "raw topic").lower())
    return Way(ledger, (f"sns://{arn}",), f"sqs://{bucket}")


class TestEveryWay:
    def test_what_was_raised_is_heard_until_it_is_done_and_never_after(self, way: Way) -> None:
        assert way.inbox.receive(0) == []
        said = way.raised("amount")
        for _ in range(3):
            assert way.inbox.receive(0) == [said]
            way.later()
        way.inbox.done(said)
        assert way.inbox.receive(0) == way.another().receive(0) == []
        assert [row.entry.kind for row in way.ledger.journal.about([bytes.fromhex(said.id)])][-1] == "alert handled"

    def test_a_worker_that_died_leaves_it_to_the_next(self, way: Way) -> None:
        said = way.raised("amount")
        assert way.inbox.receive(0) == way.another().receive(0) == [said]

    def test_only_what_was_raised_is_heard(self, way: Way) -> None:
        first = way.raised("amount")
        way.inbox.done(first)
        assert way.alarms.say("drift", "amount", False, "x") is not None
        second = way.raised("amount")
        assert way.inbox.receive(0) == [second]
        assert second.episode == 2
        way.later()
        way.inbox.done(second)
        assert way.inbox.receive(0) == []

    def test_it_waits_for_the_first(self, way: Way) -> None:
        said = way.raised("amount")
        assert way.inbox.receive(5) == [said]


def test_it_waits_until_something_is_raised(ledger: Ledger, database: str) -> None:
    program = f"""
import sys
from mlops.alerting import inbox
from mlops.journaling.ledger import Ledger
opened = inbox.connect("ledger://", Ledger(sys.argv[1]), "{NAME}")
print("waits", flush=True)
print(opened.receive(60)[0].what, flush=True)
"""
    running = python(program, database)
    assert line_of(running) == "waits"
    Alarms(ledger, NAME, []).say("drift", "amount", True, "x")
    assert line_of(running) == "amount"
    running.communicate(timeout=60)


def test_the_ledger_gives_it_again_after_a_minute_and_only_to_its_module(ledger: Ledger) -> None:
    way = Way(ledger, (), "ledger://")
    said = way.raised("amount")
    Alarms(ledger, "triage", [], way.clock).say("drift", "amount", True, "x")
    assert way.inbox.receive(0) == [said]
    way.clock.at += inbox.PATIENCE - 1
    assert way.inbox.receive(0) == []
    way.clock.at += 1
    assert way.inbox.receive(0) == [said]


def test_an_alert_that_was_sent_twice_is_given_once(ledger: Ledger, queue: str) -> None:
    """Both copies at once, then one after the first is done."""
    way = Way(ledger, (queue,), queue)
    said = way.raised("amount")
    way.sinks[0].send(alerts.letter([said]))
    assert way.inbox.receive(0) == [said]
    way.inbox.done(said)
    way.sinks[0].send(alerts.letter([said]))
    assert way.inbox.receive(0) == []
    assert left(queue) == {"ApproximateNumberOfMessages": 0, "ApproximateNumberOfMessagesNotVisible": 0}


def test_a_gathered_message_stays_until_all_in_it_are_done(ledger: Ledger, queue: str) -> None:
    way = Way(ledger, (queue,), queue)
    both = [said for what in "ab" if (said := way.alarms.say("drift", what, True, "x"))]
    way.sinks[0].send(alerts.letter(both))
    assert way.inbox.receive(0) == both
    way.inbox.done(both[0])
    assert left(queue)["ApproximateNumberOfMessagesNotVisible"] == 1
    way.inbox.done(both[1])
    assert left(queue)["ApproximateNumberOfMessagesNotVisible"] == 0


BROKEN = {
    "prose": "hello",
    "no alert": '{"a": 1}',
    "a foreign notification": json.dumps({"Type": "Notification", "Message": '{"AlarmName": "cpu"}'}),
    "deep": '{"Type": "x", "other": ' + "[" * 100_000,
    "half an alert": 'line\n\n[{"name": "x"}]',
    "another module's": "",
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_told_and_left_until_it_is_redriven(
    case: str, ledger: Ledger, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given three times, as the policy says, stops nothing behind it, and ends with the dead letters."""
    sqs, written = boto3.client("sqs"), io.StringIO()
    monkeypatch.setattr(inbox, "log", logs.start("inbox of a test", written))
    dead = sqs.create_queue(QueueName=f"{bucket}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    url = sqs.create_queue(QueueName=bucket, Attributes={"VisibilityTimeout": "0", "RedrivePolicy": policy})["QueueUrl"]
    body = BROKEN[case]
    if not body:
        other = Alarms(ledger, "triage", []).say("drift", "amount", True, "x")
        assert other is not None
        body = alerts.letter([other]).text
    sqs.send_message(QueueUrl=url, MessageBody=body)
    way = Way(ledger, (f"sqs://{bucket}",), f"sqs://{bucket}")
    said = way.raised("amount")
    assert way.inbox.receive(0) == [said]
    way.inbox.done(said)
    for _ in range(5):
        assert way.inbox.receive(0) == []
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["times"] for line in lines] == [1, 2, 3]
    assert {line["message"] for line in lines} == {"a message was left in the queue"}
    assert ("this is for triage and not for" if case == "another module's" else "this is no") in lines[0]["reason"]
    assert [one["Body"] for one in sqs.receive_message(QueueUrl=dead)["Messages"]] == [body]


def test_what_the_queue_will_not_delete_is_handled_all_the_same(ledger: Ledger, queue: str) -> None:
    way = Way(ledger, (queue,), queue)
    said = way.raised("amount")
    assert way.inbox.receive(0) == [said]
    boto3.client("sqs").delete_queue(QueueUrl=queue_url(queue))
    way.inbox.done(said)
    boto3.client("sqs").create_queue(QueueName=queue.removeprefix("sqs://"))
    way.sinks[0].send(alerts.letter([said]))
    assert way.another().receive(0) == []


@pytest.mark.parametrize("url", ["", "ledger", "ledger://x", "sns://arn:aws:sns:eu-west-1:123456789012:a", "sqs://a b"])
def test_a_url_that_names_no_inbox_is_refused(ledger: Ledger, url: str) -> None:
    with pytest.raises(BadConfiguration, match="write .*sqs://"):
        inbox.connect(url, ledger, NAME)


def queue_url(queue: str) -> str:
    return boto3.client("sqs").get_queue_url(QueueName=queue.removeprefix("sqs://"))["QueueUrl"]


def left(queue: str) -> dict[str, int]:
    found = boto3.client("sqs").get_queue_attributes(
        QueueUrl=queue_url(queue),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return {name: int(number) for name, number in found.items()}
