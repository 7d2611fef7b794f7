"""Objects in a bucket: what two writers, versions, bad connections and AWS's refusals do to them."""

import contextlib
import threading
from pathlib import Path

import boto3
import pytest

from mlops.errors import BadConfiguration, Damaged, MlopsError, NotFound, StorageFailed, Unreachable
from mlops.storage import objects, objects_s3
from mlops.storage.objects import Objects
from tests.between import Answer, Asked, Between, Deed, Forward, cutting, losing, refusing, spoiling

PART = 5 << 20


@pytest.fixture
def store(between: Between, bucket: str) -> Objects:
    return objects.connect(f"s3://{bucket}/p")


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that goes in three parts."""
    monkeypatch.setattr(objects_s3, "PART", PART)
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * (2 * PART // 256 + 99))
    return path


def bodies(bucket: str) -> list[bytes]:
    """What every version of `p/k` holds, oldest first."""
    s3 = boto3.client("s3")
    found = s3.list_object_versions(Bucket=bucket, Prefix="p/k").get("Versions", [])
    versions = [s3.get_object(Bucket=bucket, Key="p/k", VersionId=one["VersionId"]) for one in found]
    return [version["Body"].read() for version in versions][::-1]


def sent(between: Between, method: str) -> int:
    """How many requests of a kind have passed."""
    return sum(line.startswith(f"{method} ") for line in between.passed)


class TestTwoWriters:
    @pytest.mark.parametrize("same", [True, False])
    def test_one_that_is_overtaken_on_its_way_changes_nothing(
        self, store: Objects, between: Between, bucket: str, same: bool
    ) -> None:
        first = b"mine" if same else b"others"

        def overtaken(asked: Asked, forward: Forward) -> Answer:
            boto3.client("s3").put_object(Bucket=bucket, Key="p/k", Body=first)
            return forward(asked)

        between.plan(f"PUT /{bucket}/p/k", overtaken)
        with contextlib.nullcontext() if same else pytest.raises(Damaged, match="holds something else already"):
            objects.write_once(store, "k", b"mine")
        assert objects.read(store, "k") == first

    def test_one_that_is_overtaken_while_its_last_part_is_on_its_way_changes_nothing(
        self, store: Objects, between: Between, bucket: str, big: Path
    ) -> None:
        def overtaken(asked: Asked, forward: Forward) -> Answer:
            boto3.client("s3").put_object(Bucket=bucket, Key="p/k", Body=b"others")
            return forward(asked)

        between.plan(rf"POST /{bucket}/p/k\?uploadId", overtaken)
        with pytest.raises(Damaged, match="holds something else already"):
            store.upload_once(big, "k")
        assert objects.read(store, "k") == b"others"
        assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=bucket)

    def test_a_conflict_that_passes_is_tried_again(self, store: Objects, between: Between, bucket: str) -> None:
        between.plan(f"PUT /{bucket}/p/k", refusing(409, "ConditionalRequestConflict"), times=2)
        objects.write_once(store, "k", b"x")
        assert objects.read(store, "k") == b"x"

    def test_a_conflict_that_does_not_pass_is_told(self, store: Objects, between: Between, bucket: str) -> None:
        between.plan(f"PUT /{bucket}/p/k", refusing(409, "ConditionalRequestConflict"), times=99)
        with pytest.raises(StorageFailed, match="/p/k: ConditionalRequestConflict no"):
            objects.write_once(store, "k", b"x")
        assert sent(between, "PUT") == objects_s3.TRIES

    def test_one_whose_answer_was_lost_finds_its_own(self, store: Objects, between: Between, bucket: str) -> None:
        between.plan(f"PUT /{bucket}/p/k", losing)
        objects.write_once(store, "k", b"x")
        assert sent(between, "PUT") == 2
        assert objects.read(store, "k") == b"x"

    def test_what_is_there_is_not_sent_again(self, store: Objects, between: Between, big: Path) -> None:
        store.upload_once(big, "k")
        before = len(between.passed)
        store.upload_once(big, "k")
        assert [line.split()[0] for line in between.passed[before:]] == ["HEAD", "HEAD"]


class TestParts:
    @pytest.mark.parametrize("once", [True, False])
    def test_a_large_file_goes_in_parts_and_comes_back_whole(
        self, store: Objects, between: Between, big: Path, once: bool
    ) -> None:
        (store.upload_once if once else store.upload)(big, "k")
        assert len([line for line in between.passed if "partNumber" in line]) == 3
        assert objects.read(store, "k") == big.read_bytes()

    def test_large_files_are_checked_as_one_on_their_way_back(
        self, store: Objects, between: Between, big: Path
    ) -> None:
        store.upload(big, "k")
        between.plan("GET", spoiling, times=99)
        with pytest.raises(Damaged, match="arrives with other bytes than were sent"):
            objects.read(store, "k")

    def test_parts_of_a_file_that_does_not_get_through_are_not_left(
        self, store: Objects, between: Between, bucket: str, big: Path
    ) -> None:
        between.plan(r"PUT .*partNumber=2", refusing(403, "AccessDenied"))
        with pytest.raises(StorageFailed, match="may not do UploadPart"):
            store.upload(big, "k")
        assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=bucket)
        assert not store.exists("k")


class TestVersions:
    @pytest.fixture
    def versioned(self, store: Objects, bucket: str) -> Objects:
        boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return store

    def test_the_latest_version_is_read_and_the_earlier_ones_stay(self, versioned: Objects, bucket: str) -> None:
        for text in (b"first", b"second"):
            objects.write(versioned, "k", text)
        assert objects.read(versioned, "k") == b"second"
        assert bodies(bucket) == [b"first", b"second"]

    def test_what_is_deleted_is_gone_and_its_versions_stay(self, versioned: Objects, bucket: str) -> None:
        objects.write(versioned, "k", b"first")
        versioned.delete("k")
        assert (versioned.exists("k"), versioned.list("x")) == (False, [])
        with pytest.raises(NotFound, match="there is no s3://.*/k"):
            objects.read(versioned, "k")
        assert bodies(bucket) == [b"first"]

    def test_what_was_deleted_can_be_written_once_again(self, versioned: Objects, bucket: str) -> None:
        objects.write_once(versioned, "k", b"first")
        versioned.delete("k")
        objects.write_once(versioned, "k", b"second")
        assert objects.read(versioned, "k") == b"second"
        assert bodies(bucket) == [b"first", b"second"]

    def test_writing_the_same_once_makes_no_version(self, versioned: Objects, bucket: str) -> None:
        for _ in range(3):
            objects.write_once(versioned, "k", b"first")
        assert bodies(bucket) == [b"first"]


class TestBadConnections:
    @pytest.mark.parametrize("deed", [spoiling, cutting, losing])
    def test_what_arrives_broken_is_asked_for_again(self, store: Objects, between: Between, deed: Deed) -> None:
        objects.write(store, "k", b"x" * 100_000)
        between.plan("GET", deed, times=2)
        assert objects.read(store, "k") == b"x" * 100_000

    def test_what_always_arrives_broken_is_told(self, store: Objects, between: Between) -> None:
        objects.write(store, "k", b"x" * 100_000)
        between.plan("GET", spoiling, times=99)
        with pytest.raises(Damaged, match="s3://.*/p/k arrives with other bytes than were sent: Expected checksum"):
            objects.read(store, "k")
        assert sent(between, "GET") == objects_s3.TRIES

    def test_what_is_sent_bears_its_checksum(self, store: Objects, between: Between) -> None:
        """S3 refuses what does not fit it; the server of the tests keeps it, and then no reader takes it."""

        def spoilt(asked: Asked, forward: Forward) -> Answer:
            assert "x-amz-checksum-crc32" in {name.lower() for name in asked.headers}
            return forward(asked._replace(body=b"y" + asked.body[1:]))

        between.plan("PUT", spoilt)
        objects.write(store, "k", b"xxx")
        with pytest.raises(Damaged, match="arrives with other bytes"):
            objects.read(store, "k")

    def test_a_server_that_is_busy_for_a_moment_is_waited_for(
        self, between: Between, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(objects_s3, "TRIES", 2)
        between.plan("PUT", refusing(503, "SlowDown"))
        store = objects.connect(f"s3://{bucket}")
        objects.write(store, "k", b"x")
        assert objects.read(store, "k") == b"x"


class TestComplaints:
    """Each in one line that names the object and the way out."""

    def test_a_server_that_stays_busy_is_told(
        self, between: Between, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(objects_s3, "TRIES", 2)
        between.plan("PUT", refusing(503, "SlowDown"), times=99)
        with pytest.raises(Unreachable, match=r"s3://.*/k: AWS was too busy .* \(SlowDown\); try again later"):
            objects.write(objects.connect(f"s3://{bucket}"), "k", b"x")
        assert sent(between, "PUT") == 2

    def test_a_server_that_says_nothing_is_told(
        self, between: Between, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(objects_s3, "ANSWER", 0.05)
        asleep = threading.Event()

        def sleeping(_: Asked, __: Forward) -> None:
            asleep.wait(30)

        between.plan("HEAD", sleeping, times=99)
        with pytest.raises(Unreachable, match="s3://.*/k does not answer: Read timeout"):
            objects.connect(f"s3://{bucket}").exists("k")
        asleep.set()
        assert sent(between, "HEAD") == objects_s3.TRIES

    @pytest.mark.parametrize("code", ["AccessDenied", "AllAccessDisabled"])
    def test_what_is_denied_is_told(self, store: Objects, between: Between, code: str) -> None:
        between.plan("GET", refusing(403, code))
        with pytest.raises(StorageFailed, match=rf"s3://.*/p/k: .*{code}") as caught:
            objects.read(store, "k")
        assert type(caught.value) is StorageFailed

    def test_credentials_that_have_expired_are_told(self, store: Objects, between: Between) -> None:
        between.plan("GET", refusing(400, "ExpiredToken"))
        with pytest.raises(StorageFailed, match=r"does not take these credentials \(ExpiredToken\); renew them"):
            objects.read(store, "k")

    def test_missing_credentials_are_told(self, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, "/nowhere")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        with pytest.raises(StorageFailed, match="there are no AWS credentials .*; set AWS_ACCESS_KEY_ID"):
            objects.read(objects.connect(f"s3://{bucket}"), "k")

    def test_a_profile_that_does_not_exist_is_told_at_the_start(
        self, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        with pytest.raises(BadConfiguration, match=f"s3://{bucket}: .*nobody"):
            objects.connect(f"s3://{bucket}")

    def test_a_name_that_no_bucket_can_have_is_told(self, bucket: str) -> None:
        with pytest.raises(MlopsError, match="s3://no bucket/k: ") as caught:
            objects.write(objects.connect("s3://no bucket"), "k", b"x")
        assert "\n" not in str(caught.value)
