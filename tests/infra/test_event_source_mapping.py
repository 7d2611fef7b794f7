"""The emulator does what the Lambda Developer Guide says of a mapping between a stream and a function, case by case."""

import base64
import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from tests.infra.event_source_mapping import PAYLOAD, RETENTION, Context, EventSourceMapping, Function, Options

REPORTS = Options(report_batch_item_failures=True)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


def filled(function: Function, options: Options, count: int = 10, **more: Any) -> tuple[EventSourceMapping, list[str]]:
    """A mapping with one shard in which some records wait; their data is their place."""
    mapping = EventSourceMapping(function, options, **more)
    return mapping, [mapping.put(b"%d" % place) for place in range(count)]


def fails(_: Any, __: Context) -> Any:
    raise RuntimeError("this function fails")


def fails_at(*places: int) -> Function:
    """A function that fails as a whole where one of these records is in its batch."""

    def function(event: Any, _: Context) -> Any:
        if {base64.b64decode(one["kinesis"]["data"]) for one in event["Records"]} & {b"%d" % one for one in places}:
            raise RuntimeError("there is a bad record in it")

    return function


def reports(*places: int) -> Function:
    """A function that reports these records, in this order, where they are in its batch."""

    def function(event: Any, _: Context) -> Any:
        found = {base64.b64decode(one["kinesis"]["data"]): one["kinesis"]["sequenceNumber"] for one in event["Records"]}
        wanted = [b"%d" % place for place in places]
        return {"batchItemFailures": [{"itemIdentifier": found[one]} for one in wanted if one in found]}

    return function


def in_turn(*functions: Function) -> Function:
    """A function that is another one at each call."""
    turns = iter(functions)

    def function(event: Any, context: Context) -> Any:
        return next(turns)(event, context)

    return function


def places(mapping: EventSourceMapping, sequences: list[str]) -> list[list[int]]:
    """Which records each invocation got."""
    return [[sequences.index(one) for one in batch] for batch in mapping.invocations]


def says(response: Any) -> Function:
    return lambda _, __: response


class TestWhatTheFunctionGets:
    def test_an_event_is_as_aws_sends_it(self) -> None:
        seen: list[Any] = []
        mapping = EventSourceMapping(lambda event, _: seen.append(event), Options(), "payments", clock=Clock())
        sequence = mapping.put(b"\xff{}", key="card 7")
        assert mapping.run()
        (record,) = seen[0]["Records"]
        assert record == {
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "card 7", "sequenceNumber": sequence,
                "data": base64.b64encode(b"\xff{}").decode(), "approximateArrivalTimestamp": 1_700_000_000.0,
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": f"shardId-000000000000:{sequence}",
            "eventName": "aws:kinesis:record", "invokeIdentityArn": "arn:aws:iam::123456789012:role/decide",
            "awsRegion": "us-east-1", "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/payments",
        }  # fmt: skip
        assert len(sequence) == 56

    def test_batches_keep_the_order_and_have_at_most_the_batch_size(self) -> None:
        mapping, sequences = filled(says(None), Options(batch_size=4))
        assert mapping.run()
        assert places(mapping, sequences) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert mapping.shards[0].checkpoint == sequences[-1]

    def test_the_batch_size_is_100_unless_said_otherwise(self) -> None:
        mapping, _ = filled(says(None), Options(), 250)
        assert mapping.run()
        assert [len(batch) for batch in mapping.invocations] == [100, 100, 50]

    def test_an_event_has_at_most_six_megabytes(self) -> None:
        sizes: list[int] = []
        mapping = EventSourceMapping(lambda event, _: sizes.append(len(json.dumps(event))), Options())
        for _ in range(12):
            mapping.put(b"x" * 1_048_576)
        assert mapping.run()
        assert [len(batch) for batch in mapping.invocations] == [4, 4, 4]
        assert max(sizes) < PAYLOAD

    def test_a_function_can_ask_how_much_time_it_has(self) -> None:
        clock, seen = Clock(), []

        def function(_: Any, context: Context) -> None:
            seen.append(context.get_remaining_time_in_millis())
            clock.at += 2.5
            seen.append(context.get_remaining_time_in_millis())

        mapping, _ = filled(function, Options(timeout=10), clock=clock)
        assert mapping.run()
        assert seen == [10_000, 7_500]

    def test_shards_are_read_beside_each_other_and_do_not_wait(self) -> None:
        def function(event: Any, context: Context) -> Any:
            if event["Records"][0]["eventID"].startswith("shardId-000000000000"):
                raise RuntimeError("only this shard fails")

        mapping = EventSourceMapping(function, Options(batch_size=2), shards=3)
        put = [[mapping.put(b"", shard) for _ in range(6)] for shard in range(3)]
        assert not mapping.run(10)
        assert [shard.checkpoint for shard in mapping.shards] == ["", put[1][-1], put[2][-1]]


