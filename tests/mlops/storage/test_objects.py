"""Files by key: one set of promises, kept by the folder and by the bucket."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from mlops.errors import BadConfiguration, Damaged, NotFound, OutOfSpace, StorageFailed, Unreachable
from mlops.storage import objects
from mlops.storage.objects import Objects
from tests.conftest import ROOT


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "file":
        return objects.connect(f"file://{tmp_path}/store")
    return objects.connect(f"s3://{request.getfixturevalue('bucket')}/a/prefix")


class TestBothStores:
    def test_what_is_written_is_read_and_the_last_writing_counts(self, store: Objects) -> None:
        objects.write(store, "models/1/card.json", b"first")
        objects.write(store, "models/1/card.json", b"second")
        assert objects.read(store, "models/1/card.json") == b"second"
        assert store.exists("models/1/card.json")

    def test_keys_are_listed_below_a_folder_and_only_there(self, store: Objects) -> None:
        for key in ("models/1/a", "models/1/b", "models/12/a", "modelsx", "data/raw/x"):
            objects.write(store, key, b"")
        assert store.list("models/1") == ["models/1/a", "models/1/b"]
        assert store.list("models") == ["models/1/a", "models/1/b", "models/12/a"]
        assert store.list("nothing") == []

    def test_a_deleted_key_is_gone_and_deleting_it_again_is_no_error(self, store: Objects) -> None:
        objects.write(store, "a/b", b"x")
        store.delete("a/b")
        store.delete("a/b")
        assert not store.exists("a/b")
        with pytest.raises(NotFound, match="there is no .*a/b"):
            objects.read(store, "a/b")

    def test_a_folder_goes_up_and_comes_down_whole(self, store: Objects, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        for name in ("x.bin", "y.bin"):
            (home / name).write_bytes(name.encode())
        objects.upload_folder(store, home, "models/7")
        back = objects.download_folder(store, "models/7", tmp_path / "back")
        assert {path.name: path.read_bytes() for path in back.iterdir()} == {"x.bin": b"x.bin", "y.bin": b"y.bin"}
        with pytest.raises(NotFound, match="nothing below"):
            objects.download_folder(store, "models/8", tmp_path / "none")

    def test_what_is_written_once_stays_and_writing_the_same_again_is_no_error(self, store: Objects) -> None:
        for _ in range(2):
            objects.write_once(store, "data/raw/ab/x.csv", b"the same")
        assert objects.read(store, "data/raw/ab/x.csv") == b"the same"

    @pytest.mark.parametrize("other", [b"other bytes", b"the sama", b""])
    def test_nothing_else_takes_the_place_of_what_is_written_once(self, store: Objects, other: bytes) -> None:
        objects.write_once(store, "k", b"the same")
        with pytest.raises(Damaged, match="/k holds something else already, .* remove it if it is damaged"):
            objects.write_once(store, "k", other)
        assert objects.read(store, "k") == b"the same"
        store.delete("k")
        objects.write_once(store, "k", other)
        assert objects.read(store, "k") == other

    @pytest.mark.parametrize("key", ["/a", "a//b", "a/../b", "..", "", "a/", "a\0b"])
    def test_a_key_that_would_leave_its_place_is_refused(self, store: Objects, key: str) -> None:
        with pytest.raises(StorageFailed, match="is no key"):
            objects.write(store, key, b"x")
        with pytest.raises(StorageFailed, match="is no key"):
            store.exists(key)

    def test_the_url_says_where_a_key_lies(self, store: Objects, tmp_path: Path) -> None:
        assert store.url("a/b").startswith((f"{tmp_path}/store", "s3://bucket-"))
        assert store.url("a/b").endswith("/a/b")


def test_of_many_that_write_once_at_the_same_moment_one_counts(tmp_path: Path) -> None:
    store = objects.connect(f"file://{tmp_path}/store")
    for turn in range(20):
        ready = threading.Barrier(8)
        won: list[bytes] = []

        def write(letter: bytes, key: str, ready: threading.Barrier, won: list[bytes]) -> None:
            ready.wait()
            with contextlib.suppress(Damaged):
                objects.write_once(store, key, letter * 100_000)
                won.append(letter)

        writers = [threading.Thread(target=write, args=(bytes([65 + n]), f"k{turn}", ready, won)) for n in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [objects.read(store, f"k{turn}")] == [letter * 100_000 for letter in won]
    assert not list((tmp_path / "store" / ".incoming").iterdir())


def test_a_folder_is_not_taken_for_a_file_that_is_there_already(tmp_path: Path) -> None:
    store = objects.connect(f"file://{tmp_path}/store")
    objects.write(store, "a/b", b"x")
    with pytest.raises(StorageFailed, match="cannot use .*/store: File exists"):
        objects.write_once(store, "a", b"x")


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_a_mixture(tmp_path: Path) -> None:
    store, contents = objects.connect(f"file://{tmp_path}/store"), [letter * 400_000 for letter in (b"a", b"b")]
    objects.write(store, "k", contents[0])
    done = threading.Event()

    def replace() -> None:
        for turn in range(60):
            objects.write(store, "k", contents[turn % 2])
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not done.is_set():
        assert objects.read(store, "k") in contents
    writer.join()


def test_a_writer_that_is_killed_never_leaves_half_a_file(tmp_path: Path) -> None:
    program = f"""
