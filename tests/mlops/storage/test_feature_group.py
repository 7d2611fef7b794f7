"""A feature group: what is put comes back with its types, as it was known at any moment; what is wrong is named."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import boto3
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlops.errors import BadConfiguration, BadData, Damaged, NotFound, StorageFailed, Unreachable
from mlops.storage import feature_group
from mlops.storage.feature_group import FeatureGroup, typed
from tests.between import Answer, Asked, Between, Deed, Forward
from tests.feature_store_runtime import Refusal, Runtime

ROLE = "arn:aws:iam::123456789012:role/feature-store"
START = datetime(2025, 3, 1, 12, 30, 0, 123457)
TABLE = pl.DataFrame(
    {
        "id": ["a", "b", "c"],
        "at": [START, START + timedelta(hours=1), START - timedelta(days=20_000, microseconds=1)],
        "small": pl.Series([1, None, -3], dtype=pl.Int8),
        "big": [2**62 + 1, -(2**62), None],
        "fraction": [0.1 + 0.2, None, -1e-300],
        "single": pl.Series([0.1, None, 3e38], dtype=pl.Float32),
        "known": [START + timedelta(days=7), None, START],
        "day": [date(2025, 3, 1), None, date(1969, 12, 31)],
        "yes": [True, False, None],
        "word": ['ü, "x"\n', None, "0"],
        "sort": pl.Series(["x", None, "y"], dtype=pl.Categorical),
    }
)


@pytest.fixture
def group(runtime: Runtime, bucket: str) -> FeatureGroup:
    made = FeatureGroup(bucket)
    make(made, bucket)
    return made


@pytest.fixture
def between(aws: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """A door that all requests about groups pass, and those for records do not."""
    with Between(aws).open() as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", door.url)
        yield door


def make(group: FeatureGroup, bucket: str, **types: Any) -> None:
    group.create({**TABLE.schema, **types}, "id", "at", f"s3://{bucket}/some/prefix", ROLE)


def read(group: FeatureGroup, as_of: datetime | None = None) -> pl.DataFrame:
    return typed(group.rows(as_of), TABLE.schema)


def saying(change: dict[str, Any], status: int = 200) -> Deed:
    """Let moto answer, and change what it says."""

    def deed(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked) if status == 200 else Answer(status, {}, b"{}")
        body = json.dumps({**json.loads(answer.body), **change}).encode()
        return Answer(status, {"Content-Type": "application/x-amz-json-1.1", "Content-Length": str(len(body))}, body)

    return deed


class TestPutAndRead:
    def test_every_type_and_every_gap_comes_back_from_the_bucket(self, group: FeatureGroup, runtime: Runtime) -> None:
        group.put(TABLE)
        runtime.write_down()
        assert_frame_equal(read(group), TABLE.sort("at"), check_exact=True)

    def test_every_type_and_every_gap_comes_back_by_id(self, group: FeatureGroup) -> None:
        group.put(TABLE)
        for row in TABLE.iter_slices(1):
            assert_frame_equal(typed(group.get(row["id"][0]), TABLE.schema), row, check_exact=True)

    def test_more_rows_than_are_put_at_once_arrive_all(
        self, group: FeatureGroup, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feature_group, "AT_ONCE", 10)
        many = pl.concat([TABLE.head(1).with_columns(pl.lit(f"n{number:02d}").alias("id")) for number in range(55)])
        group.put(many)
        runtime.write_down()
        assert_frame_equal(read(group), many)
        assert runtime.asked == 55

    def test_an_id_that_was_never_put_is_told(self, group: FeatureGroup, bucket: str) -> None:
        with pytest.raises(NotFound, match=f"feature group '{bucket}' has no record 'nobody'"):
            group.get("nobody")

    def test_an_empty_group_has_no_rows(self, group: FeatureGroup) -> None:
        assert_frame_equal(read(group), TABLE.clear())

    def test_of_an_id_the_record_with_the_latest_event_time_counts_and_then_the_one_put_last(
        self, group: FeatureGroup, runtime: Runtime
    ) -> None:
        old, new = TABLE.head(1), TABLE.head(1).with_columns(at=START + timedelta(hours=5), big=pl.lit(5))
        corrected = old.with_columns(big=pl.lit(7))
        for rows in (new, old, corrected):
            group.put(rows)
            runtime.write_down()
        assert read(group)["big"].to_list() == [5]
        assert read(group, START + timedelta(hours=4))["big"].to_list() == [7]
        assert group.get("a")["big"].to_list() == [5]

    def test_as_of_a_moment_nothing_later_is_there(self, group: FeatureGroup, runtime: Runtime) -> None:
        group.put(TABLE)
        runtime.write_down()
        for as_of, ids in (
            (START - timedelta(days=30_000), []), (START - timedelta(microseconds=1), ["c"]), (START, ["c", "a"]),
            (START + timedelta(hours=1), ["c", "a", "b"]),
        ):  # fmt: skip
            assert read(group, as_of)["id"].to_list() == ids

    def test_files_of_later_hours_are_not_even_read(
        self, group: FeatureGroup, runtime: Runtime, between: Between, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        group.put(TABLE)
        runtime.write_down()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        assert group.rows(START).height == 2
        assert sum(".parquet" in line for line in between.passed) == 2

    def test_a_deleted_record_is_gone_from_then_on_and_was_there_before(
        self, group: FeatureGroup, runtime: Runtime, bucket: str
    ) -> None:
        group.put(TABLE)
        later = START + timedelta(hours=2)
        delete(bucket, "a", later)
        runtime.write_down()
        assert read(group)["id"].to_list() == ["c", "b"]
        assert read(group, START)["id"].to_list() == ["c", "a"]
        with pytest.raises(NotFound, match="has no record 'a'"):
            group.get("a")

    def test_a_feature_that_came_later_is_null_before(
        self, group: FeatureGroup, runtime: Runtime, between: Between
    ) -> None:
        group.put(TABLE)
        runtime.write_down()
        control = boto3.client("sagemaker")
        more = control.describe_feature_group(FeatureGroupName=group.name)["FeatureDefinitions"]
        between.plan("POST", saying({"FeatureDefinitions": [*more, {"FeatureName": "new", "FeatureType": "Integral"}]}))
        assert FeatureGroup(group.name).rows()["new"].to_list() == [None] * 3

    def test_writers_that_know_small_letters_only_are_understood(self, runtime: Runtime, bucket: str) -> None:
        rows = pl.DataFrame({"TX_ID": [1], "TX_TIME": [START], "TX_AMOUNT": [2.5]})
        group = FeatureGroup(bucket)
        group.create(rows.schema, "TX_ID", "TX_TIME", f"s3://{bucket}", ROLE)
        group.put(rows)
        runtime.write_down()
        (key,) = [one["Key"] for one in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
        rewrite(bucket, key, lambda table: table.rename(str.lower))
        assert_frame_equal(typed(group.rows(), rows.schema), rows)

    def test_a_file_that_is_no_table_is_named(self, group: FeatureGroup, runtime: Runtime, bucket: str) -> None:
        group.put(TABLE)
        runtime.write_down()
        key = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"][0]["Key"]
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"PAR1 no table")
        with pytest.raises(Damaged, match=f"s3://{bucket}/{key} is no file of a feature group"):
            group.rows()


def delete(bucket: str, id_: str, at: datetime) -> None:
    seconds = str(at.replace(tzinfo=UTC).timestamp())
    runtime = boto3.client("sagemaker-featurestore-runtime")
    runtime.delete_record(FeatureGroupName=bucket, RecordIdentifierValueAsString=id_, EventTime=seconds)


def rewrite(bucket: str, key: str, change: Any) -> None:
    s3 = boto3.client("s3")
    table = pl.read_parquet(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), hive_partitioning=False)
    data = io.BytesIO()
    change(table).write_parquet(data)
    s3.put_object(Bucket=bucket, Key=key, Body=data.getvalue())


class TestBusyService:
    def test_records_that_are_throttled_are_put_again(self, group: FeatureGroup, runtime: Runtime) -> None:
        runtime.refusals = [Refusal(503, "ServiceUnavailable", "later") for _ in range(3)]
        group.put(TABLE)
        runtime.write_down()
        assert_frame_equal(read(group), TABLE.sort("at"))

    def test_a_service_that_stays_busy_is_told(
        self, runtime: Runtime, group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feature_group, "TRIES", 2)
        runtime.refusals = [Refusal(503, "ServiceUnavailable", "later") for _ in range(100)]
        with pytest.raises(Unreachable, match=f"feature group '{group.name}': AWS was too busy for PutRecord"):
            FeatureGroup(group.name).put(TABLE)

    def test_what_is_denied_is_told(self, group: FeatureGroup, runtime: Runtime) -> None:
        runtime.refusals = [Refusal(403, "AccessForbidden", "no")]
        with pytest.raises(StorageFailed, match=r"these credentials may not do GetRecord \(AccessForbidden\)"):
            group.get("a")


class TestMaking:
    def test_to_make_it_again_changes_nothing(self, group: FeatureGroup, bucket: str) -> None:
        make(group, bucket)

    def test_a_group_with_other_columns_is_not_taken_for_ours(self, group: FeatureGroup, bucket: str) -> None:
        complaint = r"only the table has: new \(Integral\) small \(String\); only the group has: small \(Integral\)"
        with pytest.raises(BadData, match=complaint):
            make(group, bucket, new=pl.Int64(), small=pl.String())

    def test_it_is_waited_for(
        self, runtime: Runtime, bucket: str, between: Between, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feature_group, "POLL", 0.01)
        made = FeatureGroup(bucket)
        between.plan("POST", lambda asked, forward: forward(asked))
        between.plan("POST", saying({"FeatureGroupStatus": "Creating"}), times=3)
        make(made, bucket)
        assert len(between.passed) == 1 + 3 + 1 + 1

    def test_one_that_is_not_made_in_time_is_told(
        self, runtime: Runtime, bucket: str, between: Between, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feature_group, "WAIT", -1.0)
        made = FeatureGroup(bucket)
        between.plan("POST", lambda asked, forward: forward(asked))
        between.plan("POST", saying({"FeatureGroupStatus": "Creating"}), times=99)
        with pytest.raises(Unreachable, match="was not made in"):
            make(made, bucket)

    def test_one_that_could_not_be_made_says_why(self, runtime: Runtime, bucket: str, between: Between) -> None:
        made = FeatureGroup(bucket)
        between.plan("POST", lambda asked, forward: forward(asked))
        between.plan("POST", saying({"FeatureGroupStatus": "CreateFailed", "FailureReason": "no rights to the bucket"}))
        with pytest.raises(StorageFailed, match="is CreateFailed: no rights to the bucket; delete it and try again"):
            make(made, bucket)

    def test_one_that_is_not_there_is_told(self, runtime: Runtime, bucket: str, between: Between) -> None:
        between.plan("POST", saying({"__type": "ResourceNotFound", "message": "no"}, 400), times=99)
        group, complaint = FeatureGroup(bucket), f"there is no feature group '{bucket}'; make it first"
        with pytest.raises(NotFound, match=complaint):
            group.get("a")
        with pytest.raises(NotFound, match=complaint):
            group.put(TABLE)
        with pytest.raises(NotFound, match=complaint):
            group.rows()

    def test_one_without_a_bucket_cannot_be_read_back(self, group: FeatureGroup, between: Between) -> None:
        between.plan("POST", saying({"OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://x"}}}))
        with pytest.raises(BadData, match="keeps nothing in a bucket"):
            FeatureGroup(group.name).rows()

    def test_a_folder_is_no_place_for_it(self, runtime: Runtime, bucket: str) -> None:
        with pytest.raises(BadConfiguration, match="needs a bucket and not /var/x"):
            FeatureGroup(bucket).create(TABLE.schema, "id", "at", "/var/x", ROLE)

    @pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 65, "größe"])
    def test_a_name_that_no_group_can_have_is_told(self, name: str) -> None:
        with pytest.raises(BadConfiguration, match="is no name of a feature group"):
            FeatureGroup(name)

    @pytest.mark.parametrize(
        ("types", "complaint"),
        [
            ({"is_deleted": pl.Boolean()}, "'is_deleted' cannot be a feature"),
            ({"a b": pl.Int64()}, "'a b' cannot be a feature"),
            ({"x" * 65: pl.Int64()}, "cannot be a feature"),
            ({"list": pl.List(pl.Int64())}, r"'list' is List\(Int64\), which no feature can be"),
            ({"huge": pl.UInt64()}, "'huge' is UInt64, which no feature can be"),
            ({"at": pl.String()}, "'at' is String and no event time"),
            ({"at": pl.Datetime("us", "UTC")}, "'at' is .* and no event time"),
            ({"WORD": pl.String()}, "two columns have one name but for capitals"),
        ],
    )  # fmt: skip
    def test_a_column_that_can_be_no_feature_is_named(
        self, runtime: Runtime, bucket: str, types: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(BadData, match=complaint):
            make(FeatureGroup(bucket), bucket, **types)

    @pytest.mark.parametrize(
        ("column", "value", "complaint"),
        [
            ("fraction", float("nan"), "'fraction' holds what is no finite number"),
            ("single", float("inf"), "'single' holds what is no finite number"),
            ("id", None, "'id' is missing in 3 rows"),
            ("at", None, "'at' is missing in 3 rows"),
        ],
    )
    def test_a_value_that_can_be_none_is_told_before_anything_is_put(
        self, group: FeatureGroup, runtime: Runtime, column: str, value: object, complaint: str
    ) -> None:
        wrong = TABLE.with_columns(pl.lit(value).cast(TABLE.schema[column]).alias(column))
        with pytest.raises(BadData, match=complaint):
            group.put(wrong)
        assert runtime.asked == 0

    def test_records_of_another_type_are_told(self, group: FeatureGroup) -> None:
        group.put(TABLE.head(1).with_columns(big=pl.lit(300)))
        with pytest.raises(BadData, match="the records are not of these types"):
            typed(group.get("a"), {"big": pl.Int8()})


def test_a_fraction_keeps_every_microsecond_until_2200() -> None:
    moments = pl.datetime_range(datetime(1900, 1, 1), datetime(2200, 1, 1), "37d11h13m17s123457us", eager=True)
    rows = pl.DataFrame({"id": range(len(moments)), "at": moments})
    described = feature_group.Described("id", "at", {"id": "Integral", "at": "Fractional"}, "")
    plain = feature_group._plain(rows, described)
    texts = plain.with_columns(pl.Series("at", [float(str(value)) for value in plain["at"]]))
    assert_frame_equal(typed(feature_group._moments(texts, described), rows.schema), rows)