class TestWholeBatches:
    def test_an_error_of_the_function_fails_the_whole_batch_and_it_is_tried_again(self) -> None:
        tried: list[int] = []

        def function(event: Any, _: Context) -> None:
            tried.append(len(event["Records"]))
            if len(tried) < 4:
                raise RuntimeError("not yet")

        mapping, sequences = filled(function, REPORTS)
        assert mapping.run()
        assert tried == [10, 10, 10, 10]
        assert mapping.shards[0].checkpoint == sequences[-1]

    def test_a_time_out_fails_the_whole_batch_whatever_the_function_would_have_said(self) -> None:
        clock = Clock()

        def function(_: Any, context: Context) -> Any:
            clock.at += 31 if len(mapping.invocations) == 1 else 29
            return {"batchItemFailures": []}

        mapping, _ = filled(function, REPORTS, clock=clock)
        assert mapping.run()
        assert [len(batch) for batch in mapping.invocations] == [10, 10]

    def test_an_answer_that_is_no_json_is_an_error_of_the_function(self) -> None:
        mapping, _ = filled(says({1, 2}), Options())
        assert not mapping.run(5)
        assert mapping.shards[0].checkpoint == ""

    def test_without_report_batch_item_failures_an_answer_counts_for_nothing(self) -> None:
        mapping, sequences = filled(reports(3), Options())
        assert mapping.run()
        assert len(mapping.invocations) == 1
        assert mapping.shards[0].checkpoint == sequences[-1]


class TestPartialBatchResponse:
    @pytest.mark.parametrize(
        "response",
        [{"batchItemFailures": []}, {"batchItemFailures": None}, {}, None],
        ids=["an empty list", "a null list", "an empty answer", "a null answer"],
    )
    def test_the_whole_batch_succeeded(self, response: Any) -> None:
        mapping, sequences = filled(says(response), REPORTS)
        assert mapping.run()
        assert len(mapping.invocations) == 1
        assert mapping.shards[0].checkpoint == sequences[-1]

    @pytest.mark.parametrize(
        "item",
        [{"itemIdentifier": ""}, {"itemIdentifier": None}, {"itemidentifier": "FIRST"}, {}, {"itemIdentifier": "1"}],
        ids=["an empty identifier", "a null identifier", "a bad key name", "no key", "none of the batch"],
    )
    def test_the_whole_batch_failed(self, item: dict[str, Any]) -> None:
        mapping, sequences = filled(says(None), REPORTS)
        named = {name: sequences[5] if value == "FIRST" else value for name, value in item.items()}
        mapping._function = says({"batchItemFailures": [{"itemIdentifier": sequences[7]}, named]})
        assert not mapping.run(3)
        assert places(mapping, sequences) == [[*range(10)]] * 3
        assert mapping.shards[0].checkpoint == ""

    def test_records_before_the_reported_one_are_done_and_it_goes_on_from_there(self) -> None:
        mapping, sequences = filled(in_turn(reports(4), reports(7), reports()), REPORTS)
        mapping.step()
        assert mapping.shards[0].checkpoint == sequences[3]
        assert mapping.run()
        assert places(mapping, sequences) == [[*range(10)], [*range(4, 10)], [*range(7, 10)]]

    def test_of_several_the_lowest_sequence_number_is_the_checkpoint(self) -> None:
        mapping, sequences = filled(in_turn(reports(8, 3, 5), reports()), REPORTS)
        assert mapping.run()
        assert places(mapping, sequences) == [[*range(10)], [*range(3, 10)]]

    def test_new_records_wait_behind_those_that_are_tried_again(self) -> None:
        mapping, sequences = filled(in_turn(reports(2), reports(), reports()), REPORTS, 3)
        mapping.step()
        sequences += [mapping.put(b"late")]
        assert mapping.run()
        assert places(mapping, sequences) == [[0, 1, 2], [2], [3]]


