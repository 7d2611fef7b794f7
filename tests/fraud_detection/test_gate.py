"""The gate: what is as good passes, and each way of being worse is refused by its name."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from modules.fraud_detection.src.data.dataset import DataSet, Label, Time
from modules.fraud_detection.src.models.artifact import Thresholds
from modules.fraud_detection.src.models.evaluate import Evaluation, with_earlier_rows
from modules.fraud_detection.src.models.gate import Comparison, Gate, Judged, compare
from modules.fraud_detection.src.utils.metrics import Floats

DATA = DataSet(
    id="id", time=Time(column="time"), entities=("card",), amount="amount", label=Label(column="fraud", delay="7d")
)
WORDS, COSTS, ROWS = Gate(resamples=100), Evaluation(reviews_per_day=40), 6_000


def rows() -> pl.DataFrame:
    """A week of rows; 3 % are fraud, of 50 to 150."""
    draw = np.random.default_rng(0)
    table = pl.DataFrame({
        "id": np.arange(ROWS), "card": draw.integers(0, 400, ROWS),
        "time": [datetime(2025, 1, 6) + timedelta(minutes=minute * 10_080 / ROWS) for minute in range(ROWS)],
        "amount": draw.uniform(50, 150, ROWS), "fraud": (draw.random(ROWS) < 0.03).astype(np.int64),
    })  # fmt: skip
    return with_earlier_rows(table, DATA)


TABLE = rows()
FRAUD = TABLE["fraud"].to_numpy() == 1
HOUR = TABLE["time"].dt.hour().to_numpy()


def scored(sharpness: float, seed: int = 1) -> Floats:
    """Probabilities that tell the more about the labels the sharper they are, and mean what they say."""
    draw = np.random.default_rng(seed)
    evidence = np.where(FRAUD, sharpness, 0.0) + draw.normal(0, 1, ROWS)
    odds = 0.03 / 0.97 * np.exp(sharpness * evidence - sharpness**2 / 2)
    return odds / (1 + odds)


PRODUCTION = Judged(scored(2.0), Thresholds(review=0.1, decline=0.9), 1e-4)


def judged(candidate: Judged, must_gain: bool = False) -> Comparison:
    return compare(TABLE, candidate, PRODUCTION, DATA, COSTS, WORDS, seed=0, must_gain=must_gain)


def test_the_same_again_passes_but_gains_nothing() -> None:
    found = judged(PRODUCTION)
    assert (found.passed, found.reasons) == (True, ())
    assert found.figures["average precision"] == 0
    assert judged(PRODUCTION, must_gain=True).reasons == ("it is not better for sure",)


def test_a_sharper_one_passes_also_where_it_must_gain() -> None:
    found = judged(replace(PRODUCTION, scores=scored(3.0)), must_gain=True)
    assert found.passed, found.reasons
    assert found.figures["average precision, low"] > 0
    assert found.figures["saved per 1,000"] > 0


def test_one_that_ranks_worse_is_refused_with_its_interval() -> None:
    found = judged(replace(PRODUCTION, scores=scored(1.2)))
    assert not found.passed
    assert found.why.startswith("average precision: -0.")
    assert found.figures["average precision, high"] < 0


def test_one_that_lets_frauds_pass_costs_more() -> None:
    (reason,) = judged(replace(PRODUCTION, thresholds=Thresholds(review=0.9, decline=0.95))).reasons
    assert reason.startswith("saved per 1,000: -")


def test_flags_beyond_the_capacity_for_reviews_count_neither_for_nor_against() -> None:
    found = judged(replace(PRODUCTION, thresholds=Thresholds(review=0.0, decline=0.9)))
    within = judged(replace(PRODUCTION, thresholds=Thresholds(review=1e-9, decline=0.9)))
    assert found.figures["saved per 1,000"] == within.figures["saved per 1,000"]


def test_scores_that_do_not_mean_what_they_say_are_refused() -> None:
    odd = replace(PRODUCTION, scores=np.sqrt(PRODUCTION.scores), thresholds=Thresholds(review=0.1**0.5, decline=0.95))
    (reason,) = judged(odd).reasons
    assert reason.startswith("calibration error 0.")


def test_one_that_is_blind_at_night_is_refused_for_the_night() -> None:
    night = HOUR <= 6
    blind = np.where(night, np.random.default_rng(5).permutation(PRODUCTION.scores), scored(3.0))
    assert any("'night' falls from" in reason for reason in judged(replace(PRODUCTION, scores=blind)).reasons)


def test_a_slow_one_is_refused() -> None:
    (reason,) = judged(replace(PRODUCTION, seconds=6e-4)).reasons
    assert reason == "one row takes 6.0 times as long, over 5.0"


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_does_not_let_one_pass_that_must_gain(seed: int) -> None:
    assert not judged(replace(PRODUCTION, scores=scored(2.0, seed=seed + 10)), must_gain=True).passed
