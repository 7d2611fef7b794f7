"""The Fraud Detection Handbook's published results, repeated on its own data and protocol, with ours beside them.

Source: Le Borgne, Siblini, Lebichot, Bontempi, Reproducible Machine Learning for Credit Card Fraud Detection (2022),
chapters 3 (one split) and 5 (four folds).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from modules.fraud_detection import settings
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.data import load_data
from modules.fraud_detection.src.features import build_features, declaration
from modules.fraud_detection.src.models import fit
from modules.fraud_detection.src.models.fit import Recipe
from modules.fraud_detection.src.utils import metrics
from modules.fraud_detection.src.utils.metrics import Ranking
from modules.fraud_detection.src.validation import data_validation

PUBLISHED_FEATURES = settings.FILE.with_name("handbook.yaml")
OWN_FEATURES = settings.FILE.with_name("handbook_own.yaml")
FOLDS = (date(2018, 7, 25), date(2018, 8, 1), date(2018, 8, 8), date(2018, 8, 15))
CHOOSING_FOLDS = tuple(date(2018, 5, 16) + timedelta(7 * week) for week in range(9))
"""Where our own features and parameters were chosen: the last of these folds ends before the first test week begins."""
WEEK = 7
TOP = 100


@dataclass(frozen=True)
class Result:
    """The three published metrics."""

    roc_auc: float
    average_precision: float
    card_precision: float


PUBLISHED = {
    "logistic, one split": Result(0.871, 0.606, 0.291),
    "logistic": Result(0.868, 0.623, 0.297),
    "decision tree, depth 2": Result(0.797, 0.579, 0.284),
    "random forest": Result(0.870, 0.678, 0.299),
    "XGBoost": Result(0.869, 0.687, 0.303),
    "feed-forward network": Result(0.876, 0.675, 0.303),
    "LSTM": Result(0.876, 0.665, 0.297),
    "balanced bagging": Result(0.879, 0.680, 0.305),
    "weighted XGBoost": Result(0.872, 0.687, 0.300),
}
BEST = Result(0.879, 0.694, 0.305)


def run(source: str, console: Console, choosing: bool = False) -> Mapping[str, Result]:
    """Run every entry on the four test folds, or on those of `choosing`; print the table and return results by name."""
    folds = CHOOSING_FOLDS if choosing else FOLDS
    published, own = (settings.read(file, "local", {}) for file in (PUBLISHED_FEATURES, OWN_FEATURES))
    tables = {id(read): features(source, read) for read in (published, own)}
    entries = {
        "logistic, one split": (published, Recipe("logreg", {}, 0), folds[:1]),
        "logistic": (published, Recipe("logreg", {}, 0), folds),
        "XGBoost": (published, published.model.recipes[0], folds),
        "logistic, own features": (own, Recipe("logreg", {}, 0), folds),
        "XGBoost, own features": (own, own.model.recipes[0], folds),
    }
    found = {}
    for name, (read, recipe, starts) in entries.items():
        results = [on_fold(tables[id(read)], start, read, recipe) for start in starts]
        found[name] = _mean(results)
    console.print(_table(found, "nine choosing folds" if choosing else "four folds"))
    return found


def features(source: str, read: Settings) -> pl.DataFrame:
    """The transactions of `source` with every feature that `read` declares."""
    with load_data.open_source(source) as files:
        table = load_data.load(files, read.data)
    checked = data_validation.check(table, read.data, read.validation, datetime.now(UTC).replace(tzinfo=None))
    data_validation.enforce(checked, read.validation)
    built = build_features.build(checked.good, read.data, read.features)
    return checked.good.with_columns(built.drop(read.data.id_column))


def on_fold(table: pl.DataFrame, start: date, read: Settings, recipe: Recipe) -> Result:
    """Train on the week from `start`, wait a week for its labels, test on the week after that."""
    label, customer = read.data.label.column, read.data.entities[0]
    train, test = _days(table, read, start, WEEK), _test(table, start, read)
    fitted = fit.fit(train, declaration.features(read.features, read.data), recipe, read.data)
    scores, labels = fitted.score(test), fit.labels(test, read.data)
    ranking, ones = Ranking.of(scores, labels), np.ones(test.height)
    days = test[read.data.time.column].dt.date().to_physical().to_numpy().astype(np.int64)
    cards = test[customer].cast(pl.Int64).to_numpy()
    return Result(
        roc_auc=metrics.roc_auc(ranking, ones),
        average_precision=metrics.average_precision(ranking, ones),
        card_precision=metrics.precision_at(TOP, days, cards, scores, test[label].cast(pl.Int64).to_numpy()),
    )


def _test(table: pl.DataFrame, start: date, read: Settings) -> pl.DataFrame:
    """The test week without the cards already known as compromised on each of its days."""
    label, customer = read.data.label.column, read.data.entities[0]
    fraud = pl.col(label) == 1
    known = [_days(table, read, start, WEEK).filter(fraud)[customer]]
    days = []
    for day in range(WEEK):
        known.append(_days(table, read, start + timedelta(WEEK + day - 1), 1).filter(fraud)[customer])
        rows = _days(table, read, start + timedelta(2 * WEEK + day), 1)
        days.append(rows.filter(~pl.col(customer).is_in(pl.concat(known).unique().implode())))
    return pl.concat(days)


def _days(table: pl.DataFrame, read: Settings, start: date, days: int) -> pl.DataFrame:
    time = pl.col(read.data.time.column).dt.date()
    return table.filter((time >= start) & (time < start + timedelta(days)))


def _mean(results: Sequence[Result]) -> Result:
    columns = ([getattr(one, name) for one in results] for name in ("roc_auc", "average_precision", "card_precision"))
    return Result(*(float(np.mean(column)) for column in columns))


def _table(found: Mapping[str, Result], folds: str) -> Table:
    table = Table(title=f"Fraud Detection Handbook: published (four folds) and ours ({folds})", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("AUC", "ours", "AP", "ours", "CP@100", "ours"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, published, ours in _rows(found):
        pairs = zip(_cells(published, 3), _cells(ours, 4), strict=True)
        table.add_row(name, *(cell for pair in pairs for cell in pair), style="bold" if published is BEST else "")
    table.caption = "AUC: area under ROC; AP: average precision; CP@100: card precision at 100"
    return table


def _rows(found: Mapping[str, Result]) -> Iterator[tuple[str, Result | None, Result | None]]:
    for name, result in PUBLISHED.items():
        yield name, result, found.get(name)
    yield "best published", BEST, None
    for name, ours in found.items():
        if name not in PUBLISHED:
            yield name, None, ours


def _cells(result: Result | None, digits: int) -> Sequence[str]:
    if result is None:
        return [""] * 3
    return [f"{value:.{digits}f}" for value in (result.roc_auc, result.average_precision, result.card_precision)]
