"""Real changes in public data: nothing is said before them, and they are found after."""

import numpy as np
import polars as pl
import pytest
from sklearn.tree import DecisionTreeClassifier

from monitoring.drift import Drift, compare
from monitoring.performance import calibrate, concept_drift, estimate, realised
from monitoring.profile import profile
from tests.conftest import shared

CHANGE = 17_424
"""The first row of ELEC2 at which Victoria's prices, its demand and the transfer are no longer constants."""
CONSTANTS = ["vicprice", "vicdemand", "transfer"]
LOAN = "drift/nannyml_car_loan_"
MIDDLE = 25_000
"""The row of the car loans' second half-year at which its applicants begin to differ."""


@pytest.fixture(scope="module")
def prices() -> pl.DataFrame:
    return pl.read_parquet(shared("drift/elec2.parquet")).drop("class")


@pytest.fixture(scope="module")
def loans() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Car loans with the score of a model: half a year to compare with, and the next, with what became of them."""
    then, now = (pl.read_parquet(shared(f"{LOAN}{name}.parquet")) for name in ("reference", "analysis"))
    now = now.join(pl.read_parquet(shared(f"{LOAN}analysis_target.parquet")), on="id", maintain_order="left")
    both = [table.drop("id", "timestamp", "y_pred").rename({"y_pred_proba": "score"}) for table in (then, now)]
    return both[0], both[1]


def drifted(then: pl.DataFrame, now: pl.DataFrame, look: int = 1) -> list[str]:
    found = compare(profile(then, then.columns), now, Drift(), look)
    return sorted(column.name for column in found if column.verdict == "drifted")


def test_columns_that_were_constant_for_a_year_are_found_when_they_move(prices: pl.DataFrame) -> None:
    then = prices[:10_000].select(*CONSTANTS, "period")
    for look, start in enumerate(range(10_000, CHANGE, 1_000), 1):
        assert drifted(then, prices[start : min(start + 1_000, CHANGE)].select(then.columns), look) == []
    assert drifted(then, prices[CHANGE : CHANGE + 500], 9) == sorted(CONSTANTS)


def test_a_season_is_drift_and_the_same_rows_shuffled_are_not(prices: pl.DataFrame) -> None:
    before = prices[:CHANGE]
    assert drifted(before[:10_000], before[10_000:]) == ["nswdemand", "nswprice"]
    mixed = before.sample(fraction=1, shuffle=True, seed=0)
    assert drifted(mixed[:10_000], mixed[10_000:]) == []


def test_applicants_that_change_are_found_and_none_before(loans: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    then, now = loans[0].drop("repaid"), loans[1].drop("repaid")
    for look, start in enumerate(range(0, MIDDLE, 5_000), 1):
        assert drifted(then, now[start : start + 5_000], look) == []
    found = drifted(then, now[MIDDLE:], 6)
    assert found == ["car_value", "loan_length", "repaid_loan_on_prev_car", "salary_range", "score"]


def test_performance_is_estimated_before_labels_come_nearly_as_it_is(
    loans: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    then, now = ((table["score"].to_numpy(), table["repaid"].cast(pl.Int64).to_numpy()) for table in loans)
    calibration, fell = calibrate(*then), []
    for part in (slice(0, MIDDLE), slice(MIDDLE, None)):
        promised, came = estimate(calibration, now[0][part]).expected, realised(now[0][part], now[1][part])
        assert promised.average_precision == pytest.approx(came.average_precision, abs=0.003)
        assert promised.roc_auc == pytest.approx(came.roc_auc, abs=0.003)
        fell.append((promised.roc_auc, came.roc_auc))
        # The meaning of the score moves a little in the second part, and by far less than its limit.
        assert concept_drift(calibration, now[0][part], now[1][part], Drift()).verdict == "stable"
    # Both the estimate and the truth see that the changed applicants are harder to tell apart.
    assert all(
        before is not None and after is not None and before - after > 0.008 for before, after in zip(*fell, strict=True)
    )


def test_a_circle_that_grows_is_concept_drift_that_no_estimate_sees() -> None:
    table = pl.read_parquet(shared("drift/minku_circle.parquet"))
    # In this file the label, in or out of the circle, stands in the column `var2`.
    inputs, labels = table.select("var1"), table["var2"].cast(pl.Int64).to_numpy()
    model = DecisionTreeClassifier(max_depth=3, min_samples_leaf=20, random_state=0)
    model.fit(inputs[:400].to_numpy(), labels[:400])
    scores: np.ndarray = model.predict_proba(inputs.to_numpy())[:, 1]
    calibration, words = calibrate(scores[400:800], labels[400:800]), Drift(rows=200, labels=200)
    verdicts = [
        concept_drift(calibration, scores[start : start + 250], labels[start : start + 250], words, look).verdict
        for look, start in enumerate((750, 1_250, 1_500, 1_750), 1)
    ]
    assert verdicts == ["stable", "drifted", "drifted", "drifted"]
    promised, came = estimate(calibration, scores[1_250:]).expected, realised(scores[1_250:], labels[1_250:])
    # The estimate cannot know, which is why the score is tested.
    assert promised.positives < 0.6 * came.positives
