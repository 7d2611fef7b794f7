"""Real services, traffic and a real Prometheus with the project's configuration: what it counts, and every panel."""

import math
import os
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import polars as pl
import pytest

from tests.monitoring_stack import expressions, servers
from tests.monitoring_stack.expressions import Asked
from tests.monitoring_stack.servers import Prometheus, awaited
from tests.monitoring_stack.world import Sent, World, world

pytestmark = pytest.mark.monitoring

JOBS = {"fraud-api", "explain-endpoint", "stream-worker", "scheduler", "node", "prometheus", "alertmanager"}
OWN = {"ALERTS", "up"}
"""What Prometheus makes itself."""


class Watched(NamedTuple):
    """A Prometheus that has seen everything, and what was sent."""

    prometheus: Prometheus
    sent: Sent
    targets: dict[str, str]


@pytest.fixture(scope="module")
def watched(transactions: pl.DataFrame, aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    for name in ("prometheus", "alertmanager", "node"):
        (folder / name).mkdir()
    quiet = {"PATH": os.environ["PATH"]}
    with ExitStack() as stack:
        running = stack.enter_context(world(folder, aws))
        scheduler, at = stack.enter_context(running.scheduler())
        targets = {
            **running.targets,
            "scheduler:9102": at,
            "node-exporter:9100": stack.enter_context(servers.node_exporter(folder / "node")),
            "alertmanager:9093": stack.enter_context(servers.alertmanager(folder / "alertmanager", quiet)),
        }
        prometheus = stack.enter_context(servers.prometheus(folder / "prometheus", targets))
        awaited(lambda: set(prometheus.targets().values()) == {"up"}, "every target is read")
        _traffic(running, prometheus, transactions)
        assert scheduler.tick() is not None
        awaited(lambda: prometheus.query("drift_psi"), "the check is read")
        _settled(prometheus, running.sent)
        yield Watched(prometheus, running.sent, targets)


def _traffic(running: World, prometheus: Prometheus, transactions: pl.DataFrame) -> None:
    """A little, until Prometheus has seen it, and then more: what is there must be seen to rise."""
    running.ask(transactions[-1020:-1000], "first")
    running.stream("first")
    awaited(lambda: prometheus.query("decisions_total"), "the first decisions are read")
    running.ask(transactions[-1000:], "then")
    running.stream("then")


def _settled(prometheus: Prometheus, sent: Sent) -> None:
    answered = 'sum(predict_requests_total{job="fraud-api", status="200"})'
    awaited(lambda: prometheus.value(answered) == sent.answered, "every answer is counted")
    read = sum(sent.records.values())
    awaited(lambda: prometheus.value("sum(stream_records_total)") == read, "every record of the stream is counted")
    for asked in expressions.asked_by_panels():
        awaited(partial(prometheus.query, asked.expression), f"data for {asked.where}")


def test_every_job_is_up_and_the_optional_exporter_is_no_target(watched: Watched) -> None:
    assert watched.prometheus.targets() == dict.fromkeys(JOBS, "up")


def test_each_count_is_what_was_sent_to_two_workers(watched: Watched) -> None:
    value, sent = watched.prometheus.value, watched.sent
    api = 'job="fraud-api"'
    assert value(f'sum(predict_requests_total{{{api}, status="200"}})') == sent.answered
    assert value(f'sum(predict_requests_total{{{api}, status="422"}})') == sent.refused
    assert value(f'sum(predict_requests_total{{{api}, status=~"5.."}})') == 0
    assert value(f"predict_request_duration_seconds_count{{{api}}}") == sent.answered + sent.refused
    assert value(f"sum(decisions_total{{{api}}})") == value(f"cache_misses_total{{{api}}}") == sent.fresh
    assert value(f"cache_hits_total{{{api}}}") == sent.repeated
    assert value(f"labels_total{{{api}}}") == sent.labels
    assert value('explain_requests_total{status="200"}') == sent.explained
    assert value('explain_requests_total{status="404"}') == sent.explained_refused
    assert value('sum(explain_requests_total{status=~"5.."})') == 0
    assert value("explain_request_duration_seconds_count") == sent.explained + sent.explained_refused
    records = {labels["outcome"]: count for labels, count in watched.prometheus.query("stream_records_total")}
    assert records == sent.records
    assert value("dead_letters_waiting") == sent.records["put away"]


def test_no_series_is_there_twice(watched: Watched) -> None:
    """Two jobs read the API's one address; what tells their series apart must be more than the job."""
    found = watched.prometheus.query('{job=~"fraud-api|explain-endpoint", __name__!~"up|scrape_.*"}')
    apart = Counter(frozenset(labels.items() - {("job", labels["job"])}) for labels, _ in found)
    assert len(apart) == len(found) > 100
    jobs = watched.prometheus.query('count by (job) ({__name__=~"explain_.*"})')
    assert [labels["job"] for labels, _ in jobs] == ["explain-endpoint"]
    others = 'count({job="explain-endpoint", __name__!~"explain_.*|up|scrape_.*"})'
    assert watched.prometheus.value(others) is None


@pytest.mark.parametrize("asked", expressions.asked_by_panels(), ids=lambda asked: asked.where)
def test_a_panel_has_data(watched: Watched, asked: Asked) -> None:
    found = watched.prometheus.query(asked.expression)
    assert found
    assert not all(math.isnan(value) for _, value in found)


def test_panels_of_errors_show_0_and_not_that_there_is_no_data(watched: Watched) -> None:
    shown = {
        panel["title"]: [watched.prometheus.query(expressions.filled(each["expr"])) for each in panel["targets"]]
        for dashboard in expressions.dashboards().values()
        for panel in expressions.panels(dashboard)
    }
    for title in (
        "Failed answers", "Error rate", "Failed", "Failed in the chosen time", "Cache errors",
        "Failures of the candidate", "Decided on an incomplete past", "Shards tried again",
    ):  # fmt: skip
        assert [value for _, value in shown[title][0]] == [0], title
    failed, refused = shown["/explain error rate"]
    assert [value for _, value in failed] == [0]
    assert 0 < refused[0][1] < 0.5
    by_kind = {labels["kind"]: value for labels, value in shown["Refused and failed"][0]}
    assert by_kind["failed"] == 0 < by_kind["refused"]


def test_every_rule_is_evaluated_and_no_alert_fires_for_what_is_as_it_should_be(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(expressions.rules())
    assert {rule["health"] for rule in rules} == {"ok"}
    firing = {labels["alertname"] for labels, _ in watched.prometheus.query('ALERTS{alertstate="firing"}')}
    # The machine that runs the tests may be full or busy, and the data of the tests may drift.
    assert firing <= {"DriftFound", "DiskNearlyFull"}


def test_every_metric_that_a_rule_or_a_panel_names_is_told_by_somebody(watched: Watched) -> None:
    told = set(OWN)
    for address in watched.targets.values():
        told |= _families(f"http://{address}/metrics")
    told |= _families(f"http://{watched.prometheus.at}/metrics")
    recorded = {rule["record"] for rule in expressions.rules() if "record" in rule}
    for where, expression in [*expressions.asked_by_rules(), *expressions.asked_by_panels()]:
        assert expressions.metrics(expression) <= told | recorded, where


def test_every_recorded_series_has_a_value(watched: Watched) -> None:
    for rule in expressions.rules():
        if "record" in rule:
            found = watched.prometheus.query(rule["record"])
            assert found, rule["record"]
            assert not any(math.isnan(value) for _, value in found), rule["record"]


def _families(url: str) -> set[str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.partition("{")[0].partition(" ")[0] for line in lines if line and not line.startswith("#")}
