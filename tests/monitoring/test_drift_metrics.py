"""What Prometheus is shown of a check: each column that was judged, and nothing of those that were not or are gone."""

import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from monitoring.drift_metrics import DriftMetrics
from monitoring.drift_report import DRIFTED, STABLE, TOO_FEW, ColumnDrift, DriftReport, Estimate, Performance, Verdict

UNTIL = datetime(2025, 2, 1, 2)


@pytest.fixture
def metrics() -> Iterator[DriftMetrics]:
    served = DriftMetrics(0)
    yield served
    served.close()


def column(name: str, psi: float | None, verdict: Verdict = STABLE) -> ColumnDrift:
    return ColumnDrift(name, "number", verdict, [], 600, 0.0, 0.0, psi=psi)


def report(*columns: ColumnDrift, name: str = "fraud", **parts: Any) -> DriftReport:
    return DriftReport(name, 3, "1f0c", UNTIL - timedelta(days=7), UNTIL, 1, 600, STABLE, "", list(columns), **parts)


def performance(average_precision: float | None) -> Performance:
    return Performance(600, 6.0, average_precision, None, None, None, None)


def shown(metrics: DriftMetrics, family: str) -> Mapping[str, float]:
    """The series of a family by their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
    return {name.removeprefix(family): float(value) for name, _, value in lines if name.startswith(f"{family}{{")}


def test_a_column_that_could_not_be_judged_is_left_out_and_one_without_drift_is_0(metrics: DriftMetrics) -> None:
    few, empty = column("few", 0.7, TOO_FEW), column("empty", None, DRIFTED)
    metrics.checked(report(column("still", 0.0), few, empty, prediction=column("score", 0.3, DRIFTED)))
    assert shown(metrics, "drift_psi") == {
        '{column="still",module="fraud"}': 0,
        '{column="score",module="fraud"}': 0.3,
    }


def test_a_column_that_can_be_judged_no_more_is_taken_away_until_it_can_be_again(metrics: DriftMetrics) -> None:
    for psi, verdict, expected in ((0.1, STABLE, [0.1]), (0.1, TOO_FEW, []), (0.2, STABLE, [0.2]), (None, STABLE, [])):
        metrics.checked(report(column("amount", psi, verdict)))
        assert list(shown(metrics, "drift_psi").values()) == expected


def test_columns_that_a_new_version_has_not_go_and_those_of_other_modules_stay(metrics: DriftMetrics) -> None:
    metrics.checked(report(column("old", 0.1), name="triage"))
    metrics.checked(report(column("old", 0.1), column("both", 0.2)))
    metrics.checked(msgspec.structs.replace(report(column("both", 0.3), column("new", 0.4)), version=4))
    assert shown(metrics, "drift_psi") == {
        '{column="old",module="triage"}': 0.1,
        '{column="both",module="fraud"}': 0.3,
        '{column="new",module="fraud"}': 0.4,
    }


def test_a_precision_that_is_known_no_more_is_taken_away(metrics: DriftMetrics) -> None:
    estimated = Estimate(performance(0.5), performance(0.4), performance(0.6))
    metrics.checked(report(estimated=estimated, realised=performance(0.45)))
    assert shown(metrics, "estimated_average_precision") == {'{module="fraud"}': 0.5}
    assert shown(metrics, "realised_average_precision") == {'{module="fraud"}': 0.45}
    metrics.checked(report(realised=performance(None)))
    assert shown(metrics, "estimated_average_precision") == shown(metrics, "realised_average_precision") == {}
