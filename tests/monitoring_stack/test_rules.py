"""The rules of Prometheus: checked and tested by promtool; each alert silent, raised with its words, silent again."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from modules.fraud_detection.__main__ import WORDS
from tests.conftest import ROOT
from tests.monitoring_stack import expressions
from tests.monitoring_stack.expressions import Asked
from tests.monitoring_stack.servers import CONFIGURATION, program

pytestmark = pytest.mark.monitoring

ALERTS = {rule["alert"]: rule for rule in expressions.rules() if "alert" in rule}
SERVICES = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))["services"]
ASKED = [*expressions.asked_by_rules(), *expressions.asked_by_panels()]
RECORDED = [rule["record"] for rule in expressions.rules() if "record" in rule]


def promtool(*words: str) -> str:
    found = subprocess.run([program("promtool"), *words], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@cache
def cases(kind: str) -> list[dict[str, Any]]:
    """What the files of promtool ask: `alert_rule_test` or `promql_expr_test`."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in expressions.files()]
    return [case for file in files for test in file["tests"] for case in test.get(kind, [])]


def test_the_configuration_and_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", str(CONFIGURATION / "prometheus.yml"))
    assert promtool("check", "rules", *map(str, sorted(expressions.RULES.glob("*.yml")))).count("SUCCESS") == 3


@pytest.mark.parametrize("path", expressions.files(), ids=lambda path: path.stem)
def test_rules_do_what_their_test_says(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_silent_then_raised_then_silent(name: str) -> None:
    mine = [bool(case.get("exp_alerts")) for case in cases("alert_rule_test") if case["alertname"] == name]
    raised = mine.index(True)
    assert False in mine[:raised]
    assert False in mine[raised:]


def test_no_test_is_of_an_alert_that_there_is_not() -> None:
    assert {case["alertname"] for case in cases("alert_rule_test")} == set(ALERTS)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_series_is_tested_and_used(name: str) -> None:
    told = [case for case in cases("promql_expr_test") if name in expressions.metrics(case["expr"])]
    assert any(case.get("exp_samples") for case in told)
    assert any(name in expressions.metrics(each.expression) for each in ASKED)


@pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_type(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    words = rule["annotations"]
    assert set(words) == {"summary", "description", "runbook"}
    assert words["description"].endswith(".")
    assert _typed(words["runbook"]), words["runbook"]


@pytest.mark.parametrize("asked", expressions.asked_by_rules(), ids=lambda asked: asked.where)
def test_a_rule_names_no_module_and_no_version_of_one(asked: Asked) -> None:
    assert promql_parser.parse(asked.expression) is not None
    assert "fraud" not in asked.expression
    assert not re.search(r"(module|version|arm)=\"(?!production|candidate)", asked.expression)


def test_a_second_module_needs_targets_and_no_rule() -> None:
    """What has a module in its label says so; the scheduler and the machines serve all of them."""
    found = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8"))
    named = {
        job["job_name"]: group.get("labels", {})
        for job in found["scrape_configs"]
        for group in job.get("static_configs", [])
    }
    assert {name for name, labels in named.items() if "module" in labels} == {
        "fraud-api", "explain-endpoint", "stream-worker",
    }  # fmt: skip


def _typed(command: str) -> bool:
    """Whether a runbook's command can be typed: a service that there is, and a word that it knows."""
    if command in ("docker stats --no-stream", "docker system df", "docker ps --all --filter name=mlops-"):
        return True
    shown = re.fullmatch(r"docker logs (?:--tail \d+|--since \d+h) mlops-([a-z-]+)-1", command)
    if shown is not None:
        return shown[1] in SERVICES
    done = re.fullmatch(r"docker exec mlops-([a-z-]+)-1 python (.+)", command)
    return done is not None and done[1] in SERVICES and _known(done[2])


def _known(words: str) -> bool:
    module = re.match(r"-m modules\.\{\{ \$labels\.module \}\} ([a-z-]+)", words)
    if module is not None:
        return module[1] in WORDS
    script = re.match(r"(?:-m )?([\w./]+?)(?:\.py)? --module \{\{ \$labels\.module \}\}", words)
    return script is not None and (ROOT / f"{script[1].replace('.', '/')}.py").is_file()
