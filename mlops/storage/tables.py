"""Tables of rows as somebody has them: CSV or Parquet, a file, a folder of files, or an s3:// key."""

import difflib
import errno
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from mlops.errors import BadData, NotFound
from mlops.storage import objects
from mlops.storage.objects import PROCESSED, RAW, Objects

SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """The files of one data set as they came, and the hash of their bytes."""

    files: tuple[Path, ...]
    hash: str


def source(files: Sequence[Path]) -> Source:
    """The files as one source."""
    return Source(tuple(files), objects.digest_of_all(files))


def find(where: str, folder: Path) -> Source:
    """Find the files that `where` names; those of a bucket are fetched into `folder`. Raises `NotFound`."""
    if where.startswith("s3://"):
        return source(_tables(objects.fetch(where, folder), where))
    return source(_tables(_local(Path(where)), where))


def read(given: Source, columns: Sequence[str], optional: Collection[str] = ()) -> pl.DataFrame:
    """Read columns, one row per input row, in input order, values as they stand; `optional` ones may be absent.

    CSV is read as text, so that `00123` stays an id and a word in a number column is found by validation. Raises
    `BadData` for an empty table, a missing column or an unreadable file.
    """
    read = [_read(file, columns, optional) for file in given.files]
    try:
        table = pl.concat(read, how="vertical_relaxed") if len(read) > 1 else read[0]
    except PolarsError as error:
        raise BadData(f"the files do not fit together: {error}; give files of one shape") from None
    if table.is_empty():
        raise BadData(f"{_names(given)} holds no rows")
    return table.with_columns(pl.lit(None).alias(name) for name in missing(columns, table.columns))


def take_in(store: Objects, given: Source) -> list[str]:
    """Copy files as they came, under the hash of their content; return their keys."""
    names = [f"{RAW}/{given.hash[:16]}/{place:03d}-{file.name}" for place, file in enumerate(given.files)]
    for file, name in zip(given.files, names, strict=True):
        store.upload_once(file, name)
    return names


def taken_in(store: Objects, names: Sequence[str], hash_: str, folder: Path) -> Source:
    """Fetch files that were taken in, into `folder`."""
    return Source(tuple(objects.download_all(store, names, folder)), hash_)


def put(store: Objects, table: pl.DataFrame, name: str) -> str:
    """Store a table among what was processed, under the hash of its bytes; return its key."""
    with objects.scratch() as folder:
        path = folder / f"{name}.parquet"
        write(table, path)
        key = f"{PROCESSED}/{name}/{objects.digest(path)[:16]}.parquet"
        store.upload_once(path, key)
    return key


def write(table: pl.DataFrame, path: Path) -> None:
    """Write Parquet, or CSV where the name ends so. Raises `OSError`, also where Polars calls it a computation."""
    try:
        if path.suffix == ".csv":
            table.write_csv(path)
        else:
            table.write_parquet(path)
    except PolarsError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from None


def missing(columns: Sequence[str], present: Sequence[str]) -> list[str]:
    """Name the columns that are not present, in order."""
    return [name for name in columns if name not in set(present)]


def _local(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    raise NotFound(f"there is no data at '{path}'; give a CSV or Parquet file, a folder of them, or an s3:// key")


def _tables(files: Sequence[Path], where: str) -> list[Path]:
    found = [file for file in files if file.suffix in SUFFIXES]
    if not found:
        raise NotFound(f"'{where}' holds no {' or '.join(SUFFIXES)} file")
    return found


def _read(file: Path, columns: Sequence[str], optional: Collection[str]) -> pl.DataFrame:
    if file.stat().st_size == 0:
        raise BadData(f"'{file}' is empty")
    try:
        lazy = pl.scan_parquet(file) if file.suffix == ".parquet" else pl.scan_csv(file, infer_schema=False)
        present = lazy.collect_schema().names()
        absent = [name for name in missing(columns, present) if name not in optional]
        if absent:
            raise BadData(_explain_missing(file, absent[0], present))
        return lazy.select([name for name in columns if name in present]).collect()
    except (PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadData(f"'{file}' cannot be read as {file.suffix[1:].upper()}: {reason}") from None


def _explain_missing(file: Path, name: str, present: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    has = ", ".join(present)
    return f"'{file}' has no column '{name}'; {hint}It has: {has}. Correct the group 'data' of the configuration"


def _names(given: Source) -> str:
    return ", ".join(f"'{file}'" for file in given.files[:3]) + (" ..." if len(given.files) > 3 else "")