class TestBisecting:
    def test_a_failed_batch_is_split_in_two_until_the_bad_record_is_alone(self) -> None:
        options = Options(bisect_batch_on_function_error=True, maximum_retry_attempts=1)
        mapping, sequences = filled(fails_at(5), options, 8)
        assert mapping.run()
        assert places(mapping, sequences) == [
            [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [5], [6, 7],
        ]  # fmt: skip

    def test_splitting_does_not_count_towards_the_retries(self) -> None:
        options = Options(bisect_batch_on_function_error=True, maximum_retry_attempts=0)
        mapping, sequences = filled(fails_at(0, 6), options, 8)
        assert mapping.run()
        assert [batch for batch in places(mapping, sequences) if len(batch) == 1] == [[0], [1], [6], [7]]
        assert mapping.shards[0].checkpoint == sequences[-1]

    def test_a_failed_batch_is_split_whether_or_not_failures_are_reported(self) -> None:
        options = Options(
            bisect_batch_on_function_error=True, report_batch_item_failures=True, maximum_retry_attempts=0
        )
        mapping, sequences = filled(fails_at(1), options, 4)
        assert mapping.run()
        assert places(mapping, sequences) == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3]]

    def test_a_partial_success_splits_at_the_returned_sequence_number(self) -> None:
        """The records before it are done; only the remaining ones are tried again, and no retry is used up."""
        options = Options(
            bisect_batch_on_function_error=True, report_batch_item_failures=True, maximum_retry_attempts=0
        )
        mapping, sequences = filled(in_turn(reports(4), reports(6), reports()), options)
        assert mapping.run()
        assert places(mapping, sequences) == [[*range(10)], [*range(4, 10)], [*range(6, 10)]]
        assert mapping.shards[0].checkpoint == sequences[-1]


class TestLimits:
    def test_by_default_a_failure_is_tried_again_until_its_records_expire(self) -> None:
        clock = Clock()
        mapping, sequences = filled(fails, Options(), clock=clock)
        assert not mapping.run(200)
        clock.at += RETENTION - 1
        assert not mapping.run(1)
        assert places(mapping, sequences) == [[*range(10)]] * 201
        clock.at += 2
        mapping._function = says(None)
        sequences += [mapping.put(b"new")]
        assert mapping.run()
        assert places(mapping, sequences)[201:] == [[10]]

    @pytest.mark.parametrize("most", [0, 1, 3])
    def test_retries_are_those_after_the_first_try_and_then_the_shard_goes_on(self, most: int) -> None:
        mapping, sequences = filled(fails_at(1), Options(batch_size=2, maximum_retry_attempts=most), 4)
        assert mapping.run()
        assert places(mapping, sequences) == [[0, 1]] * (1 + most) + [[2, 3]]

    def test_reported_failures_follow_the_retry_strategy_too(self) -> None:
        options = Options(batch_size=4, report_batch_item_failures=True, maximum_retry_attempts=2)
        mapping, sequences = filled(reports(2), options, 6)
        assert mapping.run()
        assert places(mapping, sequences) == [[0, 1, 2, 3], [2, 3], [2, 3], [4, 5]]

    def test_a_record_that_is_too_old_is_not_sent(self) -> None:
        clock = Clock()
        mapping, sequences = filled(says(None), Options(maximum_record_age_in_seconds=60), 2, clock=clock)
        clock.at += 40
        sequences += [mapping.put(b"younger")]
        clock.at += 21
        assert mapping.run()
        assert places(mapping, sequences) == [[2]]

    def test_a_failure_is_tried_again_until_its_records_are_too_old(self) -> None:
        clock = Clock()

        def function(_: Any, __: Context) -> None:
            clock.at += 20
            raise RuntimeError("it takes its time and fails")

        mapping, _ = filled(function, Options(maximum_record_age_in_seconds=60), clock=clock)
        assert mapping.run()
        assert len(mapping.invocations) == 4


