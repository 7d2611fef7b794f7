"""Messages to others and from them: the log (log://), topics (sns://) and queues (sqs://) of AWS."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from mlops.errors import BadConfiguration, NotFound, StorageFailed, Unreachable

PATIENCE = 2
"""Seconds to wait for a connection; an answer may take twice as long."""
TRIES = 3
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
    """Open the sink that a URL names: `log://`, `sns://TOPIC_ARN`, `sqs://QUEUE_NAME` or `sqs://QUEUE_ARN`."""
    if url == "log://":
        return Log()
    if url.startswith("sns://"):
        return Topic(url)
    if url.startswith("sqs://"):
        return Queue(url)
    raise BadConfiguration(f"'{url}' is no place for alerts; write log://, sns://TOPIC_ARN or sqs://QUEUE_NAME")


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
        self._sns = _client("sns", url, arn["region"], 2 * PATIENCE)

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
        self._sqs = _client("sqs", url, arn and arn["region"], LONGEST + 2 * PATIENCE)

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


def _arn(url: str, service: str) -> re.Match[str] | None:
    pattern = rf"arn:aws[a-z-]*:{service}:(?P<region>[a-z0-9-]+):(?P<account>\d{{12}}):(?P<name>[\w-]+)"
    return re.fullmatch(pattern, url.partition("://")[2])


def _client(service: str, url: str, region: str | None, answer_seconds: float) -> Any:
    """A client that gives up soon; between its tries it waits for a random while that grows."""
    retries = {"mode": "standard", "total_max_attempts": TRIES}
    config = Config(connect_timeout=PATIENCE, read_timeout=answer_seconds, retries=retries)  # type: ignore[arg-type]
    try:
        return boto3.client(service, region_name=region, config=config)  # type: ignore[call-overload]
    except NoRegionError:
        raise BadConfiguration(f"{url} is in no region; set AWS_DEFAULT_REGION or write the whole ARN") from None


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in GONE:
            raise NotFound(f"there is no {url}; create it or correct its name in the settings") from None
        raise StorageFailed(f"{url}: {code} {said}") from None
    except BotoCoreError as error:
        raise Unreachable(f"{url} does not answer: {error}") from None


def _attributes(letter: Letter) -> dict[str, dict[str, str]]:
    return {name: _attribute(values) for name, values in letter.attributes.items()}


def _attribute(values: Sequence[str]) -> dict[str, str]:
    # A topic's filter looks into such an array, and passes the message on where any of its values fits.
    if len(values) > 1:
        return {"DataType": "String.Array", "StringValue": msgspec.json.encode(values).decode()}
    return {"DataType": "String", "StringValue": values[0]}


def _sendable(text: str) -> str:
    return NOT_SENDABLE.sub("\N{REPLACEMENT CHARACTER}", text)
