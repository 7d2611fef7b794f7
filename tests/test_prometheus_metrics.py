"""Metrics: every family from the start, every answer once, labels that nobody can multiply, workers that die."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from monitoring.drift_metrics import DriftMetrics
from monitoring.drift_report import TOO_FEW, DriftReport, Verdict
from monitoring.prometheus_metrics import Metrics
from tests.conftest import ROOT

ROUTES, DECISIONS = ("/predict", "/predict/batch", "/explain", "/health"), ("approve", "review", "decline")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(ROUTES, DECISIONS)


def values(exposition: bytes) -> Mapping[str, float]:
    lines = [line for line in exposition.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_every_family_is_there_before_the_first_request(metrics: Metrics) -> None:
    """A rate over a family that is not there is no data, and an alert on it would sleep."""
    found = values(metrics.exposition())
    for name in (
        'predict_requests_total{status="200"}', 'predict_requests_total{status="503"}',
        "predict_request_duration_seconds_count", 'explain_requests_total{status="200"}',
        'explain_requests_total{status="500"}', "explain_request_duration_seconds_count", "cache_hits_total",
        "cache_misses_total", "cache_errors_total", 'request_errors_total{kind="refused"}',
        'request_errors_total{kind="failed"}', "online_degraded_total", "labels_total", "journal_waiting_entries",
        "journal_seconds_behind",
    ):  # fmt: skip
        assert found[name] == 0, name


def test_a_batch_is_counted_once_in_each_family(metrics: Metrics) -> None:
    decided = {("production", 3, "approve"): [0.001, 0.3], ("production", 3, "decline"): [0.001]}
    metrics.predicted([200, 200, 422, 200, 503, 200], [0.001] * 6, 1, 1, decided, {4: 2})
    found = values(metrics.exposition())
    assert found['predict_requests_total{status="200"}'] == 4
    assert found['predict_requests_total{status="422"}'] == found['predict_requests_total{status="503"}'] == 1
    assert found['request_errors_total{kind="refused"}'] == found['request_errors_total{kind="failed"}'] == 1
    assert found["predict_request_duration_seconds_count"] == 6
    assert found['predict_request_duration_seconds_bucket{le="0.001"}'] == 6
    assert found['predict_request_duration_seconds_bucket{le="0.0005"}'] == 0
    assert (found["cache_hits_total"], found["cache_misses_total"], found["online_degraded_total"]) == (1, 3, 1)
    assert found['decisions_total{arm="production",decision="approve",version="3"}'] == 2
    assert found['decision_duration_seconds_count{arm="production",version="3"}'] == 3
    assert found['decision_duration_seconds_bucket{arm="production",le="0.001",version="3"}'] == 2
    assert found['candidate_failures_total{version="4"}'] == 2


def test_a_candidate_that_decides_has_a_count_of_failures_before_it_fails(metrics: Metrics) -> None:
    """A count that appears with its first failure shows no rise, and an alert would sleep through it."""
    metrics.predicted(
        [200, 200], [0.001] * 2, 0, 0, {("production", 3, "approve"): [0.001], ("canary", 4, "approve"): [0.1]}
    )
    found = values(metrics.exposition())
    assert found['candidate_failures_total{version="4"}'] == 0
    assert 'candidate_failures_total{version="3"}' not in found


def test_a_failed_explanation_is_ours_and_a_wrong_request_is_the_callers(metrics: Metrics) -> None:
    for status in (200, 422, 500):
        metrics.replied("/explain", status, 0.1)
    found = values(metrics.exposition())
    assert [found[f'explain_requests_total{{status="{status}"}}'] for status in (200, 422, 500)] == [1, 1, 1]
    assert found['request_errors_total{kind="failed"}'] == found['request_errors_total{kind="refused"}'] == 1


def test_explanations_are_counted_apart(metrics: Metrics) -> None:
    metrics.replied("/explain", 200, 0.5)
    metrics.replied("/explain", 404, 0.1)
    metrics.replied("/health", 200, 0.1)
    found = values(metrics.exposition())
    assert found['explain_requests_total{status="200"}'] == found['explain_requests_total{status="404"}'] == 1
    assert found["explain_request_duration_seconds_count"] == 2
    assert found["predict_request_duration_seconds_count"] == 0
    assert found['http_requests_total{route="/health",status="200"}'] == 1


def test_no_caller_can_make_new_series(metrics: Metrics) -> None:
    before = len(values(metrics.exposition()))
    for number in range(300):
        metrics.replied(f"/made/up/{number}", 200 + number, 0.1)
        metrics.predicted([600 + number], [0.1], 0, 0, {("production", 1, f"made up {number}"): [0.1]})
    found = values(metrics.exposition())
    assert found['decisions_total{arm="production",decision="other",version="1"}'] == 300
    assert found['predict_requests_total{status="other"}'] == 300
    # A status that is known is a series of `http_requests`; each counter has a second line, when it was made.
    assert len(found) - before < 60


def test_what_is_served_is_one_series_with_one(metrics: Metrics) -> None:
    metrics.serves("fraud_detection", 1, "a" * 64)
    metrics.serves("fraud_detection", 2, "b" * 64)
    metrics.serves("fraud_detection", 2, "b" * 64)
    found = {name: value for name, value in values(metrics.exposition()).items() if name.startswith("model_info")}
    assert sum(found.values()) == 1
    assert found[f'model_info{{hash="{"b" * 16}",name="fraud_detection",version="2"}}'] == 1


@pytest.mark.parametrize(("verdict", "detected", "judged"), [("drifted", 1, 1), ("stable", 0, 1), (TOO_FEW, 0, 0)])
def test_a_check_tells_no_drift_from_too_little_to_tell_and_its_time_on_any_host(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, detected: int, judged: int
) -> None:
    until = datetime(2025, 2, 1, 2)
    report = DriftReport("fraud", 3, "1f0c", until - timedelta(days=7), until, 1, 600, verdict, "", [])
    metrics = DriftMetrics(0)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    metrics.checked(report)
    monkeypatch.undo()
    time.tzset()
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        found = values(answer.read())
    metrics.close()
    assert (found['drift_detected{module="fraud"}'], found['drift_judged{module="fraud"}']) == (detected, judged)
    assert found['drift_check_timestamp_seconds{module="fraud"}'] == until.replace(tzinfo=UTC).timestamp()


def test_metrics_are_served_where_they_are_asked_to_be(metrics: Metrics) -> None:
    for host in ("127.0.0.1", "127.0.0.2"):
        with urllib.request.urlopen(f"http://{host}:{metrics.serve(0, host)}/metrics") as answer:
            assert b"predict_requests_total" in answer.read()


WORKER = """
import os, signal, sys
from monitoring.prometheus_metrics import Metrics
metrics = Metrics(["/predict"], ["approve"])
for _ in range(int(sys.argv[1])):
    metrics.predicted([200], [0.001], 0, 0, {("production", 1, "approve"): [0.001]})
metrics.journal(7, 1.5)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdout.buffer.write(metrics.exposition())
"""


def test_workers_count_together_and_the_dead_ones_past_stays(tmp_path: Path) -> None:
    """What a killed worker counted stays; what it said of the present goes with it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(count: int, end: str) -> bytes:
        command = [sys.executable, "-c", WORKER, str(count), end]
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=end != "killed").stdout

    worker(5, "killed")
    found = values(worker(3, "lives"))
    assert found['predict_requests_total{status="200"}'] == 8
    assert found["predict_request_duration_seconds_count"] == 8
    assert found['decisions_total{arm="production",decision="approve",version="1"}'] == 8
    assert found["journal_waiting_entries"] == 7
