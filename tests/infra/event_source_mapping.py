"""AWS's event-source mapping between a Kinesis stream and a function, as the Lambda Developer Guide describes it.

What the guide leaves open is decided here against the function: a partial success uses up a retry unless the batch is
bisected; a report of a batch's very first record is a failure of the whole batch; a function that took longer than its
time-out was killed, whatever it did or said. Between two tries AWS waits, longer each time; here nothing waits.
"""

import base64
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import boto3

PAYLOAD = 6 * 1024 * 1024
RETENTION = 86_400
FIRST = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:decide"
WHOLE, ERROR = 0, "Unhandled"


class Context:
    """What a function can ask about its own invocation."""

    def __init__(self, end: float, clock: Callable[[], float]) -> None:
        self._end, self._clock = end, clock
        self.aws_request_id, self.invoked_function_arn = str(uuid.uuid4()), FUNCTION

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round(1_000 * (self._end - self._clock())))


Function = Callable[[Any, Context], Any]


@dataclass(frozen=True)
class Options:
    """The parameters of a mapping, by AWS's names and with its defaults; and the function's own time-out in seconds."""

    batch_size: int = 100
    bisect_batch_on_function_error: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_in_seconds: int = -1
    report_batch_item_failures: bool = False
    on_failure: str | None = None
    timeout: float = 30


class Record(NamedTuple):
    """A record in a shard; `arrived` in seconds since 1970."""

    shard: str
    sequence: str
    key: str
    data: bytes
    arrived: float


class Batch(NamedTuple):
    """Records that go to the function together, how often that was tried again, and how often it was tried at all."""

    records: Sequence[Record]
    retries: int = 0
    invoked: int = 0


@dataclass
class Shard:
    """A shard: what is not in a batch yet, the batches that wait, and the last record that is behind us."""

    name: str
    unread: deque[Record] = field(default_factory=deque)
    waiting: deque[Batch] = field(default_factory=deque)
    checkpoint: str = ""

    def read(self, most: int) -> None:
        """Make a batch of what comes next, of at most so many records and as many bytes as an event may have."""
        records: list[Record] = []
        size = 0
        while self.unread and len(records) < most:
            size += len(json.dumps(_entry(self.unread[0], "")))
            if records and size > PAYLOAD:
                break
            records.append(self.unread.popleft())
        if records:
            self.waiting.append(Batch(records))


