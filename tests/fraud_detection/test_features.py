"""The laws of features: equal to their definition on every row, blind to the future, deaf to the order of the input."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars._typing import PolarsDataType
from polars.testing import assert_frame_equal

from mlops.values import seconds
from modules.fraud_detection import settings as module_settings
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import build_features, declaration, windows
from modules.fraud_detection.src.features.declaration import Declaration, Row, Window
from tests.conftest import ROOT, shared

START = datetime(2024, 1, 1)
DATA = DataSet.model_validate(
    {
        "id": "id",
        "time": {"column": "time"},
        "entities": ["customer", "terminal"],
        "amount": "amount",
        "numeric": ["score"],
        "categorical": ["channel"],
        "label": {"column": "fraud", "known_at": "known_at"},
    }
)
LENGTHS = ("1h", "3h")
DECLARED = Declaration(
    windows=(
        Window(entity="customer", of="amount", aggregates=("count", "sum", "mean", "min", "max"), lengths=LENGTHS),
        Window(entity="customer", of="score", aggregates=("mean", "max"), lengths=("2h",), delay="1h"),
        Window(entity="customer", of="terminal", aggregates=("distinct", "count"), lengths=LENGTHS),
        Window(entity="terminal", of="channel", aggregates=("distinct",), lengths=("3h",), delay="2h"),
        Window(entity="terminal", of="fraud", aggregates=("count", "sum", "share"), lengths=LENGTHS, delay="2h"),
        Window(entity="customer", of="fraud", aggregates=("count", "share"), lengths=("2h",)),
    ),
    gaps=("customer",),
    rows=(
        Row(name="amount", of="amount"),
        Row(name="channel", of="channel"),
        Row(name="amount_log", kind="log", of="amount"),
        Row(name="hour", kind="hour", of="time"),
        Row(name="to_mean", kind="ratio", of="amount", to="customer_amount_mean_3h"),
        Row(name="above_mean", kind="difference", of="amount", to="customer_amount_mean_3h"),
    ),
)
Build = Callable[[pl.DataFrame], pl.DataFrame]


def build(table: pl.DataFrame) -> pl.DataFrame:
    return build_features.build(table, DATA, DECLARED)


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """Few entities and few moments, half an hour apart, so that ties and the edges of windows are common."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 16),
                st.sampled_from(["a", "b", None]),
                st.sampled_from([7, 8, None]),
                st.integers(0, 99_999),
                st.one_of(st.none(), st.floats(-1e6, 1e6)),
                st.sampled_from(["web", "shop", None]),
                st.sampled_from([0, 1, None]),
                st.one_of(st.none(), st.integers(1, 12)),
            ),
            min_size=1,
            max_size=25,
        )
    )
    ids = draw(st.permutations(range(len(rows))))
    times = [START + timedelta(minutes=30 * row[0]) for row in rows]
    known = [
        None if row[7] is None else time + timedelta(minutes=30 * row[7]) for row, time in zip(rows, times, strict=True)
    ]
    kinds: dict[str, PolarsDataType] = {
        "id": pl.Int64, "time": pl.Datetime("us"), "customer": pl.String, "terminal": pl.Int64, "amount": pl.Float64,
        "score": pl.Float64, "channel": pl.String, "fraud": pl.Int8, "known_at": pl.Datetime("us"),
    }  # fmt: skip
    columns = [ids, times, *([row[place] for row in rows] for place in range(1, 3)), [row[3] / 100 for row in rows]]
    columns += [[row[place] for row in rows] for place in range(4, 7)] + [known]
    return pl.DataFrame(dict(zip(kinds, columns, strict=True)), schema=kinds)


def by_definition(table: pl.DataFrame, window: Window, length: str, aggregate: str) -> list[float | None]:
    """One feature, word for word as it is defined, by looking at every pair of rows."""
    rows, found = table.to_dicts(), []
    width, delay = timedelta(seconds=seconds(length)), timedelta(seconds=seconds(window.delay))
    for row in rows:
        inside = [
            other[window.of]
            for other in rows
            if row[window.entity] is not None
            and other[window.entity] == row[window.entity]
            and row["time"] - delay - width < other["time"] <= row["time"] - delay
            and (delay > timedelta(0) or (other["time"], other["id"]) <= (row["time"], row["id"]))
            and (window.of != "fraud" or (other["known_at"] is not None and other["known_at"] <= row["time"]))
            and (window.of != "fraud" or other["time"] < row["time"])
        ]
        found.append(said(aggregate, [value for value in inside if value is not None]))
    return found


def said(aggregate: str, values: list[Any]) -> float | None:
    """What an aggregate says of values; sums are of whole millionths."""
    if aggregate in ("count", "distinct"):
        return float(len(values if aggregate == "count" else set(values)))
    if aggregate in ("min", "max"):
        return None if not values else float(min(values) if aggregate == "min" else max(values))
    whole: float = sum(round(value * 1_000_000) for value in values) / 1_000_000
    if aggregate == "sum":
        return whole
    return whole / len(values) if values else (0.0 if aggregate == "share" else None)


