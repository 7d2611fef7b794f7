"""A simulator of card transactions: seeded, whole columns at a time, with fraud that a model can and cannot see.

Customers live along a street of terminals and buy near home, each at their own pace and price. Three kinds of fraud are
always there: large amounts, compromised terminals and stolen cards. On request the world changes from a given day on:
`drift_from` makes prices rise and shopping later; `new_pattern_from` brings thieves who try stolen cards with tiny
amounts at night and then buy with them. It shows that the platform works; it says nothing about how well a model does
on real payments.
"""

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from mlops.values import Group

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

DAY = 86_400
TESTS, BURST = 3, 8
"""The tiny payments of a burst of card tests, and all of them."""
REACH = 12.0
"""How many terminals away from home a customer shops (standard deviation)."""


class Simulation(Group):
    """The size of the simulated world and what changes in it."""

    customers: int = Field(1_000, ge=1, description="How many customers; each makes about two transactions a day.")
    terminals: int = Field(2_000, ge=1, description="How many terminals.")
    days: int = Field(120, ge=1, description="How many days.")
    start: datetime = Field(datetime(2025, 1, 1), description="The first day.")
    seed: int = Field(0, ge=0, description="The same seed gives the same rows.")
    drift_from: int | None = Field(
        None, ge=0, description="The day from which prices rise by half and shopping is later."
    )
    new_pattern_from: int | None = Field(
        None, ge=0, description="The day from which cards are tested with tiny amounts and then used."
    )


def simulate(words: Simulation) -> pl.DataFrame:
    """Make the transactions in order of time, with their labels and when each became known (3 to 10 days later)."""
    draw = np.random.default_rng(words.seed)
    home = draw.uniform(0, words.terminals, words.customers)
    pace = draw.gamma(4.0, 0.5, words.customers)
    price = draw.lognormal(3.6, 0.6, words.customers)

    customer = np.repeat(np.arange(words.customers), draw.poisson(pace * words.days))
    second = draw.integers(0, words.days, customer.size) * DAY + _time_of_day(draw, customer.size)
    terminal = np.rint(home[customer] + draw.normal(0, REACH, customer.size)).astype(np.int64) % words.terminals
    amount = price[customer] * draw.lognormal(-0.08, 0.4, customer.size)
    if words.drift_from is not None:
        late = second >= words.drift_from * DAY
        amount = np.where(late, amount * 1.5, amount)
        second = np.where(late & (draw.random(customer.size) < 0.3), _later(second), second)

    fraud = np.zeros(customer.size, bool)
    amount = _large_amounts(draw, amount, fraud)
    _compromised_terminals(draw, words, terminal, second, fraud)
    amount = _stolen_cards(draw, words, customer, second, amount, fraud)
    table = _table(customer, terminal, second, amount, fraud)
    if words.new_pattern_from is not None:
        table = pl.concat([table, _card_tests(draw, words)])
    known = draw.integers(3 * DAY, 10 * DAY, table.height)
    return _finished(table.with_columns(pl.Series("known", known) + pl.col("second")), words.start)


def _time_of_day(draw: np.random.Generator, rows: int) -> Ints:
    return draw.normal(13.5 * 3_600, 4.2 * 3_600, rows).astype(np.int64) % DAY


def _later(second: Ints) -> Ints:
    """Move a time to the last four hours of its day."""
    return second // DAY * DAY + 20 * 3_600 + second % (4 * 3_600)


def _large_amounts(draw: np.random.Generator, amount: Floats, fraud: Flags) -> Floats:
    """One in a thousand transactions is a thief's single large purchase."""
    chosen = draw.random(amount.size) < 0.001
    fraud |= chosen
    return np.where(chosen, draw.uniform(250, 900, amount.size), amount)


def _compromised_terminals(
    draw: np.random.Generator, words: Simulation, terminal: Ints, second: Ints, fraud: Flags
) -> None:
    """Each day about one terminal in 5,000 is tampered with; four in five payments there are fraud for 28 days."""
    attacks = _attacks(draw, words, words.terminals / 5_000)
    since = np.full((words.days + 28, words.terminals), False)
    for day, place in zip(attacks, draw.integers(0, words.terminals, attacks.size), strict=True):
        since[day : day + 28, place] = True
    fraud |= since[second // DAY, terminal] & (draw.random(terminal.size) < 0.8)


def _stolen_cards(
    draw: np.random.Generator, words: Simulation, customer: Ints, second: Ints, amount: Floats, fraud: Flags
) -> Floats:
    """About one card in 2,000 a day is copied; for 14 days a third of its payments costs five times as much."""
    attacks = _attacks(draw, words, words.customers / 2_000)
    stolen = np.full((words.days + 14, words.customers), False)
    for day, card in zip(attacks, draw.integers(0, words.customers, attacks.size), strict=True):
        stolen[day : day + 14, card] = True
    chosen = stolen[second // DAY, customer] & (draw.random(customer.size) < 1 / 3)
    fraud |= chosen
    return np.where(chosen, amount * 5, amount)


def _attacks(draw: np.random.Generator, words: Simulation, per_day: float) -> Ints:
    """The days on which an attack begins, a day as often as attacks fall on it."""
    return np.repeat(np.arange(words.days), draw.poisson(per_day, words.days))


def _card_tests(draw: np.random.Generator, words: Simulation) -> pl.DataFrame:
    """Bursts at night on one card across the town: three tiny payments, minutes apart, and then five purchases."""
    first = min(words.new_pattern_from or 0, words.days)
    days = np.repeat(np.arange(first, words.days), draw.poisson(max(words.customers / 300, 0.5), words.days - first))
    card = np.repeat(draw.integers(0, words.customers, days.size), BURST)
    start = np.repeat(days * DAY + draw.integers(0, 5 * 3_600, days.size), BURST)
    turn = np.tile(np.arange(BURST), days.size)
    second = start + turn * 150 + draw.integers(0, 120, card.size)
    place = draw.integers(0, words.terminals, card.size)
    amount = np.where(turn < TESTS, draw.uniform(0.5, 3.0, card.size), draw.uniform(40, 160, card.size))
    return _table(card, place, second, amount, np.ones(card.size, bool))


def _table(customer: Ints, terminal: Ints, second: Ints, amount: Floats, fraud: Flags) -> pl.DataFrame:
    columns = {"customer_id": customer, "terminal_id": terminal, "second": second, "amount": amount, "is_fraud": fraud}
    return pl.DataFrame(columns)


def _finished(table: pl.DataFrame, start: datetime) -> pl.DataFrame:
    ordered = table.sort("second", "customer_id", "terminal_id", "amount")
    origin = pl.lit(start, pl.Datetime("us"))
    return ordered.select(
        pl.int_range(1, pl.len() + 1).alias("transaction_id"),
        (origin + pl.duration(seconds="second")).alias("timestamp"),
        pl.col("customer_id") + 1,
        pl.col("terminal_id") + 1,
        pl.col("amount").round(2),
        pl.col("is_fraud").cast(pl.Int8),
        (origin + pl.duration(seconds="known")).alias("label_known_at"),
    )
