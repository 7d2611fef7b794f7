"""The handbook's published results: repeated on its own protocol, and beaten."""

import pytest
from rich.console import Console

from modules.fraud_detection import benchmark
from modules.fraud_detection.benchmark import BEST, PUBLISHED, Result
from tests.conftest import shared


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return dict(benchmark.run(str(shared("fraud_handbook/transactions.parquet")), Console(quiet=True)))


@pytest.mark.parametrize("name", ["logistic, one split", "logistic"])
def test_logistic_regression_is_within_five_thousandths_of_the_published_figures(
    name: str, results: dict[str, Result]
) -> None:
    ours, published = results[name], PUBLISHED[name]
    assert ours.roc_auc == pytest.approx(published.roc_auc, abs=0.005)
    assert ours.average_precision == pytest.approx(published.average_precision, abs=0.005)
    assert ours.card_precision == pytest.approx(published.card_precision, abs=0.005)


def test_xgboost_on_the_published_features_reaches_the_best_published_average_precision(
    results: dict[str, Result],
) -> None:
    assert results["XGBoost"].average_precision >= 0.694


def test_our_own_features_beat_the_best_published_figure_of_every_column(results: dict[str, Result]) -> None:
    ours = results["XGBoost, own features"]
    assert ours.roc_auc > BEST.roc_auc
    assert ours.average_precision > BEST.average_precision
    assert ours.card_precision > BEST.card_precision