@given(tables())
@settings(max_examples=200, deadline=None)
def test_every_window_equals_its_definition_on_every_row(table: pl.DataFrame) -> None:
    built = build(table)
    assert built["id"].to_list() == table["id"].to_list()
    for window in DECLARED.windows:
        for length in window.lengths:
            for aggregate in window.aggregates:
                name = window.name(aggregate, length)
                assert built[name].to_list() == by_definition(table, window, length, aggregate), name


@given(tables())
@settings(max_examples=100, deadline=None)
def test_a_gap_is_the_time_since_the_row_before_of_the_same_entity(table: pl.DataFrame) -> None:
    gaps = dict(zip(table["id"], build(table)["customer_seconds_since_last"], strict=True))
    for customer in ("a", "b"):
        rows = table.filter(pl.col("customer") == customer).sort("time", "id")
        expected = [None, *(gap.total_seconds() for gap in rows["time"].diff().drop_nulls())]
        assert [gaps[id_] for id_ in rows["id"]] == expected[: rows.height]
    assert all(gaps[id_] is None for id_ in table.filter(pl.col("customer").is_null())["id"])


def check_order_does_not_matter(build: Build, table: pl.DataFrame, seed: int) -> None:
    shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
    assert_frame_equal(build(table).sort("id"), build(shuffled).sort("id"), check_exact=True)


def check_future_does_not_matter(build: Build, table: pl.DataFrame, now: datetime) -> None:
    """Delete every row after `now` and every label that was not known by then: no feature up to `now` may change."""
    known = pl.when(pl.col("known_at") <= now).then("fraud")
    past = table.filter(pl.col("time") <= now).with_columns(known.alias("fraud"))
    earlier = build(table).filter(pl.col("id").is_in(past["id"].implode()))
    assert_frame_equal(build(past), earlier, check_exact=True)


moments = st.integers(0, 20).map(lambda half_hours: START + timedelta(minutes=30 * half_hours))


