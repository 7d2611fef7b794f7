"""Everything that is known as of a moment: the transactions of a snapshot, and what the journal has since then."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from mlops.bootstrap import Connected
from mlops.journaling.journal import Journal
from mlops.journaling.journal_table import JournalTable
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import feature_store

ROW = "row."


def journalled(journal: Journal) -> JournalTable:
    """What a journal holds of this module by now."""
    table = JournalTable(journal, NAME)
    table.read_on()
    return table


def micro(moment: datetime) -> int:
    """A time in UTC as microseconds since 1970."""
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def known(platform: Connected, snapshot: str, table: JournalTable, dataset: DataSet, as_of: datetime) -> pl.DataFrame:
    """Cleaned transactions up to `as_of`, each once, with the label and when it became known, if it was by then.

    Ids and entities are text, as in the journal. What stands in both is taken from the journal. Where labels were
    corrected, the latest counts, from when it was known.
    """
    base = of_snapshot(platform, snapshot, dataset)
    live = _decided(table, dataset)
    both = pl.concat([base.join(live, on=dataset.id_column, how="anti"), live], how="diagonal_relaxed")
    label, at = dataset.label.column, dataset.known_at_column
    in_time = pl.col(at) <= as_of
    both = both.with_columns(pl.when(in_time).then(pl.col(label)), pl.when(in_time).then(pl.col(at)))
    return both.filter(pl.col(dataset.time.column) <= as_of).sort(dataset.time.column, dataset.id_column)


def recorded(dataset: DataSet) -> DataSet:
    """The data set of such a table, which says of each label when it became known."""
    label = dataset.label.model_copy(update={"known_at": dataset.known_at_column, "delay": None})
    return dataset.model_copy(update={"id": dataset.id_column, "label": label})


def of_snapshot(platform: Connected, snapshot: str, dataset: DataSet) -> pl.DataFrame:
    """The transactions of a snapshot with ids, entities and categories as text, and when each label became known."""
    base = feature_store.transactions(platform.objects, snapshot)
    names = [dataset.id_column, *dataset.entities, *dataset.categorical]
    at = dataset.known_at().alias(dataset.known_at_column)
    return base.with_columns(pl.col(*names).cast(pl.String), pl.col(dataset.label.column).cast(pl.Int8), at)


def _decided(table: JournalTable, dataset: DataSet) -> pl.DataFrame:
    """The transactions of the journal, with the latest label of each."""
    decisions = table.decisions
    names = [dataset.id_column, dataset.time.column, *dataset.entities, *dataset.numbers, *dataset.categorical]
    types: Mapping[str, pl.DataType] = {name: _type(name, dataset) for name in names}
    rows = [
        (pl.col(ROW + name) if ROW + name in decisions.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in types.items()
    ]
    facts = table.labels.sort("known_at", "sequence").group_by("about").last()
    labels = facts.select(
        pl.col("about"),
        pl.col("label").cast(pl.Int8).alias(dataset.label.column),
        pl.col("known_at").cast(pl.Datetime("us")).alias(dataset.known_at_column),
    )
    return decisions.select("id", *rows).join(labels, left_on="id", right_on="about", how="left").drop("id")


def _type(name: str, dataset: DataSet) -> pl.DataType:
    if name == dataset.time.column:
        return pl.Datetime("us")
    return pl.Float64() if name in dataset.numbers else pl.String()
