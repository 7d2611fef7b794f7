"""Objects in a folder (file://), and the temporary files that every adapter needs."""

import contextlib
import errno
import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlops.errors import Damaged, NotFound, OutOfSpace, StorageFailed

ABANDONED = 86_400
"""Seconds after which a file that is not whole yet is given up."""

OTHER = "holds something else already, and what is stored once stays: remove it if it is damaged, and try again"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Files:
    """A folder. What is being written lies in `.incoming` until it is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._incoming = self._folder / ".incoming"
        self._sweep()

    def upload(self, source: Path, key: str) -> None:
        self._store(source, key, lambda copy, target: copy.replace(target))

    def upload_once(self, source: Path, key: str) -> None:
        if not self.exists(key):
            self._store(source, key, _link)
        with translated(str(self._folder)):
            if not filecmp.cmp(source, self._path(key), shallow=False):
                raise Damaged(f"{self.url(key)} {OTHER}")

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

    def _store(self, source: Path, key: str, name: Callable[[Path, Path], object]) -> None:
        """Copy a file whole, and then give the copy its name."""
        target = self._path(key)
        with translated(f"{self._folder}"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, place = tempfile.mkstemp(dir=self._incoming)
            incoming = Path(place)
            try:
                with os.fdopen(handle, "wb") as copy, source.open("rb") as original:
                    shutil.copyfileobj(original, copy, 1 << 20)
                    copy.flush()
                    os.fsync(copy.fileno())
                incoming.chmod(0o644)
                name(incoming, target)
            finally:
                incoming.unlink(missing_ok=True)
            _sync(target.parent)

    def _sweep(self) -> None:
        """Remove what writers that were killed left behind, once nobody can still be writing it."""
        for left in self._incoming.glob("*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)


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


def checked(key: str) -> str:
    """Return a key that is one. Raises `StorageFailed` for one that would leave its place."""
    parts = key.split("/")
    if not all(part and part.strip(".") and "\0" not in part for part in parts):
        raise StorageFailed(f"'{key}' is no key: write names and single slashes, such as models/3/model.json")
    return key


def _link(copy: Path, target: Path) -> None:
    """Give a copy a second name, unless that is taken: of several writers at once the first gets it."""
    try:
        target.hardlink_to(copy)
    except FileExistsError:
        if not target.is_file():
            raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
