"""The simulator: seeded rows of the documented columns, in which every documented pattern can be found again."""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from modules.fraud_detection import settings as configuration
from modules.fraud_detection.src.data.synthetic import Simulation, simulate
from modules.fraud_detection.src.validation.data_validation import check, enforce

LATER = 60
START = datetime(2025, 1, 1)
SCHEMA = {
    "transaction_id": pl.Int64,
    "timestamp": pl.Datetime("us"),
    "customer_id": pl.Int64,
    "terminal_id": pl.Int64,
    "amount": pl.Float64,
    "is_fraud": pl.Int8,
    "label_known_at": pl.Datetime("us"),
}
FRAUD = pl.col("is_fraud") == 1
DAY = (pl.col("timestamp") - START).dt.total_days()


@pytest.fixture(scope="module")
def world() -> pl.DataFrame:
    """The world as it is without any words: 1,000 customers, 2,000 terminals, 120 days."""
    return simulate(Simulation()).with_columns(DAY.alias("day"))


def drawn(seed: int, **words: int | None) -> pl.DataFrame:
    return simulate(Simulation.model_validate({"customers": 40, "terminals": 20, "days": 30, "seed": seed, **words}))


def of_compromised_terminals(world: pl.DataFrame) -> pl.DataFrame:
    """The rows of terminals with many frauds, each with its distance in days from the middle of its terminal's."""
    frauds = world.filter(FRAUD).group_by("terminal_id")
    middles = frauds.agg(pl.len().alias("frauds"), pl.median("day").alias("middle"))
    return world.join(middles.filter(pl.col("frauds") >= 10), on="terminal_id").with_columns(
        (pl.col("day") - pl.col("middle")).alias("distance")
    )


def of_stolen_cards(world: pl.DataFrame) -> pl.DataFrame:
    """The frauds of customers with several of them away from compromised terminals, with the usual price of each."""
    hot = of_compromised_terminals(world)["terminal_id"].unique()
    usual = world.filter(~FRAUD).group_by("customer_id").agg(pl.median("amount").alias("usual"))
    frauds = world.filter(FRAUD & ~pl.col("terminal_id").is_in(hot.implode()))
    return frauds.filter(pl.len().over("customer_id") >= 5).join(usual, on="customer_id")


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    assert_frame_equal(drawn(3, drift_from=9, new_pattern_from=9), drawn(3, drift_from=9, new_pattern_from=9))
    assert not drawn(3)["amount"].head(50).equals(drawn(4)["amount"].head(50))


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Simulation,
        customers=st.integers(1, 40),
        terminals=st.integers(1, 40),
        days=st.integers(1, 40),
        seed=st.integers(0, 1_000_000),
        drift_from=st.none() | st.integers(0, 50),
        new_pattern_from=st.none() | st.integers(0, 50),
    )
)
def test_a_world_of_any_size_has_the_documented_columns_and_no_row_that_validation_refuses(words: Simulation) -> None:
    table = simulate(words)
    assert table.schema == SCHEMA
    assert table["transaction_id"].to_list() == list(range(1, table.height + 1))
    assert table["timestamp"].is_sorted()
    assert table["timestamp"].is_between(words.start, words.start + timedelta(days=words.days), closed="left").all()
    assert table["customer_id"].is_between(1, words.customers).all()
    assert table["terminal_id"].is_between(1, words.terminals).all()
    waits = table["label_known_at"] - table["timestamp"]
    assert waits.is_between(timedelta(days=3), timedelta(days=10)).all()
    read = configuration.read(None, "local", {})
    checked = check(table, read.data, read.validation, words.start + timedelta(days=60))
    assert checked.bad_rows == 0
    if table.height:
        enforce(checked, read.validation)


def test_labels_become_known_over_the_whole_of_3_to_10_days_later(world: pl.DataFrame) -> None:
    days = (world["label_known_at"] - world["timestamp"]).dt.total_seconds() / 86_400
    counts = np.histogram(days.to_numpy(), bins=np.arange(3, 11))[0]
    assert counts.sum() == world.height
    assert counts.min() > 0.9 * world.height / 7


def test_each_customer_makes_about_two_transactions_a_day_near_home(world: pl.DataFrame) -> None:
    assert world.height / (1_000 * 120) == pytest.approx(2, abs=0.1)
    places = world.group_by("customer_id").agg(
        (pl.col("terminal_id").quantile(0.75) - pl.col("terminal_id").quantile(0.25)).alias("spread")
    )
    assert (places["spread"] < 30).mean() == pytest.approx(1, abs=0.05)


