"""python -m infra.local_aws_setup: what the stack finds on a local AWS, made where it is missing."""

import json
import os
import sys
from typing import Any

from mlops import aws
from mlops.errors import MlopsError
from mlops.journaling.journal_database import open_engine
from mlops.streaming.leases import table

STREAM, SHARDS = "fraud-transactions", 2
NAME = "mlops-alerts"
"""The topic, and the queue behind it."""
WANTED = {"name": [{"exists": True}]}
"""What the queue takes from the topic, as on AWS: what a module says, and nothing that is for people."""


def main() -> int:
    """Make a stream, a topic and a queue behind it; return 0, or 1 after one line that says what is wrong."""
    try:
        if stream():
            forget_places(os.environ["MLOPS_PLATFORM__JOURNAL"])
        topic()
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"stream {STREAM}, topic and queue {NAME} are there")
    return 0


def stream() -> bool:
    """Make the stream, and tell whether it was missing."""
    kinesis = _client("kinesis")
    with aws.translated("the local AWS", {}):
        try:
            kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        except kinesis.exceptions.ResourceInUseException:
            return False
        kinesis.get_waiter("stream_exists").wait(StreamName=STREAM)
    return True


def forget_places(journal: str) -> None:
    """Let a stream that is new be read from its beginning.

    A local AWS forgets all when it stops and then counts from 1 again, so the place that a worker kept in the stream
    before it would lie ahead of every record. On AWS a sequence number never comes again.
    """
    engine = open_engine(journal)
    with engine.begin() as connection:
        connection.execute(table.delete().where(table.c.stream == STREAM))
    engine.dispose()


def topic() -> None:
    """Make the topic, the queue, and what leads from one to the other; what is there is left."""
    sns, sqs = _client("sns"), _client("sqs")
    with aws.translated("the local AWS", {}):
        arn = sns.create_topic(Name=NAME)["TopicArn"]
        url = sqs.create_queue(QueueName=NAME)["QueueUrl"]
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        filtered = {"FilterPolicy": json.dumps(WANTED)}
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue, Attributes=filtered)


def _client(service: str) -> Any:
    return aws.client(service, "the local AWS")


if __name__ == "__main__":
    sys.exit(main())
