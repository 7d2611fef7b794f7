"""The portrait of a table: histograms that lose no row, moments, levels, and columns that hold one value or none."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.profile import BINS, profile

NUMBERS = st.lists(st.none() | st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=80)


@given(NUMBERS)
def test_a_histogram_counts_every_value_once_between_edges_that_ascend(values: list[float | None]) -> None:
    found = profile(pl.DataFrame({"x": values}, schema={"x": pl.Float64}), ["x"])["x"]
    present = [value for value in values if value is not None]
    edges, counts = found["edges"], found["counts"]
    assert len(counts) == len(edges) + 1 <= BINS
    assert sum(counts) == len(present)
    assert edges == sorted(set(edges))
    bounds = [-np.inf, *edges, np.inf]
    for place, count in enumerate(counts):
        assert count == sum(bounds[place] < value <= bounds[place + 1] for value in present)
    assert found["rows"] == len(values)
    assert found["null_share"] == pytest.approx(1 - len(present) / len(values))


def test_twenty_bins_of_different_numbers_are_equally_full() -> None:
    draw = np.random.default_rng(0)
    found = profile(pl.DataFrame({"x": draw.normal(size=2_000)}), ["x"])["x"]
    assert found["counts"] == [100] * 20
    assert (found["mean"], found["std"]) == pytest.approx((0, 1), abs=0.05)


def test_moments_by_hand_leave_empty_values_out() -> None:
    found = profile(pl.DataFrame({"x": [1, None, 3, 8]}), ["x"])["x"]
    assert {name: found[name] for name in ("mean", "min", "max", "null_share", "rows")} == {
        "mean": 4, "min": 1, "max": 8, "null_share": 0.25, "rows": 4,
    }  # fmt: skip
    assert found["std"] == pytest.approx(((9 + 1 + 16) / 3) ** 0.5)


def test_a_constant_column_has_one_edge_and_all_its_rows_at_or_below_it() -> None:
    found = profile(pl.DataFrame({"x": [7.0] * 5}), ["x"])["x"]
    assert (found["edges"], found["counts"], found["std"]) == ([7.0], [5, 0], 0)


@pytest.mark.parametrize("kind", [pl.Float64, pl.Int64, pl.Null])
def test_a_column_that_is_all_empty_has_no_edges_and_no_moments(kind: type[pl.DataType]) -> None:
    found = profile(pl.DataFrame({"x": [None, None]}, schema={"x": kind}), ["x"])["x"]
    assert found == {"rows": 2, "null_share": 1.0, "edges": [], "counts": [0]}


def test_a_text_column_counts_its_levels_commonest_first_and_then_by_name() -> None:
    found = profile(pl.DataFrame({"channel": ["web", "shop", None, "web", "app", ""]}), ["channel"])["channel"]
    assert found == {"rows": 6, "null_share": 1 / 6, "levels": {"web": 2, "": 1, "app": 1, "shop": 1}}
    assert list(found["levels"]) == ["web", "", "app", "shop"]


def test_a_text_column_that_is_all_empty_has_no_levels() -> None:
    table = pl.DataFrame({"channel": [None]}, schema={"channel": pl.String})
    assert profile(table, ["channel"])["channel"] == {"rows": 1, "null_share": 1.0, "levels": {}}


def test_only_the_named_columns_are_described_and_the_portrait_can_be_written_as_json() -> None:
    table = pl.DataFrame({"x": [1.5, None], "flag": [True, False], "id": [1, 2], "channel": ["web", None]})
    found = profile(table, ["channel", "x", "flag"])
    assert list(found) == ["channel", "x", "flag"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
