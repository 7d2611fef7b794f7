"""Every feature of every row of a table, for whoever wants to look at them or train elsewhere."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from mlops.errors import BadInput
from mlops.storage import tables
from mlops.storage.objects import translated
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.data import load_data
from modules.fraud_detection.src.features import build_features
from modules.fraud_detection.src.validation import data_validation, transform
from modules.fraud_detection.src.validation.data_validation import ROW


def write(source: str, out: Path, settings: Settings) -> tuple[int, int]:
    """Write the id and every feature of each row of `source` to `out`, in input order; count all and bad rows.

    A bad row keeps its place, with every feature empty. Labels may be missing altogether: nothing is known then.
    Raises `BadData` when more rows are bad than the rules allow.
    """
    if out.suffix not in tables.SUFFIXES:
        raise BadInput(f"--out is '{out}'; name a file that ends in {' or '.join(tables.SUFFIXES)}")
    with load_data.open_source(source) as files:
        table = load_data.load(files, settings.data, labelled=False)
    now = datetime.now(UTC).replace(tzinfo=None)
    checked = data_validation.check(table, settings.data, settings.validation, now)
    data_validation.enforce(checked, settings.validation)
    built = build_features.build(transform.clean(checked.good, settings.transform), settings.data, settings.features)
    id_ = settings.data.id_column
    rows = checked.good.select(ROW).hstack(built.drop(id_))
    whole = table.select(id_).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    _save(whole.join(rows, on=ROW, how="left", maintain_order="left").drop(ROW), out)
    return checked.rows, checked.bad_rows


def _save(table: pl.DataFrame, out: Path) -> None:
    """Write beside the target and move into place, so that a broken write leaves no half table."""
    with translated(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.parent, suffix=out.suffix)
        os.close(handle)
        incoming = Path(name)
        try:
            tables.write(table, incoming)
            incoming.chmod(0o644)
            incoming.replace(out)
        finally:
            incoming.unlink(missing_ok=True)
