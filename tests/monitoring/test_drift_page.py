"""The page of a drift report: it says what the report says, loads nothing, and takes no name for markup."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from mlops.errors import BadData
from monitoring import drift_page, drift_report
from monitoring.drift import Drift, compare, label_drift
from monitoring.drift_report import ColumnDrift, ConceptDrift, DriftReport, LabelDrift, ScoreBin
from monitoring.performance import Decisions, calibrate, concept_drift, estimate, realised
from monitoring.profile import profile

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
VOID = {"meta", "line"}


class Reader(HTMLParser):
    """Reads a page: its tags, their attributes, its text; and fails where tags do not close each other."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(columns: list[ColumnDrift], **parts: Any) -> dict[str, Any]:
    judged = {name: parts.get(name) for name in ("prediction", "label", "concept")}
    verdict, headline = drift_report.conclude(columns, **judged)
    made = DriftReport(
        name="fraud", version=3, snapshot="1f0c", since=datetime(2025, 1, 1, tzinfo=UTC),
        until=datetime(2025, 2, 1, tzinfo=UTC), look=2, rows=600, verdict=verdict, headline=headline, columns=columns,
        **parts,
    )  # fmt: skip
    return drift_report.plain(made)


def whole(name: str = "amount", level: str = "web", shift: float = 3.0) -> dict[str, Any]:
    """A report with all its parts, of one number, one text and the score."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=1_200)
    scores = 1 / (1 + np.exp(-logits))
    labels = (draw.random(1_200) < scores).astype(np.int64)
    table = pl.DataFrame({name: logits, "channel": ["shop", level] * 600, "score": scores})
    now = table[600:].with_columns(pl.col(name) + shift)
    columns = compare(profile(table[:600], table.columns), now, Drift())
    calibration = calibrate(scores[:600], labels[:600])
    decisions = Decisions(scores[600:] > 0.5, np.full(600, 80.0), 5.0)
    return report(
        columns[:-1], prediction=columns[-1],
        label=label_drift(0.5, 600, int(labels[600:].sum()), 600, Drift()),
        concept=concept_drift(calibration, scores[600:], labels[600:], Drift()),
        reference=realised(scores[:600], labels[:600]), estimated=estimate(calibration, scores[600:], decisions),
        realised=realised(scores[600:], labels[600:], decisions),
    )  # fmt: skip


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    page = drift_page.write(whole())
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|href|javascript", page, re.IGNORECASE)
    read = Reader(page)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [name for name in read.attributes if name.startswith("on")]
    assert "default-src 'none'" in page


def test_names_and_levels_that_look_like_markup_stay_text() -> None:
    read = Reader(drift_page.write(whole(name=HOSTILE, level=HOSTILE[::-1] + HOSTILE)))
    assert not read.tags & {"script", "img"}
    assert "onerror" not in read.attributes
    assert HOSTILE in read.text


def test_hostile_levels_in_reasons_snapshots_and_names_stay_text() -> None:
    then, now = (pl.DataFrame({"x": [level] * 600}) for level in ("a", HOSTILE))
    made = report(compare(profile(then, ["x"]), now, Drift())) | {"name": HOSTILE, "snapshot": HOSTILE}
    read = Reader(drift_page.write(made))
    assert not read.tags & {"script", "img"}
    assert read.text.count("onerror") >= 4


def test_a_page_says_what_the_report_says() -> None:
    made = whole()
    text = Reader(drift_page.write(made)).text
    for said in ("Drift in 1 of 2 columns.", "fraud, version 3", "1f0c", "2025-02-01 00:00", "number 2 of this version",
                 made["columns"][0]["reasons"][0], f"{made['realised']['average_precision']:.3f}",
                 f"{made['estimated']['expected']['cost']:,.2f}"):  # fmt: skip
        assert said in text


def test_drifted_columns_come_first_also_where_others_moved_more() -> None:
    moved = msgspec.structs.replace(part("stable"), name="moved", psi=0.19)
    emptier = msgspec.structs.replace(part("drifted"), name="emptier", psi=0.01)
    text = Reader(drift_page.write(report([moved, emptier]))).text
    assert text.index("emptier") < text.index("moved")


def test_what_was_not_looked_at_is_not_there() -> None:
    table = pl.DataFrame({"x": np.random.default_rng(0).normal(size=1_200)})
    page = drift_page.write(report(compare(profile(table[:600], ["x"]), table[600:], Drift())))
    text = Reader(page).text
    assert "Nothing has drifted." in text
    assert not [name for name in ("Performance", "Positives", "Meaning", "What the score means") if name in text]


@pytest.mark.parametrize("rows", [0, 10])
def test_too_few_rows_make_a_page_as_well(rows: int) -> None:
    then = pl.DataFrame({"x": [1.0] * 600, "y": ["a"] * 600, "z": pl.Series([None] * 600, dtype=pl.Float64)})
    made = report(
        compare(profile(then, then.columns), then[:rows], Drift()), label=label_drift(0.1, 600, 0, 0, Drift())
    )
    assert "Too few rows to judge." in Reader(drift_page.write(made)).text


def test_a_report_without_any_column_makes_a_page() -> None:
    assert "Too few rows to judge." in Reader(drift_page.write(report([]))).text


def test_a_report_is_the_same_after_json() -> None:
    made = whole()
    stored = msgspec.json.encode(made)
    assert drift_report.plain(drift_report.read(msgspec.json.decode(stored))) == made
    assert drift_page.write(msgspec.json.decode(stored)) == drift_page.write(made)


def test_what_is_no_report_is_refused() -> None:
    with pytest.raises(BadData, match="no drift report: .*version"):
        drift_page.write({"name": "fraud"})


def part(verdict: drift_report.Verdict) -> ColumnDrift:
    return ColumnDrift("x", "number", verdict, [], 9, 0.0, 0.0)


def test_a_conclusion_is_the_worst_of_its_parts_and_names_them() -> None:
    stable, moved, few = part("stable"), part("drifted"), part("not enough rows")
    label, concept = (
        LabelDrift("drifted", 9, 1, 0.1, 0.2, 0.0),
        ConceptDrift("drifted", 9, 0.5, 0.0, ScoreBin(None, None, 9, 2.0, 3, 0.0), []),
    )
    assert drift_report.conclude([stable, few], None, None, None) == ("stable", "Nothing has drifted.")
    assert drift_report.conclude([few], few, None, None) == ("not enough rows", "Too few rows to judge.")
    assert drift_report.conclude([moved, stable], None, None, None)[1] == "Drift in 1 of 2 columns."
    assert drift_report.conclude([moved], moved, label, concept) == (
        "drifted", "Drift in 1 of 1 columns, the score, the share of positives and what the score means."
    )  # fmt: skip
    assert drift_report.conclude([few], None, label, None) == ("drifted", "Drift in the share of positives.")


@pytest.mark.parametrize(("value", "said"), [(29_549.97, "29,550"), (0.25, "0.25"), (-3.14159, "-3.142"), (0.0, "0")])
def test_numbers_are_written_as_a_person_would(value: float, said: str) -> None:
    assert drift_report.spoken(value) == said
