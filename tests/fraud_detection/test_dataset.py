"""What a data set declares: each column has one part, and a label says when it becomes known."""

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from modules.fraud_detection.src.data.dataset import DataSet

WORDS: dict[str, Any] = {
    "id": "payment",
    "time": {"column": "time"},
    "entities": ["customer", "terminal"],
    "amount": "amount",
    "label": {"column": "fraud", "known_at": "known"},
    "numeric": ["age"],
    "categorical": ["channel"],
}


@pytest.mark.parametrize(
    "twice",
    [
        {"id": "time"},
        {"entities": ["customer", "customer"]},
        {"amount": "customer"},
        {"numeric": ["amount"]},
        {"categorical": ["age"]},
        {"label": {"column": "channel", "known_at": "known"}},
        {"label": {"column": "fraud", "known_at": "time"}},
        {"label": {"column": "fraud", "known_at": "fraud"}},
    ],
)
def test_a_column_in_two_parts_is_refused(twice: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"column '\w+' plays two parts; name each column once"):
        DataSet.model_validate(WORDS | twice)


@pytest.mark.parametrize("both_or_none", [{}, {"known_at": "known", "delay": "7d"}])
def test_a_label_has_exactly_one_of_known_at_and_delay(both_or_none: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either known_at .* or delay"):
        DataSet.model_validate(WORDS | {"label": {"column": "fraud", **both_or_none}})


@pytest.mark.parametrize("delay", ["7", "d", "7w", "-7d", "7 days", ""])
def test_a_delay_that_is_no_length_of_time_is_refused(delay: str) -> None:
    with pytest.raises(ValidationError, match="is no length of time; write a number and s, m, h or d, such as 7d"):
        DataSet.model_validate(WORDS | {"label": {"column": "fraud", "delay": delay}})


def test_a_misspelt_part_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DataSet.model_validate(WORDS | {"entitys": ["customer"]})


def test_every_named_column_is_listed_once_in_the_order_of_the_parts() -> None:
    columns = ["payment", "time", "customer", "terminal", "amount", "age", "channel", "fraud", "known"]
    assert DataSet.model_validate(WORDS).columns == columns
    bare = DataSet.model_validate({"time": {"column": "t"}, "label": {"column": "y", "delay": "1d"}})
    assert bare.columns == ["t", "y"]


def test_a_label_becomes_known_when_its_column_says_or_a_fixed_time_after_the_event() -> None:
    table = pl.DataFrame({"time": [datetime(2025, 1, 31, 12)], "known": [datetime(2025, 3, 1)]})
    by_column = DataSet.model_validate(WORDS)
    by_delay = DataSet.model_validate(WORDS | {"label": {"column": "fraud", "delay": "36h"}})
    assert table.select(by_column.known_at()).item() == datetime(2025, 3, 1)
    assert table.select(by_delay.known_at()).item() == datetime(2025, 2, 2)
