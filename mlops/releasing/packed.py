"""A version in one archive, the model.tar.gz that SageMaker takes, and the folder that the archive is unpacked to."""

import gzip
import posixpath
import re
import shutil
import tarfile
import zlib
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import msgspec

from mlops.errors import Damaged, NotFound
from mlops.releasing.registry import STAGE, Version
from mlops.storage import manifest
from mlops.storage.objects import MODELS, Objects, download_folder, scratch, translated
from mlops.traffic import Traffic

ARCHIVE, FILE = "model.tar.gz", "version.json"
PLAIN = re.compile(r"\w[\w.-]*")
UNREGISTERED = 0
"""The number of a version that no registry has given one."""


def key(name: str, number: int) -> str:
    """Where the archive of a registered version lies."""
    return f"{MODELS}/{name}/{number}/{ARCHIVE}"


def keep(store: Objects, home: str, version: Version) -> None:
    """Store the archive of a registered version whose files lie below the key `home`."""
    with scratch() as folder:
        files = download_folder(store, home, folder / "model")
        pack(files, version, folder / ARCHIVE)
        store.upload(folder / ARCHIVE, key(version.name, version.number))


def pack(folder: Path, version: Version, archive: Path) -> None:
    """Write the files of a model and which version they are into `archive`: for the same version the same bytes."""
    label(folder, version)
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packer,
        tarfile.open(fileobj=packer, mode="w") as tar,
    ):
        for path in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(entry, content)


def label(folder: Path, version: Version) -> None:
    """Write down beside the files of a model which version they are."""
    # What a version is in use for changes; the archive says what stays.
    tags = {name: text for name, text in version.tags.items() if name != STAGE}
    said = msgspec.json.encode({**asdict(version), "tags": tags}, order="deterministic")
    (folder / FILE).write_bytes(msgspec.json.format(said, indent=1))


def unpack(archive: Path, folder: Path) -> "Packed":
    """Unpack an archive into `folder` and check every file. Raises `Damaged`."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isfile() else None
                if file is not None and PLAIN.fullmatch(name := posixpath.normpath(entry.name)):
                    (folder / name).write_bytes(file.read())
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error):
        raise Damaged(f"{archive} is no whole archive; pack it again") from None
    found = Packed(folder)
    if manifest.verified(folder, ()) != found.version.tags["model_hash"]:
        raise Damaged(f"{archive} holds other files than those of its version; pack it again")
    return found


class Packed:
    """The one version that lies unpacked in a folder: found and fetched as from a registry, and all of the traffic."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def version(self) -> Version:
        """Which version it is. Raises `Damaged` where that is not written down."""
        file = self._folder / FILE
        try:
            found = msgspec.json.decode(file.read_bytes(), type=Version)
        except OSError as error:
            raise Damaged(f"cannot read {file}: {error.strerror}; pack the model again") from None
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{file} does not say which version this is: {error}; pack it again") from None
        if missing := {"model_hash", "configuration"} - found.tags.keys():
            raise Damaged(f"{file} does not say {' and '.join(sorted(missing))}; pack it again")
        return found

    @property
    def traffic(self) -> Traffic:
        """It answers alone."""
        return Traffic(self.version.number)

    def find(self, name: str, which: int) -> Version:
        """Return the version with this number. Raises `NotFound` for every other than the one."""
        mine = self.version
        if (mine.name, mine.number) != (name, which):
            raise NotFound(f"{self._folder} holds version {mine.number} of '{mine.name}', not {which} of '{name}'")
        return mine

    def fetch(self, version: Version, folder: Path) -> Path:  # noqa: ARG002 - there is but one
        """Copy the files of the version into `folder`. The reader verifies them by hash."""
        with translated(str(folder)):
            return Path(shutil.copytree(self._folder, folder, ignore=shutil.ignore_patterns(FILE)))


def unpacked(folder: Path) -> Packed | None:
    """The version that a folder holds, if it holds one."""
    return Packed(folder) if any((folder / name).exists() for name in (FILE, manifest.FILE)) else None
