"""Writing a table to a local file, with the operating system's own error when that fails."""

import errno
import os
import re
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError


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
