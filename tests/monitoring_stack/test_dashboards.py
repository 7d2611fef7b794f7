"""The dashboards as files: what is built, whole by Grafana's rules, readable, and with queries that parse."""

import json
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring import dashboards
from tests.conftest import ROOT
from tests.monitoring_stack import expressions
from tests.monitoring_stack.expressions import Asked

BOARDS = expressions.dashboards()
GRAFANA = ROOT / "infra" / "grafana" / "provisioning"
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in expressions.panels(board)]
TAKES, EXPLAINS = "predict_request_duration_seconds_bucket", "explain_request_duration_seconds_bucket"
FAILED = "sum(rate(explain_requests_total)) / clamp_min(sum(rate(explain_requests_total)), 1e-9)"
QUANTILES = [f"histogram_quantile(0.{part}, sum by (le) (rate({{}})))" for part in (50, 95, 99)]
SPECIFIED: list[tuple[str, str, str, list[str]]] = [
    ("Latency", "Latency of /predict", "timeseries", [each.format(TAKES) for each in QUANTILES]),
    ("Latency", "Latency by version, p99", "timeseries",
     ["histogram_quantile(0.99, sum by (le, arm, version) (rate(decision_duration_seconds_bucket)))"]),
    ("Throughput and errors", "Throughput by status", "timeseries", ["sum by (status) (rate(predict_requests_total))"]),
    ("Predictions", "Predictions by decision", "timeseries", ["sum by (decision) (rate(decisions_total))"]),
    ("Predictions", "Predictions by version", "timeseries", ["sum by (version) (rate(decisions_total))"]),
    ("Predictions", "Predictions by arm", "timeseries", ["sum by (arm) (rate(decisions_total))"]),
    ("Predictions", "Predictions in the chosen time", "table",
     ["sum by (arm, version, decision) (increase(decisions_total))"]),
    ("Drift", "Drift of each feature", "timeseries", ["max by (column) (drift_psi)"]),
    ("Drift", "Latest drift", "bargauge", ["sort_desc(max by (column) (drift_psi))"]),
    ("Explanations", "Model Explainability Latency", "timeseries", [each.format(EXPLAINS) for each in QUANTILES]),
    ("Explanations", "/explain error rate", "timeseries", [FAILED, FAILED]),
]  # fmt: skip
"""Row, title and kind of each panel that the specification asks for, and what its queries read in which groups."""
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[panel["title"] for _, panel in PANELS]
)


def test_the_files_are_what_is_built_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dashboards.build() == dashboards.build()
    assert dashboards.main(["--check"]) == 0
    monkeypatch.setattr(dashboards, "FOLDER", tmp_path)
    assert dashboards.main(["--check"]) == 1
    assert "run: python -m monitoring.dashboards" in capsys.readouterr().err
    assert dashboards.main([]) == dashboards.main(["--check"]) == 0
    (changed := tmp_path / "latency_drift_dashboard.json").write_bytes(changed.read_bytes().replace(b"p99", b"p98", 1))
    assert dashboards.main(["--check"]) == 1


def test_it_runs_as_a_program() -> None:
    assert (
        subprocess.run([sys.executable, "-m", "monitoring.dashboards", "--check"], cwd=ROOT, check=False).returncode
        == 0
    )


@each_board
def test_grafanas_own_model_reads_a_board_and_gives_it_back(board: dict[str, Any]) -> None:
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert again == board


@each_board
def test_panels_have_ids_of_their_own_and_lie_beside_each_other(board: dict[str, Any]) -> None:
    assert max(Counter(panel["id"] for panel in board["panels"]).values()) == 1
    assert max(Counter(panel["title"] for panel in expressions.panels(board)).values()) == 1
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


@each_board
def test_no_row_of_the_grid_is_left_partly_empty(board: dict[str, Any]) -> None:
    width = Counter[int]()
    for place in (panel["gridPos"] for panel in board["panels"]):
        for line in range(place["y"], place["y"] + place["h"]):
            width[line] += place["w"]
    assert set(width) == set(range(max(width) + 1))
    # Only the taller one of two neighbours may stick out.
    assert sum(filled for filled in width.values() if filled != 24) <= 2 * 8


