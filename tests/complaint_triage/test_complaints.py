"""Complaints as somebody has them: each fault is found by row and reason, and too many stop the run."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from mlops.errors import BadData
from mlops.storage import tables
from modules.complaint_triage.src.data import complaints
from modules.complaint_triage.src.data.complaints import REASON, ROW, DataSet, Validation

OWN = DataSet(id="number", received="came", text="story", product="about")
GOOD = {"number": 1, "came": "2025-01-02T03:04:05Z", "story": "  the \n fee ", "about": "Card"}


def checked(rows: list[dict[str, object]], folder: Path, dataset: DataSet = OWN) -> complaints.Checked:
    table = pl.DataFrame(rows, infer_schema_length=None)
    tables.write(table, folder / "own.parquet")
    loaded = complaints.load(tables.source([folder / "own.parquet"]), dataset)
    return complaints.check(loaded, Validation(longest=20), dataset.received is not None)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"number": None}, "complaint_id is empty"), ({"number": 1}, "complaint_id is that of an earlier row"),
        ({"story": " \n"}, "text is empty"), ({"story": None}, "text is empty"),
        ({"story": "x" * 21}, "text is too long"),
        ({"about": ""}, "product is empty"), ({"came": "soon"}, "received is not a time"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_row(fault: dict[str, object], reason: str, tmp_path: Path) -> None:
    found = checked([GOOD, {**GOOD, "number": 2, **fault}], tmp_path)
    assert found.bad.select(ROW, REASON).rows() == [(1, reason)]
    assert found.good.height == 1
    with pytest.raises(BadData, match=f"1 of 2 rows are bad .* most often {reason}"):
        complaints.enforce(found, Validation())
    complaints.enforce(found, Validation(max_bad_share=0.5))


def test_good_rows_are_clean_and_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    earlier = {**GOOD, "number": 2, "came": "2025-01-02T03:04:05+01:00", "about": " Loan "}
    found = checked([GOOD, earlier], tmp_path).good
    assert found["complaint_id"].to_list() == ["2", "1"]
    assert found["received"].to_list() == [datetime(2025, 1, 2, 2, 4, 5), datetime(2025, 1, 2, 3, 4, 5)]
    assert found.row(1, named=True)["text"] == "the fee"
    assert found["product"].to_list() == ["Loan", "Card"]


@pytest.mark.parametrize("came", [datetime(2025, 1, 2), datetime(2025, 1, 2).date()])
def test_a_time_may_be_written_as_one(came: object, tmp_path: Path) -> None:
    assert checked([{**GOOD, "came": came}], tmp_path).good["received"].to_list() == [datetime(2025, 1, 2)]


def test_without_ids_and_times_rows_are_numbered_and_stay_in_order(tmp_path: Path) -> None:
    found = checked([GOOD, {**GOOD, "about": "Loan"}], tmp_path, DataSet(text="story", product="about")).good
    assert found["complaint_id"].to_list() == ["0", "1"]
    assert found["product"].to_list() == ["Card", "Loan"]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has no column 'story'; did you mean 'storey'"):
        checked([{**{name: value for name, value in GOOD.items() if name != "story"}, "storey": "x"}], tmp_path)