def test_large_amounts_are_fraud_a_hundred_times_as_often_as_others(world: pl.DataFrame) -> None:
    hot = of_compromised_terminals(world)["terminal_id"].unique()
    cards = of_stolen_cards(world)["customer_id"].unique()
    rest = world.filter(~pl.col("terminal_id").is_in(hot.implode()), ~pl.col("customer_id").is_in(cards.implode()))
    thefts = rest.filter(FRAUD, pl.col("amount").is_between(250, 900))
    assert thefts.height / rest.height == pytest.approx(0.001, rel=0.3)
    share = rest.filter(pl.col("amount") > 250)["is_fraud"].mean()
    assert isinstance(share, float)
    assert share > 100 * thefts.height / rest.height


def test_four_in_five_payments_at_a_compromised_terminal_are_fraud_for_four_weeks(world: pl.DataFrame) -> None:
    rows = of_compromised_terminals(world)
    assert 30 <= rows["terminal_id"].n_unique() <= 70
    assert rows.filter(pl.col("distance").abs() <= 10)["is_fraud"].mean() == pytest.approx(0.8, abs=0.05)
    assert rows.filter(pl.col("distance").abs() > 28)["is_fraud"].mean() == pytest.approx(0, abs=0.05)


def test_a_stolen_card_pays_about_five_times_its_usual_price_for_two_weeks(world: pl.DataFrame) -> None:
    frauds = of_stolen_cards(world)
    assert 30 <= frauds["customer_id"].n_unique() <= 80
    assert (frauds["amount"] / frauds["usual"]).median() == pytest.approx(5, rel=0.1)
    spans = frauds.group_by("customer_id").agg((pl.col("day").max() - pl.col("day").min()).alias("span"))["span"]
    assert (spans < 14).sum() > spans.len() / 2


def test_cards_are_tested_with_bursts_at_night_and_then_used_from_the_day_on_and_never_before(
    world: pl.DataFrame,
) -> None:
    changed = simulate(Simulation(new_pattern_from=LATER)).with_columns(DAY.alias("day"))
    same = ["timestamp", "customer_id", "terminal_id", "amount", "is_fraud"]
    tests = changed.join(world, on=same, how="anti")
    assert tests.height == changed.height - world.height > 500
    assert set(tests["is_fraud"]) == {1}
    tiny = tests["amount"].is_between(0.5, 3)
    assert tests.filter(~tiny)["amount"].is_between(40, 160).all()
    assert 5 * tiny.sum() == 3 * (~tiny).sum()
    assert set(tests["timestamp"].dt.hour()) <= set(range(6))
    assert set(tests["day"]) <= set(range(LATER, 120))
    bursts = tests.group_by("customer_id", "day").agg(pl.len(), pl.col("timestamp").max() - pl.col("timestamp").min())
    assert set(bursts["len"] % 8) == {0}
    lengths = bursts.filter(pl.col("len") == 8)["timestamp"].dt.total_minutes()
    assert lengths.is_between(15, 19).all()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(lambda day: day < LATER, 1.0), (lambda day: day >= LATER, 1.5)],
)
def test_drift_raises_honest_amounts_by_half_from_the_day_on(
    world: pl.DataFrame, chosen: Callable[[pl.Expr], pl.Expr], expected: float
) -> None:
    drifted = simulate(Simulation(drift_from=LATER)).with_columns(DAY.alias("day"))
    means = [table.filter(~FRAUD, chosen(pl.col("day")))["amount"].mean() for table in (world, drifted)]
    assert isinstance(means[0], float)
    assert isinstance(means[1], float)
    assert means[1] / means[0] == pytest.approx(expected, rel=0.01)


def test_drift_moves_shopping_to_the_evening_from_the_day_on(world: pl.DataFrame) -> None:
    drifted = simulate(Simulation(drift_from=LATER)).with_columns(DAY.alias("day"))
    evening = [
        table.filter(pl.col("day") >= LATER).select((pl.col("timestamp").dt.hour() >= 20).mean()).item()
        for table in (world, drifted)
    ]
    assert evening[1] == pytest.approx(evening[0] + 0.3 * (1 - evening[0]), abs=0.02)
    before = [table.filter(pl.col("day") < LATER)["timestamp"].dt.hour().mean() for table in (world, drifted)]
    assert before[1] == pytest.approx(before[0])


def test_without_words_nothing_changes_over_time(world: pl.DataFrame) -> None:
    halves = [world.filter(~FRAUD, half) for half in (pl.col("day") < LATER, pl.col("day") >= LATER)]
    assert halves[0]["amount"].mean() == pytest.approx(halves[1]["amount"].mean(), rel=0.02)
    assert halves[0].height == pytest.approx(halves[1].height, rel=0.03)
