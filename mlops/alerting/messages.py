"""Messages to others and from them: the log (log://); AWS's topics (sns://), queues (sqs://), metrics (cloudwatch://)."""

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from mlops import aws
from mlops.errors import BadConfiguration

LONGEST = 20
"""Seconds for which a queue lets a question wait."""
AT_ONCE = 10
"""Messages that a queue gives at once."""
SUBJECT = 100
"""Characters of the longest subject that a topic takes."""
GONE = ("NotFound", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
NOT_SENDABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

log = logging.getLogger("alerts")


class Letter(NamedTuple):
    """A message: a line for people, JSON for machines, and attributes with one or more values, to filter by."""

    line: str
    json: str
    attributes: Mapping[str, Sequence[str]]

    @property
    def text(self) -> str:
        """All of it: the line, an empty line, the JSON."""
        return f"{self.line}\n\n{self.json}"


class Sink(Protocol):
    """A place for messages, named by its URL."""

    @property
    def url(self) -> str:
        """The name of this place in the settings and in the ledger."""

    def send(self, letter: Letter) -> None:
        """Hand a letter over; when this returns the other side has it. Raises `NotFound` or `StorageFailed`."""


class Received(NamedTuple):
    """A message from a queue: `receipt` is what deleting it takes, `times` how often it was given to anybody."""

    id: str
    body: str
    receipt: str
    times: int


def connect(url: str) -> Sink:
    """Open the sink of a URL: log://, sns://TOPIC_ARN, sqs://QUEUE_NAME, sqs://QUEUE_ARN or cloudwatch://NAMESPACE."""
    if url == "log://":
        return Log()
    if url.startswith("sns://"):
        return Topic(url)
    if url.startswith("sqs://"):
        return Queue(url)
    if url.startswith("cloudwatch://"):
        return Metric(url)
    known = "log://, sns://TOPIC_ARN, sqs://QUEUE_NAME or cloudwatch://NAMESPACE"
    raise BadConfiguration(f"'{url}' is no place for alerts; write {known}")


class Log:
    """The log of this process."""

    url = "log://"

    def send(self, letter: Letter) -> None:
        log.warning(letter.line, extra={"alerts": msgspec.json.decode(letter.json)})


class Topic:
    """A topic of SNS."""

    def __init__(self, url: str) -> None:
        arn = _arn(url, "sns")
        if arn is None:
            raise BadConfiguration(f"'{url}' names no topic; write sns://arn:aws:sns:REGION:ACCOUNT:NAME")
        self.url, self._arn = url, arn[0]
        self._sns = aws.client("sns", url, arn["region"])

    def send(self, letter: Letter) -> None:
        # Topics take plain ASCII in a subject and refuse all else; the text says it in full.
        subject = letter.line.encode("ascii", "replace").decode()[:SUBJECT]
        with _translated(self.url):
            self._sns.publish(
                TopicArn=self._arn,
                Subject=subject,
                Message=_sendable(letter.text),
                MessageAttributes=_attributes(letter),
            )


class Queue:
    """A queue of SQS."""

    def __init__(self, url: str) -> None:
        arn = _arn(url, "sqs")
        name = url.removeprefix("sqs://")
        if arn is None and not re.fullmatch(r"[\w-]{1,80}", name):
            raise BadConfiguration(f"'{url}' names no queue; write sqs://NAME or sqs://arn:aws:sqs:REGION:ACCOUNT:NAME")
        self.url = url
        self._which = (
            {"QueueName": arn["name"], "QueueOwnerAWSAccountId": arn["account"]} if arn else {"QueueName": name}
        )
        # One who waits for messages must not take the wait for a failure.
        self._sqs = aws.client("sqs", url, arn and arn["region"], answer=LONGEST + 2 * aws.PATIENCE)

    def send(self, letter: Letter) -> None:
        with _translated(self.url):
            self._sqs.send_message(
                QueueUrl=self._address, MessageBody=_sendable(letter.text), MessageAttributes=_attributes(letter)
            )

    def receive(self, wait_seconds: float) -> list[Received]:
        """Wait until there are messages, for at most 20 seconds, and take up to ten of them."""
        with _translated(self.url):
            answer = self._sqs.receive_message(
                QueueUrl=self._address,
                MaxNumberOfMessages=AT_ONCE,
                WaitTimeSeconds=max(0, min(int(wait_seconds), LONGEST)),
                AttributeNames=["ApproximateReceiveCount"],
            )
        return [
            Received(
                one["MessageId"], one["Body"], one["ReceiptHandle"], int(one["Attributes"]["ApproximateReceiveCount"])
            )
            for one in answer.get("Messages", [])
        ]

    def delete(self, receipt: str) -> None:
        """Take a message that was received out of the queue."""
        with _translated(self.url):
            self._sqs.delete_message(QueueUrl=self._address, ReceiptHandle=receipt)

    @cached_property
    def _address(self) -> str:
        return str(self._sqs.get_queue_url(**self._which)["QueueUrl"])


class Told(msgspec.Struct, frozen=True):
    """What a metric needs of an alert."""

    name: str
    kind: str
    what: str
    state: Literal["raised", "cleared"]


read_told = msgspec.json.Decoder(list[Told]).decode


class Metric:
    """The metric `alerts` in a namespace of CloudWatch, by module and kind: 1 when one is raised, 0 when it is cleared.

    A value bears the time at which it is told, because alarms look at the latest minutes only. It speaks of the letter:
    of two things of one kind that were raised by two letters, the first that is cleared puts 0.
    """

    def __init__(self, url: str) -> None:
        self.url, self._namespace = url, url.removeprefix("cloudwatch://")
        if not re.fullmatch(r"(?!AWS/)[\w.#/-][\w.#/:-]{0,254}", self._namespace, re.ASCII):
            raise BadConfiguration(f"'{url}' names no namespace; write cloudwatch://NAMESPACE, such as mlops")
        self._cloudwatch = aws.client("cloudwatch", url)

    def send(self, letter: Letter) -> None:
        latest = {(one.name, one.kind, one.what): one.state == "raised" for one in read_told(letter.json)}
        values: dict[tuple[str, str], bool] = {}
        for (name, kind, _), raised in latest.items():
            values[name, kind] = values.get((name, kind), False) or raised
        data = [_value(name, kind, raised) for (name, kind), raised in values.items()]
        with _translated(self.url):
            self._cloudwatch.put_metric_data(Namespace=self._namespace, MetricData=data)


def _value(name: str, kind: str, raised: bool) -> dict[str, Any]:
    # What is no plain ASCII would be refused.
    dimensions = {"module": name, "kind": kind.encode("ascii", "replace").decode()}
    return {
        "MetricName": "alerts",
        "Dimensions": [{"Name": dimension, "Value": value} for dimension, value in dimensions.items()],
        "Value": float(raised),
        "Unit": "Count",
    }


def _arn(url: str, service: str) -> re.Match[str] | None:
    pattern = rf"arn:aws[a-z-]*:{service}:(?P<region>[a-z0-9-]+):(?P<account>\d{{12}}):(?P<name>[\w-]+)"
    return re.fullmatch(pattern, url.partition("://")[2])


def _translated(url: str) -> contextlib.AbstractContextManager[None]:
    return aws.translated(url, dict.fromkeys(GONE, f"there is no {url}; create it or correct its name in the settings"))


def _attributes(letter: Letter) -> dict[str, dict[str, str]]:
    return {name: _attribute(values) for name, values in letter.attributes.items()}


def _attribute(values: Sequence[str]) -> dict[str, str]:
    # A topic's filter looks into such an array, and passes the message on where any of its values fits.
    if len(values) > 1:
        return {"DataType": "String.Array", "StringValue": msgspec.json.encode(values).decode()}
    return {"DataType": "String", "StringValue": values[0]}


def _sendable(text: str) -> str:
    return NOT_SENDABLE.sub("\N{REPLACEMENT CHARACTER}", text)