class TestDestinations:
    @pytest.fixture
    def queue(self, bucket: str) -> Callable[[], list[Any]]:
        """What lies in a queue that is named like the bucket."""
        sqs = boto3.client("sqs")
        url = sqs.create_queue(QueueName=bucket)["QueueUrl"]

        def taken() -> list[Any]:
            received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
            return [json.loads(one["Body"]) for one in received]

        return taken

    def test_a_queue_is_told_where_discarded_records_were_and_not_what_they_held(
        self, bucket: str, queue: Callable[[], list[Any]]
    ) -> None:
        arn = f"arn:aws:sqs:us-east-1:123456789012:{bucket}"
        mapping, sequences = filled(fails, Options(maximum_retry_attempts=2, on_failure=arn), clock=Clock())
        assert mapping.run()
        (said,) = queue()
        assert said["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert said["requestContext"]["approximateInvokeCount"] == 3
        assert said["responseContext"]["functionError"] == "Unhandled"
        assert said["KinesisBatchInfo"] == {
            "shardId": "shardId-000000000000", "startSequenceNumber": sequences[0],
            "endSequenceNumber": sequences[-1], "approximateArrivalOfFirstRecord": "2023-11-14T22:13:20.000Z",
            "approximateArrivalOfLastRecord": "2023-11-14T22:13:20.000Z", "batchSize": 10,
            "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/transactions",
        }  # fmt: skip
        assert set(said) == {"requestContext", "responseContext", "version", "timestamp", "KinesisBatchInfo"}

    def test_a_topic_is_told_the_same(self, bucket: str, queue: Callable[[], list[Any]]) -> None:
        sns, clock = boto3.client("sns"), Clock()
        arn = sns.create_topic(Name=bucket)["TopicArn"]
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:123456789012:{bucket}")
        mapping, _ = filled(fails, Options(maximum_record_age_in_seconds=60, on_failure=arn), clock=clock)
        clock.at += 61
        assert mapping.run()
        (said,) = [json.loads(one["Message"]) for one in queue()]
        assert said["requestContext"]["condition"] == "RecordAgeExceeded"
        assert said["requestContext"]["approximateInvokeCount"] == 0
        assert said["KinesisBatchInfo"]["batchSize"] == 10
        assert "payload" not in said

    def test_a_bucket_gets_the_whole_event_too(self, bucket: str) -> None:
        options = Options(
            report_batch_item_failures=True, maximum_retry_attempts=1, on_failure=f"arn:aws:s3:::{bucket}"
        )
        mapping, sequences = filled(reports(6), options, clock=Clock())
        assert mapping.run()
        s3 = boto3.client("s3")
        (key,) = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert "/shardId-000000000000/2023/11/14/2023-11-14T22.13.20-" in key
        assert key.startswith("aws/lambda/")
        said = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        records = json.loads(said["payload"])["Records"]
        assert [one["kinesis"]["sequenceNumber"] for one in records] == sequences[6:]
        assert [base64.b64decode(one["kinesis"]["data"]) for one in records] == [b"6", b"7", b"8", b"9"]

    def test_without_a_destination_discarded_records_are_gone_without_a_word(self, bucket: str) -> None:
        mapping, sequences = filled(fails, Options(maximum_retry_attempts=0))
        assert mapping.run()
        assert mapping.shards[0].checkpoint == sequences[-1]
        assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=bucket)