from mlops.storage import objects
store = objects.connect("file://{tmp_path}/store")
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        objects.write(store, "k", letter * 2_000_000)
"""
    draw = random.Random(0)
    store = objects.connect(f"file://{tmp_path}/store")
    objects.write(store, "k", b"a" * 2_000_000)
    for _ in range(5):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        writer = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(draw.uniform(0.01, 0.15))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        content = objects.read(store, "k")
        assert (len(content), len(set(content))) == (2_000_000, 1)


def test_what_a_killed_writer_left_is_swept_away_after_a_day_and_not_before(tmp_path: Path) -> None:
    incoming = tmp_path / "store" / ".incoming"
    incoming.mkdir(parents=True)
    for name, age in (("old", 90_000), ("young", 80_000)):
        (incoming / name).write_bytes(b"half")
        os.utime(incoming / name, times=(time.time() - age, time.time() - age))
    objects.connect(f"file://{tmp_path}/store")
    assert [path.name for path in incoming.iterdir()] == ["young"]


def test_a_write_that_finds_no_space_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from mlops.storage import objects
from mlops.errors import OutOfSpace
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = objects.connect("file://{tmp_path}/store")
objects.write(store, "k", b"old")
big = Path("{tmp_path}/big")
big.write_bytes(b"x" * 3_000_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    store.upload(big, "k")
except OutOfSpace as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"no space left for {tmp_path}/store; free some or point MLOPS_PLATFORM__OBJECTS")
    assert (tmp_path / "store" / "k").read_bytes() == b"old"
    assert not list((tmp_path / "store" / ".incoming").iterdir())


def test_temporary_files_that_find_no_space_are_named_as_such() -> None:
    with pytest.raises(OutOfSpace, match="temporary files in .* set TMPDIR"), objects.scratch():
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError), objects.scratch():
        raise PermissionError(13, "no")


def test_a_place_that_cannot_be_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = objects.connect(f"file://{tmp_path}/file/below")
    with pytest.raises(StorageFailed, match="cannot use .*file/below: "):
        objects.write(store, "k", b"x")


@pytest.mark.parametrize("url", ["var", "ftp://x/y", "file://", "s3://", ""])
def test_a_url_of_no_known_kind_says_what_to_write(url: str) -> None:
    with pytest.raises(BadConfiguration, match=r"write file://FOLDER or s3://BUCKET\[/PREFIX\]"):
        objects.connect(url)


def test_a_missing_bucket_is_one_clear_line(bucket: str) -> None:
    store = objects.connect(f"s3://{bucket}-not")
    with pytest.raises(NotFound, match="there is no bucket"):
        objects.write(store, "k", b"x")


def test_a_store_that_does_not_answer_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unreachable, match="s3://.*Could not connect"):
        objects.read(objects.connect(f"s3://{bucket}"), "k")


@pytest.fixture
def uploaded(bucket: str) -> Iterator[str]:
    for key in ("in/a.csv", "in/deep/b.csv"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=key.encode())
    yield bucket


def test_a_key_and_a_folder_of_a_bucket_are_fetched(uploaded: str, tmp_path: Path) -> None:
    one = objects.fetch(f"s3://{uploaded}/in/a.csv", tmp_path / "one")
    assert [path.read_bytes() for path in one] == [b"in/a.csv"]
    both = objects.fetch(f"s3://{uploaded}/in/", tmp_path / "both")
    assert [path.relative_to(tmp_path / "both").as_posix() for path in both] == ["a.csv", "deep/b.csv"]
    with pytest.raises(NotFound, match="there is nothing at s3://"):
        objects.fetch(f"s3://{uploaded}/out", tmp_path / "none")


def test_the_digest_of_several_files_depends_on_their_order_and_that_of_one_is_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name)
    assert objects.digest_of_all(paths[:1]) == objects.digest(paths[0])
    assert objects.digest_of_all(paths) != objects.digest_of_all(paths[::-1])