@each_board
def test_a_board_has_a_choice_of_data_source_and_module(board: dict[str, Any]) -> None:
    named = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert named["datasource"]["query"] == "prometheus"
    assert named["module"]["query"] == 'label_values(up{module!=""}, module)'
    assert all(board[name] for name in ("uid", "title", "description"))
    assert board["editable"] is False


def test_uids_are_unique() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) == 2


@each_panel
def test_a_panel_says_what_it_shows_in_which_unit_and_from_where(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
        assert source == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@each_panel
def test_a_series_has_a_name_where_there_are_several(panel: dict[str, Any]) -> None:
    if panel["type"] in ("timeseries", "bargauge", "state-timeline"):
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("asked", expressions.asked_by_panels(), ids=lambda asked: asked.where)
def test_a_query_parses_and_names_the_module_that_was_chosen(asked: Asked) -> None:
    assert promql_parser.parse(asked.expression) is not None
    about_machines = all(name.startswith("instance:") for name in expressions.metrics(asked.expression))
    assert 'module="fraud_detection"' in asked.expression or "fraud_detection|" in asked.expression or about_machines


def test_the_rows_stand_in_their_order() -> None:
    rows = [panel["title"] for panel in BOARDS["latency_drift_dashboard.json"]["panels"] if panel["type"] == "row"]
    assert rows[:5] == ["Latency", "Throughput and errors", "Predictions", "Drift", "Canary"]


@pytest.mark.parametrize(
    ("row", "title", "kind", "shows"), SPECIFIED, ids=[f"{row}: {title}" for row, title, *_ in SPECIFIED]
)
def test_a_panel_that_the_specification_names_shows_its_metric_in_its_groups(
    row: str, title: str, kind: str, shows: list[str]
) -> None:
    found = [panel for board in BOARDS.values() for panel in expressions.row(board, row) if panel["title"] == title]
    assert [panel["type"] for panel in found] == [kind]
    assert [expressions.outline(target["expr"]) for target in found[0]["targets"]] == shows


def test_red_is_for_what_is_wrong_alone() -> None:
    """A line that is red by name tells of failures; elsewhere red begins at a limit."""
    for _, panel in PANELS:
        for override in panel["fieldConfig"].get("overrides", []):
            colour = override["properties"][0]["value"]["fixedColor"]
            if colour == "#F2495C":
                assert override["matcher"]["options"] in {
                    "5..",
                    "failed",
                    "errors",
                    "incomplete",
                    "waiting",
                    "put away",
                }


def test_grafana_finds_its_data_source_and_the_files() -> None:
    source = yaml.safe_load((GRAFANA / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"][0]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://prometheus:9090")
    every = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["global"]
    assert source["jsonData"]["timeInterval"] == every["scrape_interval"]
    provider = yaml.safe_load((GRAFANA / "dashboards" / "files.yml").read_text(encoding="utf-8"))["providers"][0]
    services = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    mounts = dict(reversed(mount.split(":")[:2]) for mount in services["grafana"]["volumes"])
    assert (ROOT / "infra" / mounts[provider["options"]["path"]]).resolve() == expressions.DASHBOARDS
    assert (ROOT / "infra" / mounts["/etc/grafana/provisioning"]).resolve() == GRAFANA


def test_the_cloudwatch_exporter_reads_calls_errors_and_latency_of_endpoints() -> None:
    found = yaml.safe_load((ROOT / "infra" / "cloudwatch_exporter" / "config.yml").read_text(encoding="utf-8"))
    named = {each["aws_metric_name"] for each in found["metrics"]}
    assert {"Invocations", "ModelLatency", "Invocation5XXErrors", "Invocation4XXErrors"} <= named
    assert {tuple(each["aws_dimensions"]) for each in found["metrics"]} == {("EndpointName", "VariantName")}
