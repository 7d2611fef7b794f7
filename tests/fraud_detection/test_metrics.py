"""Metrics: hand-worked examples, brute force, scikit-learn as the judge, and the bootstrap's weights and seed."""

from functools import partial
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from modules.fraud_detection.src.utils import metrics
from modules.fraud_detection.src.utils.metrics import Floats, Ints, Metric, Ranking

Table = tuple[Floats, Ints]
METRICS: list[Metric] = [metrics.average_precision, metrics.roc_auc, metrics.recall_at_fpr]
# Few different scores make many ties.
SCORES = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), st.floats(0, 1))
TABLES = (
    st.lists(st.tuples(SCORES, st.integers(0, 1)), min_size=2, max_size=40)
    .filter(lambda rows: len({label for _, label in rows}) == 2)
    .map(lambda rows: (np.array([score for score, _ in rows]), np.array([label for _, label in rows])))
)


def value(metric: Metric, scores: Floats, labels: Ints) -> float:
    return metric(Ranking.of(scores, labels), np.ones(len(labels)))


@settings(deadline=None)
@given(TABLES)
def test_average_precision_and_roc_auc_are_those_of_scikit_learn_also_with_ties(table: Table) -> None:
    scores, labels = table
    assert value(metrics.average_precision, scores, labels) == pytest.approx(average_precision_score(labels, scores))
    assert value(metrics.roc_auc, scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_average_precision_by_hand() -> None:
    # Frauds at the places 1, 3 and 4 of five: (1/1 + 2/3 + 3/4) / 3.
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 0])
    assert value(metrics.average_precision, scores, labels) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_average_precision_of_equal_scores_is_the_share_of_fraud() -> None:
    assert value(metrics.average_precision, np.full(8, 0.3), np.array([1, 0, 0, 0] * 2)) == pytest.approx(0.25)


def test_roc_auc_by_hand_counts_a_tie_half() -> None:
    # Of the four pairs of fraud and honest row two are in order, one is in the wrong order and one is a tie.
    scores, labels = np.array([0.9, 0.4, 0.4, 0.5]), np.array([1, 1, 0, 0])
    assert value(metrics.roc_auc, scores, labels) == pytest.approx((2 + 0.5) / 4)


@settings(deadline=None)
@given(TABLES, st.sampled_from([0.0, 0.01, 0.25, 0.5, 1.0]))
def test_recall_at_fpr_is_the_best_of_all_thresholds_within_the_limit(table: Table, limit: float) -> None:
    scores, labels = table
    best = 0.0
    for threshold in set(scores):
        flagged = scores >= threshold
        if flagged[labels == 0].mean() <= limit:
            best = max(best, float(flagged[labels == 1].mean()))
    ranking = Ranking.of(scores, labels)
    assert metrics.recall_at_fpr(ranking, np.ones(len(labels)), limit) == pytest.approx(best)


@settings(deadline=None)
@given(TABLES)
def test_only_the_order_of_the_scores_counts_for_the_ranking_metrics(table: Table) -> None:
    scores, labels = np.round(table[0], 3), table[1]
    for metric in METRICS:
        assert value(metric, scores * 0.5 - 3, labels) == pytest.approx(value(metric, scores, labels))
        assert value(metric, scores[::-1], labels[::-1]) == pytest.approx(value(metric, scores, labels))


@settings(deadline=None)
@given(TABLES, st.data())
def test_a_weight_of_the_bootstrap_equals_repeating_the_row(table: Table, data: st.DataObject) -> None:
    scores, labels = table
    size = len(labels)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    times[[np.argmax(labels), np.argmin(labels)]] += 1
    for metric in METRICS:
        weighted = metric(Ranking.of(scores, labels), times.astype(np.float64))
        assert weighted == pytest.approx(value(metric, np.repeat(scores, times), np.repeat(labels, times)))


def world(customers: int) -> tuple[Ranking, Ints, Ints]:
    """Ten rows for each customer; scores that tell something about the labels."""
    draw = np.random.default_rng(5)
    groups = np.repeat(np.arange(customers), 10)
    labels = (draw.random(groups.size) < 0.2).astype(np.int64)
    return Ranking.of(labels * 0.5 + draw.normal(size=groups.size) * 0.4, labels), labels, groups


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_the_estimate_and_is_the_same_for_the_same_seed(metric: Metric) -> None:
    ranking, labels, groups = world(60)
    low, high = metrics.interval(partial(metric, ranking), labels, groups, 200, seed=1)
    assert 0 <= low < metric(ranking, np.ones(groups.size)) < high <= 1
    assert metrics.interval(partial(metric, ranking), labels, groups, 200, seed=1) == (low, high)
    assert metrics.interval(partial(metric, ranking), labels, groups, 200, seed=2) != (low, high)


