"""Files by key, in a folder (file://) or in a bucket (s3://): whole or not at all, never half."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from mlops.errors import BadConfiguration, MlopsError, NotFound, OutOfSpace, StorageFailed, Unreachable

RAW = "data/raw"
PROCESSED = "data/processed"
MODELS = "models"
MONITORING = "monitoring"
DRIFT_REPORTS = "drift_reports"
EXPLANATIONS = "explanations"

ABANDONED = 86_400
"""Seconds after which a file that is not whole yet is given up."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Objects(Protocol):
    """A place for files by key. A key is relative, with forward slashes and no dots: `models/3/model.json`."""

    def upload(self, source: Path, key: str) -> None:
        """Store the file `source` under `key`, replacing what was there, in one step."""

    def download(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """Lend the file under `key` as a path that is valid inside the `with` block. Raises `NotFound`."""

    def list(self, prefix: str) -> list[str]:
        """Name every key below the folder `prefix`, sorted."""

    def exists(self, key: str) -> bool:
        """Tell whether a file is stored under `key`."""

    def delete(self, key: str) -> None:
        """Forget the file under `key`, if there is one."""

    def url(self, key: str) -> str:
        """Say where `key` lies, for people and other programs."""


def connect(url: str) -> Objects:
    """Open the place that `url` names: `file://FOLDER` or `s3://BUCKET[/PREFIX]`."""
    scheme, separator, rest = url.partition("://")
    if separator and rest and scheme == "file":
        return Files(Path(rest))
    if separator and rest and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return Bucket(bucket, prefix.strip("/"))
    raise BadConfiguration(f"platform.objects is '{url}'; write file://FOLDER or s3://BUCKET[/PREFIX]")


def write(objects: Objects, key: str, data: bytes) -> None:
    """Store a few bytes under `key`."""
    with scratch() as folder:
        path = folder / "data"
        path.write_bytes(data)
        objects.upload(path, key)


def read(objects: Objects, key: str) -> bytes:
    """Return the bytes under `key`."""
    with objects.download(key) as path:
        return path.read_bytes()


def upload_folder(objects: Objects, folder: Path, key: str) -> None:
    """Store every file of `folder` below `key`."""
    for path in sorted(folder.iterdir()):
        objects.upload(path, f"{key}/{path.name}")


def download_folder(objects: Objects, key: str, folder: Path) -> Path:
    """Copy every file below `key` into `folder`. Raises `NotFound` where there is none."""
    keys = objects.list(key)
    if not keys:
        raise NotFound(f"there is nothing below {objects.url(key)}")
    download_all(objects, keys, folder)
    return folder


def download_all(objects: Objects, keys: Sequence[str], folder: Path) -> list[Path]:
    """Copy the files under `keys` into `folder`, and return the copies in the same order. Raises `NotFound`."""
    copies = [folder / Path(key).name for key in keys]
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for key, copy in zip(keys, copies, strict=True):
            with objects.download(key) as path:
                shutil.copyfile(path, copy)
    return copies


def fetch(url: str, folder: Path) -> list[Path]:
    """Copy the file or the folder that an `s3://` URL names into `folder` and return the copies."""
    name, _, rest = url.removeprefix("s3://").partition("/")
    bucket, key = Bucket(name, ""), rest.strip("/")
    if not key:
        raise BadConfiguration(f"'{url}' names a whole bucket; name a key or a folder in it")
    keys = [key] if bucket.exists(key) else bucket.list(key)
    if not keys:
        raise NotFound(f"there is nothing at {url}")
    copies = []
    for name in keys:
        target = folder / (name.removeprefix(key).strip("/") or Path(name).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with bucket.download(name) as path:
            shutil.copyfile(path, target)
        copies.append(target)
    return copies


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_all(paths: Sequence[Path]) -> str:
    """Return one SHA-256 over several files in order; for one file it is the file's own."""
    digests = [digest(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder for temporary files. Raises `OutOfSpace` when its disk is full."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OutOfSpace(f"no space left for temporary files in {folder}; free some or set TMPDIR") from None


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn the operating system's complaints about a place into ours, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            way_out = "free some or point MLOPS_PLATFORM__OBJECTS elsewhere"
            raise OutOfSpace(f"no space left for {place}; {way_out}") from None
        raise StorageFailed(f"cannot use {place}: {error.strerror or error}") from None


class Files:
    """A folder. What is being written lies in `.incoming` until it is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._incoming = self._folder / ".incoming"
        self._sweep()

    def upload(self, source: Path, key: str) -> None:
        target = self._path(key)
        with translated(f"{self._folder}"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._incoming)
            try:
                with os.fdopen(handle, "wb") as copy, source.open("rb") as original:
                    shutil.copyfileobj(original, copy, 1 << 20)
                    copy.flush()
                    os.fsync(copy.fileno())
                Path(name).chmod(0o644)
                Path(name).replace(target)
            finally:
                Path(name).unlink(missing_ok=True)
            _sync(target.parent)

    @contextlib.contextmanager
    def download(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"there is no {self.url(key)}")
        yield path

    def list(self, prefix: str) -> list[str]:
        files = (path for path in self._path(prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self._folder).as_posix() for path in files)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        with translated(str(self._folder)):
            self._path(key).unlink(missing_ok=True)

    def url(self, key: str) -> str:
        return str(self._path(key))

    def _sweep(self) -> None:
        """Remove what writers that were killed left behind, once nobody can still be writing it."""
        for left in self._incoming.glob("*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / _checked(key)


class Bucket:
    """A bucket, or the part of it below a prefix. S3 shows an object only once it is whole."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._s3 = boto3.client("s3")

    def upload(self, source: Path, key: str) -> None:
        with self._translated(key), source.open("rb") as file:
            self._s3.upload_fileobj(file, self._bucket, self._prefix + _checked(key))

    @contextlib.contextmanager
    def download(self, key: str) -> Iterator[Path]:
        with scratch() as folder:
            path = folder / Path(key).name
            with self._translated(key):
                self._s3.download_file(self._bucket, self._prefix + _checked(key), str(path))
            yield path

    def list(self, prefix: str) -> list[str]:
        below = self._prefix + _checked(prefix) + "/"
        with self._translated(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        # A key that ends in a slash is a mark by which consoles show an empty folder.
        return sorted(key.removeprefix(self._prefix) for key in keys if not key.endswith("/"))

    def exists(self, key: str) -> bool:
        try:
            with self._translated(key):
                self._s3.head_object(Bucket=self._bucket, Key=self._prefix + _checked(key))
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + _checked(key))

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{_checked(key)}"

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._ours(key, error.response["Error"]) from None
        except BotoCoreError as error:
            raise Unreachable(f"{self.url(key)}: {error}") from None

    def _ours(self, key: str, error: Any) -> MlopsError:
        code = str(error.get("Code"))
        if code in ("404", "NoSuchKey", "NotFound"):
            return NotFound(f"there is no {self.url(key)}")
        if code == "NoSuchBucket":
            return NotFound(f"there is no bucket '{self._bucket}'; create it or correct platform.objects")
        return StorageFailed(f"{self.url(key)}: {code} {error.get('Message', '')}")


def _checked(key: str) -> str:
    parts = key.split("/")
    if not all(part and part.strip(".") and "\0" not in part for part in parts):
        raise StorageFailed(f"'{key}' is no key: write names and single slashes, such as models/3/model.json")
    return key


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
