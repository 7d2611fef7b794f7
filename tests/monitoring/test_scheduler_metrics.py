"""What the scheduler shows Prometheus: the newest check, whoever made it and whenever; the alarms; the traffic."""

import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta

import pytest

from mlops.storage import objects
from modules.fraud_detection.settings import NAME
from monitoring.drift_metrics import DriftMetrics
from tests.lived import DEMO, STORY
from tests.test_scheduler import DAY, Place, place

__all__ = ["place"]


@pytest.fixture
def metrics() -> Iterator[DriftMetrics]:
    served = DriftMetrics(0)
    yield served
    served.close()


def shown(metrics: DriftMetrics) -> Mapping[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name.replace(f'module="{NAME}"', "").replace(",}", "}"): float(value) for name, value in lines}


def test_prometheus_sees_the_latest_check_the_alarms_and_the_traffic(place: Place, metrics: DriftMetrics) -> None:
    place.scheduler(metrics).tick()
    found = shown(metrics)
    assert found['drift_psi{column="amount"}'] > 0.2
    assert found["drift_detected{}"] == found['alerts_open{kind="drift"}'] == 1
    assert found['alerts_open{kind="latency"}'] == 0
    assert found['traffic_weight{arm="production"}'] == 1
    assert 0 < found["estimated_average_precision{}"] < 1


def test_a_scheduler_that_starts_again_shows_the_latest_check(place: Place, metrics: DriftMetrics) -> None:
    report = place.scheduler().tick()
    assert report is not None
    place.at(STORY.end, 1)
    assert place.scheduler(metrics).tick() is None
    found = shown(metrics)
    assert found["drift_check_timestamp_seconds{}"] == report.until.replace(tzinfo=UTC).timestamp()
    assert (found["drift_detected{}"], found['drift_psi{column="amount"}'] > 0.2) == (1, True)


def test_a_check_that_another_process_made_is_shown(place: Place, metrics: DriftMetrics) -> None:
    place.at(STORY.end, 3)
    scheduler = place.scheduler(metrics)
    assert scheduler.tick() is not None
    until = place.start + STORY.end * DAY + timedelta(hours=5)
    check = ("-m", "monitoring.drift_check", "--module", NAME, "--config", str(DEMO), "--until", until.isoformat())
    assert place.lived.run(*check)[0] == 2
    place.at(STORY.end, 4)
    scheduler.tick()
    assert shown(metrics)["drift_check_timestamp_seconds{}"] == place.micro(STORY.end, 2) / 1e6
    place.at(STORY.end, 6)
    assert scheduler.tick() is None
    assert shown(metrics)["drift_check_timestamp_seconds{}"] == place.micro(STORY.end, 5) / 1e6


def test_a_report_that_cannot_be_read_is_told_once_and_the_last_good_one_stays_shown(
    place: Place, metrics: DriftMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = place.scheduler(metrics)
    scheduler.tick()
    before = shown(metrics)
    place.at(STORY.end, 1)
    broken = f"drift_reports/{NAME}/{place.start + STORY.end * DAY:%Y-%m-%dT%H-%M-%S}-version-1/report.json"
    objects.write(place.platform.objects, broken, b"{")
    for _ in range(2):
        scheduler.tick()
    assert shown(metrics) == before
    (line,) = [record.getMessage() for record in caplog.records if record.name == "scheduler"]
    assert line.startswith(f"the newest drift report cannot be read: {place.platform.objects.url(broken)}: ")
