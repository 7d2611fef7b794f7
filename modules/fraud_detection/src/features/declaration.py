"""What a feature is: the one declaration that every execution reads. Nothing here knows an engine.

A row at time t sees, in a window of length w, the rows of its entity with time in (t - w, t], itself included; with a
delay d those in (t - d - w, t - d]. Rows of one entity at one time are ordered by their id, and a row sees those before
it, never those after. In a window over the label a row counts only once its label is known, and never for itself.
A row whose entity is empty has no past: its counts, sums and shares are 0, its means, extremes and gaps empty.
A gap is looked for as far back as the entity's longest window reaches, at least 30 days; beyond that it is empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from mlops.values import Duration, Group, seconds
from modules.fraud_detection.src.data.dataset import DataSet

Aggregate = Literal["count", "sum", "mean", "min", "max", "distinct", "share"]
RowKind = Literal["column", "log", "hour", "weekday", "weekend", "night", "ratio", "difference"]

OVER_LABEL = ("count", "sum", "share")
TIME_KINDS = ("hour", "weekday", "weekend", "night")
PAIR_KINDS = ("ratio", "difference")
LAST_HOUR_OF_NIGHT = 6
SHORTEST_REACH = seconds("30d")


class Row(Group):
    """A feature of the row alone, or of features declared before it."""

    name: str = Field(description="The feature's name.")
    kind: RowKind = Field("column", description="How it is made; night is the hours 0 to 6.")
    of: str = Field(description="The column or the feature it is made of.")
    to: str | None = Field(None, description="The second feature of a ratio (of / to) or a difference (of - to).")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.to is not None) != (self.kind in PAIR_KINDS):
            raise ValueError(
                f"feature '{self.name}': a ratio or a difference has 'of' and 'to', every other kind only 'of'"
            )
        return self


class Window(Group):
    """Features of an entity's past: each aggregate of `of` over each length."""

    entity: str = Field(description="Whose past.")
    of: str = Field(description="The column that is aggregated: a number, a category (distinct) or the label.")
    aggregates: tuple[Aggregate, ...] = Field(min_length=1, description="What is said of the window.")
    lengths: tuple[Duration, ...] = Field(min_length=1, description="How long the windows are.")
    delay: Duration = Field("0s", description="How far before the row the windows end.")

    def name(self, aggregate: str, length: str) -> str:
        """The name of one feature, such as `customer_id_amount_mean_7d` or `terminal_id_is_fraud_share_30d_7d_ago`."""
        ago = "" if seconds(self.delay) == 0 else f"_{self.delay}_ago"
        return f"{self.entity}_{self.of}_{aggregate}_{length}{ago}"


class Declaration(Group):
    """All features of a model, in order: windows and gaps first, because row features may be made of them."""

    windows: tuple[Window, ...] = Field((), description="Features of an entity's past.")
    gaps: tuple[str, ...] = Field((), description="Entities: seconds since their last transaction, within reach.")
    rows: tuple[Row, ...] = Field((), description="Features of the row, and of features before it.")
    drop: tuple[str, ...] = Field((), description="Features that others are made of but the model does not see.")


@dataclass(frozen=True)
class Feature:
    """One feature that the model sees."""

    name: str
    is_category: bool


def features(declaration: Declaration, dataset: DataSet) -> list[Feature]:
    """Name every feature in order and check that each can be made.

    Raises `ValueError`, naming the feature and the way out, when a column, entity or feature is unknown, an aggregate
    does not fit, or a name stands twice.
    """
    found = [feature for window in declaration.windows for feature in _of_window(window, dataset)]
    for entity in declaration.gaps:
        if entity not in dataset.entities:
            raise ValueError(
                f"'gaps' names '{entity}', which is no entity; data.entities has: {_list(dataset.entities)}"
            )
        found.append(Feature(gap_name(entity), False))
    for row in declaration.rows:
        found = [*found, _of_row(row, dataset, [feature.name for feature in found])]
    names = [feature.name for feature in found]
    copies = {row.name for row in declaration.rows if row.kind == "column" and row.of == row.name}
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"feature '{name}' is declared twice; remove one")
        if name in dataset.columns and name not in copies:
            raise ValueError(f"feature '{name}' has the name of a column but is not that column; give it another name")
    for name in declaration.drop:
        if name not in names:
            raise ValueError(f"'drop' names feature '{name}', which is not declared")
    return [feature for feature in found if feature.name not in declaration.drop]


