"""What the rules and the dashboards ask of Prometheus, taken from their files."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml

from tests.conftest import ROOT

RULES = ROOT / "infra" / "prometheus" / "rules"
DASHBOARDS = ROOT / "monitoring" / "grafana_dashboards"
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$module": "fraud_detection"}


class Asked(NamedTuple):
    """An expression, and where it stands."""

    where: str
    expression: str


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def dashboards() -> Mapping[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def row(dashboard: Mapping[str, Any], title: str) -> list[dict[str, Any]]:
    """The panels below a row, up to the next one."""
    found, inside = [], False
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            inside = panel["title"] == title
        elif inside:
            found.append(panel)
    return found


def outline(expression: str) -> str:
    """An expression without its filters and windows: functions, groups and metrics."""
    return re.sub(r"\{.*?\}|\[.*?\]", "", expression)


def asked_by_rules() -> list[Asked]:
    """The expression of each rule."""
    return [Asked(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def asked_by_panels() -> list[Asked]:
    """Each query of each panel, with Grafana's variables filled in."""
    return [
        Asked(f"{panel['title']} {target['refId']}", filled(target["expr"]))
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def filled(expression: str) -> str:
    """An expression with values in the place of Grafana's variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


@cache
def metrics(expression: str) -> frozenset[str]:
    """The names of the metrics that an expression reads."""
    return frozenset(selector.name or "" for selector in _selectors(promql_parser.parse(expression)))


def _selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from _selectors(child)


def files() -> list[Path]:
    """The tests of promtool."""
    return sorted((RULES.parent / "tests").glob("*.yml"))
