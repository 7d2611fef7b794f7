"""Reading transactions: a table as somebody has it, or a simulation."""

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from mlops.storage import objects, tables
from mlops.storage.tables import Source
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.data.synthetic import Simulation

SIMULATED = "simulation"


@contextmanager
def open_source(where: str, simulation: Simulation | None = None) -> Iterator[Source]:
    """Find the files that `where` names, or make those of a simulation where it says so.

    Those of a bucket and of a simulation lie in a folder that lasts as long as the block. Raises `NotFound`.
    """
    with objects.scratch() as folder:
        if where == SIMULATED and simulation is not None:
            path = folder / "transactions.parquet"
            tables.write(synthetic.simulate(simulation), path)
            yield tables.source([path])
        else:
            yield tables.find(where, folder)


def load(source: Source, dataset: DataSet, labelled: bool = True) -> pl.DataFrame:
    """Read the columns that `dataset` names, one row per input row, in input order, values as they stand.

    Without `labelled` the label's columns may be absent. Raises `BadData` for an empty table, a missing column or an
    unreadable file.
    """
    optional = [] if labelled else [dataset.label.column, dataset.label.known_at or dataset.label.column]
    table = tables.read(source, dataset.columns, optional)
    return table if dataset.id is not None else table.with_row_index(dataset.id_column)