class EventSourceMapping:
    """Feeds a function from a stream: each shard in order, one batch of it at a time, and no shard waits on another."""

    def __init__(
        self, function: Function, options: Options, stream: str = "transactions", shards: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._function, self._options, self._clock = function, options, clock
        self._arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}"
        self._id = str(uuid.uuid4())
        self.shards = [Shard(f"shardId-{number:012}") for number in range(shards)]
        self.invocations: list[list[str]] = []
        self._put = 0

    def put(self, data: bytes, shard: int = 0, key: str = "1") -> str:
        """Put a record into the stream; return its sequence number."""
        self._put += 1
        record = Record(self.shards[shard].name, str(FIRST + self._put), key, data, self._clock())
        self.shards[shard].unread.append(record)
        return record.sequence

    def run(self, most: int = 100) -> bool:
        """Let every shard go on in turn until all is behind them or `most` rounds are over; tell whether all is."""
        return any(sum(self.step(number) for number in range(len(self.shards))) == 0 for _ in range(most))

    def step(self, number: int = 0) -> bool:
        """Invoke the function once for a shard, or discard what is too old; tell whether there was anything to do."""
        shard = self.shards[number]
        self._expire(shard)
        if not shard.waiting:
            shard.read(self._options.batch_size)
        if not shard.waiting:
            return False
        batch = shard.waiting.popleft()
        old = sum(self._is_too_old(record) for record in batch.records)
        if old:
            self._discard(shard, batch._replace(records=batch.records[:old]), "RecordAgeExceeded", None)
            self._wait(shard, [batch._replace(records=batch.records[old:])])
        else:
            self._go(shard, batch)
        return True

    def _go(self, shard: Shard, batch: Batch) -> None:
        done, error = self._invoke(batch)
        if done:
            shard.checkpoint = batch.records[done - 1].sequence
        rest = batch._replace(records=batch.records[done:], invoked=batch.invoked + 1)
        if self._options.bisect_batch_on_function_error and (done or len(rest.records) > 1):
            # Splitting uses up no retry.
            cut = 0 if done else len(rest.records) // 2
            self._wait(shard, [rest._replace(records=rest.records[:cut]), rest._replace(records=rest.records[cut:])])
        elif rest.records and rest.retries == self._options.maximum_retry_attempts:
            self._discard(shard, rest, "RetryAttemptsExhausted", error)
        else:
            self._wait(shard, [rest._replace(retries=rest.retries + 1)])

    def _wait(self, shard: Shard, batches: Sequence[Batch]) -> None:
        shard.waiting.extendleft(batch for batch in reversed(batches) if batch.records)

    def _invoke(self, batch: Batch) -> tuple[int, str | None]:
        """Return how many records, from the first on, are done; and the function's error if it had one."""
        self.invocations.append([record.sequence for record in batch.records])
        end = self._clock() + self._options.timeout
        try:
            response = json.loads(json.dumps(self._function(self._event(batch), Context(end, self._clock))))
        except Exception:
            return WHOLE, ERROR
        if self._clock() > end:
            return WHOLE, ERROR
        reads = self._options.report_batch_item_failures
        return _done(response if reads else None, self.invocations[-1]), None

    def _event(self, batch: Batch) -> Any:
        return json.loads(json.dumps({"Records": [_entry(record, self._arn) for record in batch.records]}))

    def _expire(self, shard: Shard) -> None:
        """The stream itself forgets what it has kept for its time, and tells nobody."""
        since = self._clock() - RETENTION
        batches = [
            batch._replace(records=[one for one in batch.records if one.arrived >= since]) for batch in shard.waiting
        ]
        shard.waiting = deque(batch for batch in batches if batch.records)
        while shard.unread and shard.unread[0].arrived < since:
            shard.unread.popleft()

    def _is_too_old(self, record: Record) -> bool:
        most = self._options.maximum_record_age_in_seconds
        return most != -1 and self._clock() - record.arrived > most

    def _discard(self, shard: Shard, batch: Batch, condition: str, error: str | None) -> None:
        shard.checkpoint = batch.records[-1].sequence
        if self._options.on_failure is None:
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        first, last = batch.records[0], batch.records[-1]
        said: dict[str, Any] = {
            "requestContext": {
                "requestId": str(uuid.uuid4()), "functionArn": FUNCTION, "condition": condition,
                "approximateInvokeCount": batch.invoked,
            },
            "responseContext": {
                "statusCode": 200, "executedVersion": "$LATEST", **({"functionError": error} if error else {}),
            },
            "version": "1.0",
            "timestamp": _time(now.timestamp()),
            "KinesisBatchInfo": {
                "shardId": shard.name, "startSequenceNumber": first.sequence, "endSequenceNumber": last.sequence,
                "approximateArrivalOfFirstRecord": _time(first.arrived),
                "approximateArrivalOfLastRecord": _time(last.arrived),
                "batchSize": len(batch.records), "streamArn": self._arn,
            },
        }  # fmt: skip
        self._tell(self._options.on_failure, said, batch, f"{self._id}/{shard.name}/{now:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}")

    def _tell(self, arn: str, said: dict[str, Any], batch: Batch, name: str) -> None:
        """Send an invocation record to its destination; only a bucket gets the records themselves."""
        service, place = arn.split(":")[2], arn.split(":")[5]
        if service == "sqs":
            queues = boto3.client("sqs")
            queues.send_message(
                QueueUrl=queues.get_queue_url(QueueName=place)["QueueUrl"], MessageBody=json.dumps(said)
            )
        elif service == "sns":
            boto3.client("sns").publish(TopicArn=arn, Message=json.dumps(said))
        else:
            body = json.dumps({**said, "payload": json.dumps(self._event(batch))}).encode()
            boto3.client("s3").put_object(Bucket=place, Key=f"aws/lambda/{name}-{uuid.uuid4()}", Body=body)


def _entry(record: Record, arn: str) -> dict[str, Any]:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": record.key, "sequenceNumber": record.sequence,
            "data": base64.b64encode(record.data).decode(), "approximateArrivalTimestamp": round(record.arrived, 3),
        },
        "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": f"{record.shard}:{record.sequence}",
        "eventName": "aws:kinesis:record", "invokeIdentityArn": "arn:aws:iam::123456789012:role/decide",
        "awsRegion": "us-east-1", "eventSourceARN": arn,
    }  # fmt: skip


def _done(response: Any, sequences: Sequence[str]) -> int:
    """How many records are done by a function's response."""
    failures = response and response.get("batchItemFailures")
    if not failures:
        return len(sequences)
    reported = [failure.get("itemIdentifier") for failure in failures]
    return sequences.index(min(reported, key=int)) if set(reported) <= set(sequences) else WHOLE


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
