"""Thresholds and the report: the cheapest review within capacity by brute force, and every metric and slice by hand."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.fraud_detection.src.data.dataset import DataSet, Label, Time
from modules.fraud_detection.src.models.artifact import Thresholds
from modules.fraud_detection.src.models.evaluate import (
    EARLIER_ROWS,
    UNREACHABLE,
    Evaluation,
    Report,
    choose_thresholds,
    clumping,
    report,
    with_earlier_rows,
)
from modules.fraud_detection.src.utils import metrics
from modules.fraud_detection.src.utils.metrics import Floats

DATA = DataSet.model_validate(
    {
        "id": "id",
        "time": {"column": "time"},
        "entities": ["customer"],
        "amount": "amount",
        "label": {"column": "fraud", "delay": "7d"},
    }
)
BARE = DataSet.model_validate({"id": "id", "time": {"column": "time"}, "label": {"column": "fraud", "delay": "7d"}})
START = datetime(2025, 1, 1, 12)


def table(
    labels: list[int],
    amounts: list[float | None] | None = None,
    days: list[int] | None = None,
    customers: list[int] | None = None,
) -> pl.DataFrame:
    """Rows at noon, all of the first day and of one customer unless they say otherwise."""
    size = len(labels)
    columns = {
        "id": list(range(size)),
        "time": [START + timedelta(days=day) for day in days or [0] * size],
        "customer": customers or [1] * size,
        "amount": amounts or [100.0] * size,
        "fraud": labels,
    }
    return pl.DataFrame(columns, schema_overrides={"amount": pl.Float64})


def chosen(rows: pl.DataFrame, scores: list[float], dataset: DataSet = DATA, **words: Any) -> Thresholds:
    return choose_thresholds(rows, np.array(scores), dataset, Evaluation.model_validate(words))


def reported(rows: pl.DataFrame, scores: list[float], dataset: DataSet = DATA, review: float = 0.5) -> Report:
    words = Evaluation(resamples=10, top=2)
    known = with_earlier_rows(rows, dataset)
    return report(known, np.array(scores), Thresholds(review=review, decline=1.0), dataset, words, seed=0)


ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.8, 0.95]), st.integers(0, 1), st.integers(0, 60), st.integers(0, 2)
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 5), st.integers(0, 30), st.sampled_from([0.25, 0.5, 0.9, 1.0]))
def test_thresholds_are_the_best_of_all_that_there_are(
    drawn: list[tuple[float, int, int, int]], capacity: int, review_cost: int, precision: float
) -> None:
    scores = np.array([row[0] for row in drawn])
    labels = np.array([row[1] for row in drawn])
    amounts = [float(row[2]) for row in drawn]
    rows = table(labels.tolist(), list(amounts), [row[3] for row in drawn])
    found = chosen(
        rows, scores.tolist(), reviews_per_day=capacity, review_cost=review_cost, decline_precision=precision
    )

    def cost(threshold: float) -> float:
        return metrics.cost(scores >= threshold, labels, np.array(amounts), review_cost)

    pure = [score for score in set(scores) if labels[scores >= score].mean() >= precision]
    assert found.decline == min(pure, default=UNREACHABLE)
    affordable = [score for score in set(scores) if (scores >= score).sum() <= capacity * rows["time"].n_unique()]
    cheapest = min(cost(score) for score in [*affordable, UNREACHABLE])
    assert found.review <= found.decline
    if found.review < found.decline:
        assert (scores >= found.review).sum() <= capacity * rows["time"].n_unique()
        assert cost(found.review) == pytest.approx(cheapest)
    else:
        # Whoever is declined needs no review, and nothing below is worth one.
        assert all(cost(score) >= cheapest for score in affordable if score < found.decline)
        assert any(
            cost(score) == pytest.approx(cheapest) for score in [*affordable, UNREACHABLE] if score >= found.decline
        )


def test_the_review_threshold_by_hand() -> None:
    # A review costs 20. From the top: +80, -20, +60, -20, +5 - 20: best is to stop after the third.
    rows = table([1, 0, 1, 0, 1], [100, 50, 80, 50, 5])
    assert chosen(rows, [0.9, 0.8, 0.7, 0.6, 0.5], review_cost=20, decline_precision=1).review == 0.7


def test_capacity_stops_the_reviews_where_more_would_pay() -> None:
    rows = table([1] * 3 + [0] + [1] * 4, days=[0] * 4 + [1] * 4)
    scores = [0.6, 0.7, 0.8, 0.9, 0.2, 0.3, 0.4, 0.5]
    assert [chosen(rows, scores, reviews_per_day=n, decline_precision=1).review for n in (1, 2, 3, 4)] == [
        0.8, 0.6, 0.4, 0.2,
    ]  # fmt: skip


def test_equal_scores_are_reviewed_together_or_not_at_all() -> None:
    rows = table([0, 1, 1, 1])
    assert chosen(rows, [0.9, 0.5, 0.5, 0.5], reviews_per_day=3).review == UNREACHABLE
    assert chosen(rows, [0.9, 0.5, 0.5, 0.5], reviews_per_day=4).review == 0.5


def test_nothing_is_flagged_where_flagging_never_pays() -> None:
    rows, scores = table([0, 1, 0, 1], [500, 4, 500, 4]), [0.9, 0.8, 0.7, 0.6]
    assert chosen(rows, scores, review_cost=5) == Thresholds(review=UNREACHABLE, decline=UNREACHABLE)


def test_the_loss_is_the_amounts_share_or_a_fixed_sum_where_there_is_no_amount() -> None:
    rows, scores = table([0, 1], [10, 10]), [0.9, 0.8]
    assert chosen(rows, scores, review_cost=4, loss_share=1).review == 0.8
    assert chosen(rows, scores, review_cost=4, loss_share=0.5).review == UNREACHABLE
    assert chosen(rows, scores, BARE, review_cost=4, loss_fixed=7).review == UNREACHABLE
    assert chosen(rows, scores, BARE, review_cost=4, loss_fixed=9).review == 0.8
    assert chosen(table([0, 1], [10, None]), scores, review_cost=4).review == UNREACHABLE


def test_decline_begins_at_the_lowest_score_from_which_on_the_share_of_fraud_is_reached() -> None:
    # From the top the share of fraud is 1, 1/2, 2/3, 3/4, 3/5.
    rows, scores = table([1, 0, 1, 1, 0]), [0.9, 0.8, 0.7, 0.6, 0.5]
    wanted = [1.0, 0.75, 0.7, 0.66, 0.6]
    assert [chosen(rows, scores, decline_precision=share).decline for share in wanted] == [0.9, 0.6, 0.6, 0.6, 0.5]


def test_nothing_is_declined_where_the_share_of_fraud_is_never_reached() -> None:
    assert chosen(table([0, 1, 0, 1]), [0.9, 0.8, 0.7, 0.6], decline_precision=0.9).decline == UNREACHABLE


def test_a_report_by_hand() -> None:
    # Flagged are the first three of six rows over two days; a review costs 5; the fraud of 60 passes.
    rows = table([1, 0, 1, 0, 1, 0], [40, 10, 100, 20, 60, 30], [0, 0, 0, 1, 1, 1], [1, 1, 2, 2, 3, 4])
    found = reported(rows, [0.9, 0.8, 0.6, 0.4, 0.3, 0.1]).metrics
    by_hand = {
        "average_precision": (1 + 2 / 3 + 3 / 5) / 3,
        "roc_auc": (3 + 2 + 1) / 9,
        "recall_at_1pct_fpr": 1 / 3,
        "brier": (0.1**2 + 0.8**2 + 0.4**2 + 0.4**2 + 0.7**2 + 0.1**2) / 6,
        "calibration_error": (0.1 + 0.8 + 0.4 + 0.4 + 0.7 + 0.1) / 6,
        "cost_per_1000": 1_000 * (3 * 5 + 60) / 6,
        "cost_per_1000_without_model": 1_000 * 200 / 6,
        "flagged_per_day": 1.5,
        "precision_of_flagged": 2 / 3,
        "recall_of_flagged": 2 / 3,
        "rows": 6,
        "fraud_share": 0.5,
        # Day 1 finds customers 1 and 2; on day 2 the first two of the rest are 3, a fraud, and 4.
        "card_precision_at_2": (2 / 2 + 1 / 2) / 2,
    }
    assert dict(found) == pytest.approx(by_hand)


def test_where_nothing_is_flagged_precision_and_recall_are_0() -> None:
    found = reported(table([1, 0]), [0.4, 0.3]).metrics
    assert found["flagged_per_day"] == found["precision_of_flagged"] == found["recall_of_flagged"] == 0
    assert found["cost_per_1000"] == found["cost_per_1000_without_model"]


def world() -> tuple[pl.DataFrame, Floats]:
    draw = np.random.default_rng(0)
    labels = (draw.random(400) < 0.2).astype(int)
    amounts: list[float | None] = list(range(1, 401))
    customers = draw.integers(0, 50, 400).tolist()
    times = [START + timedelta(hours=int(hour)) for hour in draw.integers(0, 240, 400)]
    rows = table(labels.tolist(), amounts, customers=customers).with_columns(time=pl.Series(times))
    return rows, np.clip(labels * 0.4 + draw.random(400) * 0.6, 0, 0.99)


def test_the_report_has_the_four_slices_and_all_of_them_count_right() -> None:
    rows, scores = world()
    slices = {row["slice"]: row for row in reported(rows, scores.tolist()).slices.to_dicts()}
    known = with_earlier_rows(rows, DATA)
    masks = {
        "all": pl.lit(True),
        "new customer": pl.col(EARLIER_ROWS) < 10,
        "night": pl.col("time").dt.hour() <= 6,
        "large amounts": pl.col("amount") >= 380,
    }
    assert list(slices) == list(masks)
    for name, mask in masks.items():
        place = known.select(mask.alias("mask").and_(pl.col("id") >= 0))["mask"].to_numpy()
        labels, flagged = rows["fraud"].to_numpy()[place], (scores >= 0.5)[place]
        assert (slices[name]["rows"], slices[name]["frauds"]) == (place.sum(), labels.sum())
        assert slices[name]["recall_of_flagged"] == pytest.approx(flagged[labels == 1].mean())


def test_the_slice_of_all_says_what_the_report_says() -> None:
    rows, scores = world()
    found = reported(rows, scores.tolist())
    row = found.slices.row(0, named=True)
    for name in ("average_precision", "roc_auc", "recall_of_flagged", "rows"):
        assert row[name] == pytest.approx(found.metrics[name])


def test_a_slice_without_fraud_has_no_rank_metrics() -> None:
    # The only night row is honest.
    rows = table([1, 0, 0]).with_columns(time=pl.Series([START, START, START.replace(hour=3)]))
    night = reported(rows, [0.9, 0.8, 0.7]).slices.filter(pl.col("slice") == "night")
    assert night.row(0) == ("night", 1, 0, None, None, None)


def test_data_without_entity_and_amount_is_reported_without_their_slices_and_card_precision() -> None:
    found = reported(table([1, 0, 1, 0]).select("id", "time", "fraud"), [0.9, 0.8, 0.6, 0.4], BARE)
    assert found.slices["slice"].to_list() == ["all", "night"]
    assert "card_precision_at_2" not in found.metrics
    assert found.metrics["cost_per_1000_without_model"] == pytest.approx(1_000 * 2 * 100 / 4)


def test_intervals_hold_the_metrics_and_depend_on_the_seed_alone() -> None:
    rows, scores = world()
    found = reported(rows, scores.tolist())
    assert set(found.intervals) == {"average_precision", "roc_auc"}
    for name, (low, high) in found.intervals.items():
        assert low < found.metrics[name] < high
    assert reported(rows, scores.tolist()).intervals == found.intervals


def test_new_customers_are_those_with_fewer_than_ten_earlier_rows() -> None:
    # Twelve rows of one customer, newest first, and three of another.
    days = [*range(11, -1, -1), 0, 1, 2]
    rows = with_earlier_rows(table([1] + [0] * 14, days=days, customers=[1] * 12 + [2] * 3), DATA)
    assert rows[EARLIER_ROWS].to_list() == [*range(11, -1, -1), 0, 1, 2]
    found = report(
        rows, np.linspace(0.9, 0.1, 15), Thresholds(review=0.5, decline=1.0), DATA, Evaluation(resamples=5), 0
    )
    slices = {row["slice"]: row["rows"] for row in found.slices.to_dicts()}
    assert slices["new customer"] == 13


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20))
def test_earlier_rows_are_counted_by_time_and_then_by_id(drawn: list[tuple[int, int]]) -> None:
    days, customers = [day for day, _ in drawn], [customer for _, customer in drawn]
    rows = table([0] * len(drawn), days=days, customers=customers)
    expected = [
        sum(
            other == customer and (then, place) < (day, row)
            for place, (then, other) in enumerate(zip(days, customers, strict=True))
        )
        for row, (day, customer) in enumerate(zip(days, customers, strict=True))
    ]
    counted = with_earlier_rows(rows.sample(fraction=1, shuffle=True, seed=1), DATA).sort("id")
    assert counted[EARLIER_ROWS].to_list() == expected


def test_a_report_becomes_plain_values() -> None:
    plain = reported(table([1, 0, 1, 0]), [0.9, 0.8, 0.6, 0.4]).as_json()
    assert plain["slices"][0]["slice"] == "all"
    assert len(plain["intervals"]["roc_auc"]) == 2
    assert sum(row["rows"] for row in plain["reliability"]) == 4


def test_a_score_that_rounding_has_made_1_is_not_declined_where_nothing_may_be() -> None:
    thresholds = chosen(table([0, 0]), [1.0, 0.2])
    assert thresholds.review > 1
    assert thresholds.decline > 1


def test_clumping_is_one_for_frauds_that_come_alone_and_grows_with_those_that_come_together() -> None:
    words = DataSet(time=Time(column="time"), entities=("card",), label=Label(column="fraud", delay="7d"))

    def clumps(cards: list[str], days: list[int]) -> float:
        times = [datetime(2025, 1, 6) + timedelta(days=day) for day in days]
        rows = pl.DataFrame({"card": cards, "time": times, "fraud": [1] * len(cards)})
        return clumping(rows.cast({"card": pl.String, "time": pl.Datetime("us")}), words)

    assert clumps(["a", "b", "c"], [0, 0, 0]) == 1
    assert clumps(["a", "a", "b"], [0, 7, 0]) == 1
    assert clumps(["a"] * 3 + ["b"], [0, 1, 2, 0]) == (9 + 1) / 4
    assert clumps([], []) == 1
