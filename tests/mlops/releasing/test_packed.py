"""A version packed: the same bytes for the same version, back as it was, and nothing taken for one that is none."""

import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlops.errors import Damaged, NotFound
from mlops.releasing import packed
from mlops.releasing.packed import Packed
from mlops.releasing.registry import STAGE, Version
from mlops.storage import manifest, objects
from mlops.traffic import Traffic

TAGS = {"model_hash": "ab", "configuration": "cd", "snapshot": "größer"}
VERSION = Version("model", 3, "run", TAGS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files of a model."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(random.Random(1).randbytes(10_000))
    (folder / "card.json").write_bytes(b"[]")
    manifest.write(folder)
    return folder


@pytest.fixture
def version(files: Path) -> Version:
    """Which version they are."""
    return replace(VERSION, tags={**TAGS, "model_hash": manifest.verified(files, ())})


def test_the_same_version_makes_the_same_bytes_whenever_and_by_whomever(files: Path, tmp_path: Path) -> None:
    packed.pack(files, VERSION, tmp_path / "one.tar.gz")
    for path in files.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    tagged = Version("model", 3, "run", {STAGE: "production", **dict(reversed(TAGS.items()))})
    packed.pack(files, tagged, tmp_path / "two.tar.gz")
    one = (tmp_path / "one.tar.gz").read_bytes()
    assert one == (tmp_path / "two.tar.gz").read_bytes()
    # Where gzip notes the time.
    assert one[4:8] == bytes(4)


def test_what_was_packed_is_unpacked_flat_and_says_which_version_it_is(files: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    packed.pack(files, VERSION, tmp_path / packed.ARCHIVE)
    (tmp_path / "model").mkdir()
    subprocess.run(["tar", "xzf", str(tmp_path / packed.ARCHIVE), "-C", str(tmp_path / "model")], check=True)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {*before, packed.FILE}
    found = packed.unpacked(tmp_path / "model")
    assert found is not None
    assert found.version == VERSION
    assert found.traffic == Traffic(3)
    assert found.find("model", 3) == VERSION
    fetched = found.fetch(VERSION, tmp_path / "fetched")
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == before


def test_a_version_is_kept_under_its_name_and_number(files: Path, tmp_path: Path) -> None:
    store = objects.connect(f"file://{tmp_path}/var")
    objects.upload_folder(store, files, "models/ab")
    packed.keep(store, "models/ab", VERSION)
    assert store.list("models/model") == ["models/model/3/model.tar.gz"] == [packed.key("model", 3)]
    first = objects.read(store, packed.key("model", 3))
    packed.keep(store, "models/ab", VERSION)
    assert objects.read(store, packed.key("model", 3)) == first


def test_an_archive_whose_names_begin_with_a_dot_is_unpacked_as_well(
    files: Path, version: Version, tmp_path: Path
) -> None:
    """As training jobs and `tar czf model.tar.gz -C model .` write them."""
    packed.label(files, version)
    subprocess.run(["tar", "czf", str(tmp_path / "dotted.tar.gz"), "-C", str(files), "."], check=True)
    assert packed.unpack(tmp_path / "dotted.tar.gz", tmp_path / "model").version == version


def test_an_archive_writes_nowhere_but_into_its_folder(files: Path, version: Version, tmp_path: Path) -> None:
    packed.label(files, version)
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    with tarfile.open(tmp_path / "hostile.tar.gz", "w:gz") as tar:
        for path in files.iterdir():
            tar.add(path, path.name)
        for name in ("../outside", str(tmp_path / "absolute"), "..", "deep/down"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"no"))
        tar.addfile(link)
    (tmp_path / "secret").write_text("secret")
    assert packed.unpack(tmp_path / "hostile.tar.gz", tmp_path / "in" / "model").version == version
    assert {path.name for path in tmp_path.rglob("*")} == {
        "files", "hostile.tar.gz", "secret", "in", "model", *(path.name for path in files.iterdir()),
    }  # fmt: skip


@pytest.mark.parametrize("spoil", [lambda whole: whole[:5_000], lambda _: b"", lambda _: b"no archive"])
def test_what_is_no_whole_archive_is_said_to_be_damaged(
    files: Path, version: Version, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    archive = tmp_path / packed.ARCHIVE
    packed.pack(files, version, archive)
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(Damaged, match="is no whole archive"):
        packed.unpack(archive, tmp_path / "model")


def test_every_flipped_bit_in_an_archive_is_found_or_changes_nothing(
    files: Path, version: Version, tmp_path: Path
) -> None:
    archive, draw = tmp_path / packed.ARCHIVE, random.Random(2)
    packed.pack(files, version, archive)
    whole = archive.read_bytes()
    for number in range(200):
        spoilt = bytearray(whole)
        spoilt[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        archive.write_bytes(spoilt)
        try:
            found = packed.unpack(archive, tmp_path / str(number))
        except Damaged:
            continue
        assert found.version == version


def test_whole_files_of_another_model_are_damage(files: Path, version: Version, tmp_path: Path) -> None:
    packed.pack(files, replace(version, tags=TAGS), tmp_path / packed.ARCHIVE)
    with pytest.raises(Damaged, match="other files than those of its version"):
        packed.unpack(tmp_path / packed.ARCHIVE, tmp_path / "model")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"\xff", b'{"name":"\xff"}', b"[" * 100_000,
        json.dumps({"name": "model", "number": "3", "run_id": "", "tags": TAGS}).encode(),
        json.dumps({"name": "model", "number": 3, "run_id": "", "tags": {"model_hash": "ab"}}).encode(),
        json.dumps({"name": "model", "number": 3, "run_id": "", "tags": {**TAGS, "model_hash": 1}}).encode(),
    ],
)  # fmt: skip
def test_a_page_that_does_not_say_which_version_it_is_is_damaged(files: Path, text: bytes) -> None:
    (files / packed.FILE).write_bytes(text)
    with pytest.raises(Damaged, match=r"version\.json does not say"):
        _ = Packed(files).version


def test_a_model_without_the_page_is_a_version_that_cannot_be_served(files: Path) -> None:
    found = packed.unpacked(files)
    assert found is not None
    with pytest.raises(Damaged, match=r"cannot read .*version\.json"):
        _ = found.traffic


def test_another_version_than_the_one_is_not_found(files: Path) -> None:
    packed.label(files, VERSION)
    for name, number in (("model", 2), ("other", 3)):
        with pytest.raises(NotFound, match="holds version 3 of 'model'"):
            Packed(files).find(name, number)


def test_a_folder_without_a_model_holds_none(tmp_path: Path) -> None:
    assert packed.unpacked(tmp_path) is None
    assert packed.unpacked(tmp_path / "nowhere") is None
