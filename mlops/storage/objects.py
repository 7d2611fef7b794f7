"""Files by key, in a folder (file://) or in a bucket (s3://): whole or not at all, never half."""

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mlops.errors import BadConfiguration, NotFound
from mlops.storage import objects_folder
from mlops.storage.objects_folder import Files
from mlops.storage.objects_s3 import Bucket

RAW = "data/raw"
PROCESSED = "data/processed"
MODELS = "models"
MONITORING = "monitoring"
DRIFT_REPORTS = "drift_reports"
EXPLANATIONS = "explanations"

scratch, translated = objects_folder.scratch, objects_folder.translated
"""What its users need of this machine's own files."""


class Objects(Protocol):
    """A place for files by key. A key is relative, with forward slashes and no dots: `models/3/model.json`."""

    def upload(self, source: Path, key: str) -> None:
        """Store the file `source` under `key` in one step, replacing what was there: of two writers the last counts."""

    def upload_once(self, source: Path, key: str) -> None:
        """Store the file `source` under `key` in one step, unless it is there already: of two writers the first counts.

        It is for what never changes. Raises `Damaged` where something else is there.
        """

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


def write_once(objects: Objects, key: str, data: bytes) -> None:
    """Store a few bytes under `key`, unless they are there already. Raises `Damaged` where something else is."""
    with scratch() as folder:
        path = folder / "data"
        path.write_bytes(data)
        objects.upload_once(path, key)


def read(objects: Objects, key: str) -> bytes:
    """Return the bytes under `key`."""
    with objects.download(key) as path:
        return path.read_bytes()


def upload_folder(objects: Objects, folder: Path, key: str) -> None:
    """Store every file of `folder` below `key`, a name for their content: what is there already stays as it is."""
    for path in sorted(folder.iterdir()):
        objects.upload_once(path, f"{key}/{path.name}")


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
