"""From features to a matrix and back: levels in their order, unseen ones, empty values, sums of contributions."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.fraud_detection.src.features.declaration import Feature
from modules.fraud_detection.src.models.encoder import LEVELS, Encoder
from monitoring import profile

FEATURES = [Feature("amount", False), Feature("channel", True), Feature("age", False), Feature("country", True)]
TRAIN = pl.DataFrame(
    {
        "amount": [1.5, None, 3.0, 4.0],
        "channel": ["web", "shop", "web", None],
        "age": [30, 40, None, 50],
        "country": ["NL", "BE", None, "DE"],
    }
)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.fit(TRAIN, FEATURES)


def test_the_columns_are_the_numbers_and_one_for_each_level_commonest_first_and_then_by_name(encoder: Encoder) -> None:
    assert encoder.columns == [
        "amount", "channel=web", "channel=shop", "age", "country=BE", "country=DE", "country=NL",
    ]  # fmt: skip


def test_numbers_stay_as_they_are_empty_ones_are_nan_and_a_level_sets_its_column(encoder: Encoder) -> None:
    expected = [
        [1.5, 1, 0, 30, 0, 0, 1], [np.nan, 0, 1, 40, 1, 0, 0], [3, 1, 0, np.nan, 0, 0, 0], [4, 0, 0, 50, 0, 1, 0],
    ]  # fmt: skip
    matrix = encoder.encode(TRAIN)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array(expected, np.float32))


def test_a_level_that_training_has_not_seen_sets_no_column(encoder: Encoder) -> None:
    table = TRAIN.head(1).with_columns(channel=pl.lit("phone"), country=pl.lit("nl"))
    np.testing.assert_array_equal(encoder.encode(table), np.array([[1.5, 0, 0, 30, 0, 0, 0]], np.float32))


def test_only_the_commonest_levels_have_a_column() -> None:
    # Level n occurs n + 1 times.
    levels = [f"level {n:02d}" for n in range(LEVELS + 5) for _ in range(n + 1)]
    table = pl.DataFrame({"channel": levels})
    found = Encoder.fit(table, [Feature("channel", True)])
    assert found.levels["channel"] == tuple(f"level {n:02d}" for n in range(LEVELS + 4, 4, -1))
    assert found.encode(table).sum(axis=1).tolist() == [float(level >= "level 05") for level in levels]


def test_the_levels_do_not_depend_on_the_order_of_the_rows(encoder: Encoder) -> None:
    assert Encoder.fit(TRAIN.reverse(), FEATURES) == encoder


def test_a_category_that_is_always_empty_has_no_column() -> None:
    table = TRAIN.with_columns(channel=pl.lit(None, pl.String))
    assert Encoder.fit(table, FEATURES).columns == ["amount", "age", "country=BE", "country=DE", "country=NL"]


def test_a_table_is_encoded_by_name_whatever_else_it_holds_and_in_whatever_order(encoder: Encoder) -> None:
    shuffled = TRAIN.with_columns(fraud=pl.lit(1)).select("fraud", "country", "age", "channel", "amount")
    np.testing.assert_array_equal(encoder.encode(shuffled), encoder.encode(TRAIN))


def test_an_encoder_survives_being_written_as_json(encoder: Encoder) -> None:
    again = Encoder.model_validate_json(encoder.model_dump_json())
    assert again == encoder
    assert again.columns == encoder.columns


LEVEL = st.none() | st.sampled_from(["web", "shop", "app", "phone"])
TABLES = st.lists(st.tuples(st.none() | st.floats(-1e6, 1e6), LEVEL, st.integers(0, 90), LEVEL), min_size=1).map(
    lambda rows: pl.DataFrame(
        rows, schema={"amount": pl.Float64, "channel": pl.String, "age": pl.Int64, "country": pl.String}, orient="row"
    )
)


@given(TABLES, st.integers(0, 1_000))
def test_contributions_of_features_keep_the_sum_of_every_row_and_the_base_value(table: pl.DataFrame, seed: int) -> None:
    encoder = Encoder.fit(table, FEATURES)
    parts = np.random.default_rng(seed).normal(size=(table.height, len(encoder.columns) + 1))
    found = encoder.of_features(parts)
    assert found.shape == (table.height, len(FEATURES) + 1)
    np.testing.assert_allclose(found.sum(axis=1), parts.sum(axis=1), atol=1e-9)
    np.testing.assert_array_equal(found[:, -1], parts[:, -1])
    names = np.array([name.split("=")[0] for name in encoder.columns])
    for place, feature in enumerate(FEATURES):
        np.testing.assert_allclose(found[:, place], parts[:, :-1][:, names == feature.name].sum(axis=1), atol=1e-9)


@given(TABLES)
def test_a_row_of_training_sets_exactly_the_columns_of_its_levels(table: pl.DataFrame) -> None:
    encoder = Encoder.fit(table, FEATURES)
    matrix = encoder.encode(table)
    for row, cells in zip(table.iter_rows(named=True), matrix, strict=True):
        named = {column for column, cell in zip(encoder.columns, cells, strict=True) if "=" in column and cell == 1}
        assert named == {f"{name}={row[name]}" for name in ("channel", "country") if row[name] is not None}


def test_a_category_may_be_called_count_and_a_level_may_be_empty_text() -> None:
    table = pl.DataFrame({"count": ["", "a", ""]})
    encoder = Encoder.fit(table, [Feature("count", True)])
    assert encoder.columns == ["count=", "count=a"]
    assert profile.profile(table, ["count"])["count"]["levels"] == {"": 2, "a": 1}
