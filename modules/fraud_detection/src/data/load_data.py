"""Reading transactions from CSV or Parquet: a file, a folder of files, an s3:// key, or a simulation."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import ComputeError, NoDataError, PolarsError

from mlops.errors import BadData, NotFound
from mlops.storage import objects
from modules.fraud_detection.src.data import synthetic, tables
from modules.fraud_detection.src.data.dataset import DataSet, missing
from modules.fraud_detection.src.data.synthetic import Simulation

SIMULATED = "simulation"
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """The files of one data set as they came, and the hash of their bytes."""

    files: tuple[Path, ...]
    hash: str


@contextmanager
def open_source(where: str, simulation: Simulation | None = None) -> Iterator[Source]:
    """Find the files that `where` names, or make those of a simulation where it says so.

    Those of a bucket and of a simulation lie in a folder that lasts as long as the block. Raises `NotFound`.
    """
    with objects.scratch() as folder:
        files: Sequence[Path]
        if where == SIMULATED and simulation is not None:
            files = [folder / "transactions.parquet"]
            tables.write(synthetic.simulate(simulation), files[0])
        elif where.startswith("s3://"):
            files = _tables(objects.fetch(where, folder), where)
        else:
            files = _tables(_local(Path(where)), where)
        yield Source(tuple(files), objects.digest_of_all(files))


def load(source: Source, dataset: DataSet, labelled: bool = True) -> pl.DataFrame:
    """Read the columns that `dataset` names, one row per input row, in input order, values as they stand.

    CSV is read as text, so that `00123` stays an id and a word in a number column is found by validation. Without
    `labelled` the label's columns may be absent. Raises `BadData` for an empty table, a missing column or an
    unreadable file.
    """
    wanted = dataset.columns
    optional = set() if labelled else {dataset.label.column, dataset.label.known_at}
    read = [_read(file, wanted, optional) for file in source.files]
    try:
        table = pl.concat(read, how="vertical_relaxed") if len(read) > 1 else read[0]
    except PolarsError as error:
        raise BadData(f"the files do not fit together: {error}; give files of one shape") from None
    if table.is_empty():
        raise BadData(f"{_names(source)} holds no rows")
    for name in missing(dataset.columns, table.columns):
        table = table.with_columns(pl.lit(None).alias(name))
    if dataset.id is None:
        table = table.with_row_index(dataset.id_column)
    return table


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


def _read(file: Path, wanted: Sequence[str], optional: set[str | None]) -> pl.DataFrame:
    if file.stat().st_size == 0:
        raise BadData(f"'{file}' is empty")
    try:
        lazy = pl.scan_parquet(file) if file.suffix == ".parquet" else pl.scan_csv(file, infer_schema=False)
        present = lazy.collect_schema().names()
        absent = [name for name in missing(wanted, present) if name not in optional]
        if absent:
            raise BadData(_explain_missing(file, absent[0], present))
        return lazy.select([name for name in wanted if name in present]).collect()
    except (ComputeError, NoDataError, PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadData(f"'{file}' cannot be read as {file.suffix[1:].upper()}: {reason}") from None


def _explain_missing(file: Path, name: str, present: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    has = ", ".join(present)
    return f"'{file}' has no column '{name}'; {hint}It has: {has}. Correct the group 'data' of the configuration"


def _names(source: Source) -> str:
    return ", ".join(f"'{file}'" for file in source.files[:3]) + (" ..." if len(source.files) > 3 else "")