def reach(declaration: Declaration, entity: str) -> int:
    """How many seconds of an entity's past its features can see: no more needs to be remembered."""
    windows = (window for window in declaration.windows if window.entity == entity)
    ends = [seconds(window.delay) + seconds(length) for window in windows for length in window.lengths]
    return max([*ends, SHORTEST_REACH if entity in declaration.gaps else 0])


def gap_name(entity: str) -> str:
    """The name of the time since an entity's last transaction."""
    return f"{entity}_seconds_since_last"


def default(dataset: DataSet) -> Declaration:
    """The features of a data set whose configuration declares none: every column, and each entity's recent past."""
    lengths = ("1d", "7d", "30d")
    windows = []
    for entity in dataset.entities:
        if dataset.amount is not None:
            windows.append(Window(entity=entity, of=dataset.amount, aggregates=("count", "mean"), lengths=lengths))
        delay = dataset.label.delay or "0s"
        windows.append(
            Window(entity=entity, of=dataset.label.column, aggregates=("count", "share"), lengths=lengths, delay=delay)
        )
    columns = [Row(name=name, of=name) for name in [*dataset.numbers, *dataset.categorical]]
    amount = dataset.amount
    ratios = [
        Row(name=f"{amount}_to_{entity}_mean_30d", kind="ratio", of=amount, to=f"{entity}_{amount}_mean_30d")
        for entity in dataset.entities
        if amount is not None
    ]
    time = [
        Row(name="during_weekend", kind="weekend", of=dataset.time.column),
        Row(name="during_night", kind="night", of=dataset.time.column),
    ]
    return Declaration(windows=tuple(windows), gaps=dataset.entities, rows=(*columns, *ratios, *time))


def _of_window(window: Window, dataset: DataSet) -> list[Feature]:
    where = f"window over '{window.of}' of '{window.entity}'"
    if window.entity not in dataset.entities:
        raise ValueError(f"{where}: '{window.entity}' is no entity; data.entities has: {_list(dataset.entities)}")
    over_label = window.of == dataset.label.column
    for aggregate in window.aggregates:
        if over_label != (aggregate in OVER_LABEL) and aggregate not in ("count", "sum"):
            raise ValueError(
                f"{where}: '{aggregate}' does not fit; over the label say {_list(OVER_LABEL)}, else not 'share'"
            )
        if not over_label and aggregate == "distinct" and window.of not in (*dataset.entities, *dataset.categorical):
            raise ValueError(f"{where}: 'distinct' counts an entity or a category, and '{window.of}' is neither")
        if not over_label and aggregate not in ("count", "distinct") and window.of not in dataset.numbers:
            raise ValueError(f"{where}: '{aggregate}' needs a column of numbers; data has: {_list(dataset.numbers)}")
    if window.of not in dataset.columns:
        raise ValueError(f"{where}: the data has no column '{window.of}'")
    if any(seconds(length) == 0 for length in window.lengths):
        raise ValueError(f"{where}: a window needs a length above 0")
    return [Feature(window.name(a, length), False) for length in window.lengths for a in window.aggregates]


def _of_row(row: Row, dataset: DataSet, before: Sequence[str]) -> Feature:
    numbers = [*dataset.numbers, *before]
    if row.kind in TIME_KINDS:
        known = [dataset.time.column]
    elif row.kind == "column":
        known = [*dataset.numbers, *dataset.categorical]
    else:
        known = numbers
    for name in (row.of, row.to):
        if name is not None and name not in known:
            raise ValueError(f"feature '{row.name}' is made of '{name}', which is not among: {_list(known)}")
    return Feature(row.name, row.kind == "column" and row.of in dataset.categorical)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