def test_more_customers_make_the_interval_narrower() -> None:
    widths = []
    for customers in (30, 120, 480):
        ranking, labels, groups = world(customers)
        low, high = metrics.interval(partial(metrics.roc_auc, ranking), labels, groups, 200, seed=0)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_the_interval_draws_whole_customers() -> None:
    # One customer has all the errors: drawn or not drawn as a whole, it moves the metric far. Alone, rows move it less.
    labels = np.array([1, 0] * 50)
    scores = np.where(np.arange(100) < 20, 1 - labels, labels).astype(np.float64)
    ranking = Ranking.of(scores, labels)
    together = metrics.interval(partial(metrics.roc_auc, ranking), labels, np.arange(100) // 20, 300, seed=0)
    alone = metrics.interval(partial(metrics.roc_auc, ranking), labels, np.arange(100), 300, seed=0)
    assert together[1] == pytest.approx(1)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_precision_at_counts_a_found_card_on_the_day_it_is_found_and_not_after_it() -> None:
    rows = [
        # Day 1: cards A (twice; its highest score counts), B, C. The first two are A and B; A is compromised.
        (1, "A", 0.2, 0), (1, "A", 0.9, 1), (1, "B", 0.8, 0), (1, "C", 0.7, 1),
        # Day 2: A was found and is gone, however high it scores. The first two of the rest are C and D, both frauds.
        (2, "A", 0.99, 1), (2, "B", 0.1, 0), (2, "C", 0.6, 1), (2, "D", 0.5, 1),
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema=["day", "card", "score", "label"], orient="row")
    cards = (table["card"].rank("dense").cast(pl.Int64) - 1).to_numpy()
    columns = [table[name].to_numpy() for name in ("day", "score", "label")]
    assert metrics.precision_at(2, columns[0], cards, columns[1], columns[2]) == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert metrics.precision_at(1, columns[0], cards, columns[1], columns[2]) == pytest.approx(1)
    # With four places day 1 finds A and C; day 2 has B and D left, of which D is a fraud.
    assert metrics.precision_at(4, columns[0], cards, columns[1], columns[2]) == pytest.approx((2 / 4 + 1 / 4) / 2)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 99), st.integers(0, 1)), min_size=1),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_precision_at_equals_a_loop_over_days_and_cards_in_any_order_of_the_rows(
    rows: list[tuple[int, int, int, int]], k: int, random: Random
) -> None:
    # Scores that differ by card break ties in one way.
    scored = [(day, card, score + card / 10, label) for day, card, score, label in rows]
    found: set[int] = set()
    shares = []
    for day in sorted({row[0] for row in scored}):
        best: dict[int, tuple[float, int]] = {}
        for _, card, score, label in (row for row in scored if row[0] == day and row[1] not in found):
            high, hit = best.get(card, (-1.0, 0))
            best[card] = (max(high, score), max(hit, label))
        top = sorted(best, key=lambda card: -best[card][0])[:k]
        hits = {card for card in top if best[card][1]}
        shares.append(len(hits) / k)
        found |= hits
    random.shuffle(scored)
    days, cards, scores, labels = (np.array(column) for column in zip(*scored, strict=True))
    assert metrics.precision_at(k, days, cards, scores, labels) == pytest.approx(np.mean(shares))


def test_cost_by_hand() -> None:
    # Two reviews at 5 and one fraud of 100 let through, over four rows; the fraud of 40 is caught.
    flagged, labels = np.array([True, True, False, False]), np.array([1, 0, 1, 0])
    losses = np.array([40.0, 7.0, 100.0, 9.0])
    assert metrics.cost(flagged, labels, losses, 5.0) == pytest.approx(1_000 * (2 * 5 + 100) / 4)
    assert metrics.cost(~flagged & False, labels, losses, 5.0) == pytest.approx(1_000 * 140 / 4)


def test_brier_by_hand() -> None:
    assert metrics.brier(np.array([0.9, 0.2]), np.array([1, 0])) == pytest.approx((0.01 + 0.04) / 2)


def test_reliability_and_calibration_error_by_hand() -> None:
    # Twenty rows in ten bins of two, in any order; the tenth bin says 0.95 and half of it is fraud.
    scores = np.repeat(np.arange(10) / 10 + 0.05, 2)
    labels = np.array([0] * 18 + [1, 0])
    order = np.random.default_rng(0).permutation(20)
    bins = metrics.reliability(scores[order], labels[order])
    assert bins["rows"].to_list() == [2] * 10
    assert bins["score"].to_list() == pytest.approx(list(np.arange(10) / 10 + 0.05))
    assert bins["fraud"].to_list() == [0.0] * 9 + [0.5]
    by_hand = (sum(place / 10 + 0.05 for place in range(9)) + 0.45) / 10
    assert metrics.calibration_error(scores[order], labels[order]) == pytest.approx(by_hand)


@settings(deadline=None)
@given(TABLES, st.integers(1, 12))
def test_bins_of_reliability_hold_every_row_are_equally_full_and_ascend(table: Table, bins: int) -> None:
    found = metrics.reliability(*table, bins=bins)
    rows = found["rows"].to_numpy()
    assert rows.sum() == len(table[0])
    assert rows.max() - rows.min() <= 1
    assert found.height == min(bins, len(table[0]))
    assert (found["score"].to_numpy()[1:] >= found["score"].to_numpy()[:-1] - 1e-12).all()
    assert (found["rows"] * found["fraud"]).sum() == pytest.approx(table[1].sum())


def test_scores_that_are_the_share_of_fraud_have_no_calibration_error() -> None:
    scores = np.repeat([0.25, 0.75], 500)
    labels = np.concatenate([np.tile([1, 0, 0, 0], 125), np.tile([1, 1, 1, 0], 125)])
    assert metrics.calibration_error(scores, labels) == pytest.approx(0)