@given(tables(), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_shuffling_the_input_changes_nothing(table: pl.DataFrame, seed: int) -> None:
    check_order_does_not_matter(build, table, seed)


@given(tables(), moments)
@settings(max_examples=150, deadline=None)
def test_deleting_all_later_rows_and_labels_changes_no_earlier_feature(table: pl.DataFrame, now: datetime) -> None:
    check_future_does_not_matter(build, table, now)


def example(rows: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    times = [START + timedelta(minutes=int(m)) for m in draw.integers(0, 600, rows)]
    return pl.DataFrame(
        {
            "id": draw.permutation(rows),
            "time": times,
            "customer": [str(c) for c in draw.integers(0, 2, rows)],
            "terminal": draw.integers(0, 2, rows),
            "amount": draw.uniform(1, 100, rows).round(2),
            "score": draw.normal(size=rows),
            "channel": ["web"] * rows,
            "fraud": pl.Series(draw.integers(0, 2, rows), dtype=pl.Int8),
            "known_at": [time + timedelta(minutes=200) for time in times],
        }
    )


def test_the_law_of_the_future_catches_labels_that_are_used_before_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = windows.known_totals

    def leaky(
        past: windows.Past, labels: windows.Ints, enters: windows.Ints, order: windows.Ints, *rest: int
    ) -> object:
        return honest(past, labels, past.times + rest[1], np.arange(order.size), *rest)

    check_future_does_not_matter(build, example(), START + timedelta(minutes=300))
    monkeypatch.setattr(windows, "known_totals", leaky)
    with pytest.raises(AssertionError):
        check_future_does_not_matter(build, example(), START + timedelta(minutes=300))


def test_the_law_of_the_future_catches_windows_that_reach_past_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = windows.totals

    def leaky(past: windows.Past, values: windows.Ints, present: windows.Flags, length: int, delay: int) -> object:
        return honest(past, values, present, length + 3_600_000_000, delay - 3_600_000_000)

    monkeypatch.setattr(windows, "totals", leaky)
    with pytest.raises(AssertionError):
        check_future_does_not_matter(build, example(), START + timedelta(minutes=300))


def test_the_law_of_order_catches_an_engine_that_trusts_the_order_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    check_order_does_not_matter(build, example(), 1)
    known = pl.col("known_at").dt.timestamp("us").alias(build_features.KNOWN_AT)
    monkeypatch.setattr(
        build_features, "_in_order", lambda table, _: table.with_row_index(build_features.POSITION).with_columns(known)
    )
    with pytest.raises(AssertionError):
        check_order_does_not_matter(build, example(), 1)


def test_the_compiled_engine_does_what_its_source_says(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = build(example())
    for kernel in ("_group", "_totals", "_largest", "_distinct", "_known_totals"):
        monkeypatch.setattr(windows, kernel, getattr(windows, kernel).py_func)
    assert_frame_equal(build(example()), compiled, check_exact=True)


def test_the_engine_runs_where_no_compiled_code_can_be_kept() -> None:
    program = """
from numba.core import caching
caching.CompileResultCacheImpl._locator_classes = []
import numpy as np
from modules.fraud_detection.src.features import windows
print(windows.group(np.array([1, 0, 1]))[1].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "[1, 0, 2]\n", done.stderr


def test_ids_as_text_and_ids_as_numbers_order_ties_alike() -> None:
    table = example(30).with_columns(time=pl.lit(START), id=pl.int_range(30) + 95)
    numbers, texts = build(table), build(table.with_columns(pl.col("id").cast(pl.String)))
    assert_frame_equal(numbers.drop("id"), texts.drop("id"), check_exact=True)


def test_features_of_the_row_say_what_their_kind_says() -> None:
    saturday_night = datetime(2024, 1, 6, 6, 59)
    rows = (
        Row(name="weekend", kind="weekend", of="time"),
        Row(name="night", kind="night", of="time"),
        Row(name="weekday", kind="weekday", of="time"),
        Row(name="hour", kind="hour", of="time"),
    )
    table = example(3).with_columns(time=pl.Series([saturday_night, saturday_night + timedelta(minutes=1), START]))
    built = build_features.build(table, DATA, Declaration(rows=rows))
    assert built.drop("id").rows() == [(1.0, 1.0, 5.0, 6.0), (1.0, 0.0, 5.0, 7.0), (0.0, 1.0, 0.0, 0.0)]


def test_a_dropped_feature_feeds_others_and_is_not_seen_by_the_model() -> None:
    dropped = DECLARED.model_copy(update={"drop": ("customer_amount_mean_3h",)})
    built = build_features.build(example(), DATA, dropped)
    assert "customer_amount_mean_3h" not in built.columns
    assert_frame_equal(built.select("to_mean"), build(example()).select("to_mean"))


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        (
            {"windows": [{"entity": "shop", "of": "amount", "aggregates": ["mean"], "lengths": ["1d"]}]},
            "'shop' is no entity",
        ),
        (
            {"windows": [{"entity": "customer", "of": "fraud", "aggregates": ["mean"], "lengths": ["1d"]}]},
            "'mean' does not fit",
        ),
        (
            {"windows": [{"entity": "customer", "of": "amount", "aggregates": ["share"], "lengths": ["1d"]}]},
            "'share' does not fit",
        ),
        (
            {"windows": [{"entity": "customer", "of": "channel", "aggregates": ["max"], "lengths": ["1d"]}]},
            "needs a column of numbers",
        ),
        (
            {"windows": [{"entity": "customer", "of": "amount", "aggregates": ["distinct"], "lengths": ["1d"]}]},
            "is neither",
        ),
        (
            {"windows": [{"entity": "customer", "of": "amount", "aggregates": ["mean"], "lengths": ["0d"]}]},
            "length above 0",
        ),
        ({"rows": [{"name": "x", "of": "price"}]}, "'price', which is not among"),
        ({"rows": [{"name": "score", "kind": "log", "of": "amount"}]}, "has the name of a column"),
        ({"rows": [{"name": "x", "of": "amount"}, {"name": "x", "of": "score"}]}, "declared twice"),
        ({"drop": ["y"]}, "'drop' names feature 'y'"),
        ({"gaps": ["shop"]}, "'gaps' names 'shop', which is no entity"),
    ],
)
def test_a_feature_that_cannot_be_made_is_refused_by_name(declared: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        declaration.features(Declaration.model_validate(declared), DATA)


def test_the_handbooks_windows_equal_the_published_definition_on_every_row() -> None:
    """The published features as pandas makes them, on every row of one customer and terminal in ten."""
    table = pl.read_parquet(shared("fraud_handbook/transactions.parquet"))
    read = module_settings.read(module_settings.FILE.with_name("handbook.yaml"), "local", {})
    built = build_features.build(table.select(read.data.columns), read.data, read.features).to_pandas()
    whole = table.to_pandas().merge(built.drop(columns=["TX_AMOUNT"]), on="TRANSACTION_ID")
    checked = 0
    for _, rows in whole[whole["CUSTOMER_ID"] % 10 == 0].groupby("CUSTOMER_ID"):
        amounts = rows.set_index("TX_DATETIME")["TX_AMOUNT"]
        for days in (1, 7, 30):
            window = amounts.rolling(f"{days}D")
            _same(rows[f"CUSTOMER_ID_TX_AMOUNT_count_{days}d"], window.count())
            _same(rows[f"CUSTOMER_ID_TX_AMOUNT_mean_{days}d"], window.sum() / window.count())
        checked += len(rows)
    for _, rows in whole[whole["TERMINAL_ID"] % 10 == 0].groupby("TERMINAL_ID"):
        frauds = rows.set_index("TX_DATETIME")["TX_FRAUD"]
        late = frauds.rolling("7D")
        for days in (1, 7, 30):
            window = frauds.rolling(f"{days + 7}D")
            count = window.count() - late.count()
            _same(rows[f"TERMINAL_ID_TX_FRAUD_count_{days}d_7d_ago"], count)
            _same(rows[f"TERMINAL_ID_TX_FRAUD_share_{days}d_7d_ago"], ((window.sum() - late.sum()) / count).fillna(0))
        checked += len(rows)
    assert checked > 300_000


def _same(ours: pd.Series, published: pd.Series) -> None:
    assert np.abs(ours.to_numpy() - published.to_numpy()).max() < 1e-9
