"""The whole stack, really started: who reaches what, what is kept over kills and restarts, and who is told."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.serving import transactions
from tests.conftest import ROOT, SMALL
from tests.services import missing
from tests.stack.stack import DECISIONS, PORTS, Stack, awaited, lacking, started

pytestmark = pytest.mark.images

PROJECT = "mlops-test"
SMALL_WORLD = {f"simulation__{name}": size for name, size in SMALL.items()} | {"evaluation__resamples": 20}
REQUIRED = {"fraud-api", "explain-endpoint", "stream-worker", "scheduler", "node", "prometheus", "alertmanager"}
LISTEN = """
import boto3, json
sqs, sns = boto3.client("sqs"), boto3.client("sns")
url = sqs.create_queue(QueueName="people")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
sns.subscribe(TopicArn=sns.create_topic(Name="mlops-alerts")["TopicArn"], Protocol="sqs", Endpoint=arn)
"""
HEAR = """
import boto3, json
sqs = boto3.client("sqs")
for name in ("people", "mlops-alerts"):
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, MaxNumberOfMessages=10).get("Messages", [])
    print(json.dumps([json.loads(one["Body"]) for one in found]))
"""
RAISE = """
import json
from urllib.request import Request, urlopen
alert = {"labels": {"alertname": "Rehearsal", "severity": "page"}, "annotations": {"summary": "it is only a test"}}
words = {"Content-Type": "application/json"}
urlopen(Request("http://alertmanager:9093/api/v2/alerts", json.dumps([alert]).encode(), words), timeout=5)
"""
KILL = """
import os, pathlib, signal
lines = {int(path.parent.name): path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
os.kill(sorted(number for number, line in lines.items() if b"\\0serve\\0" in line)[1], signal.SIGKILL)
"""
"""Process 1 is the one that reaps; the next is the one that the others belong to."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := lacking():
        missing(reason)
    with started(tmp_path_factory.mktemp("stack"), PROJECT, **SMALL_WORLD) as found:
        yield found


def sent(name: str, count: int) -> list[dict[str, Any]]:
    """New transactions."""
    body = transactions(name)
    return [json.loads(body()) for _ in range(count)]


def decided(stack: Stack, batch: list[dict[str, Any]]) -> dict[str, str]:
    """Let the API decide; return the id of each decision."""
    status, answers = stack.ask("api", "/predict/batch", {"transactions": batch})
    assert status == 200, answers
    return {one["transaction_id"]: one["decision_id"] for one in answers["results"]}


def count(stack: Stack) -> int:
    return int(stack.journal(DECISIONS)[0])


def runs(stack: Stack) -> set[str]:
    """The runs of MLflow that versions came from, each with the files of its model."""
    status, found = stack.ask("mlflow", "/api/2.0/mlflow/model-versions/search")
    assert status == 200, found
    ids = {one["run_id"] for one in found["model_versions"]}
    for id_ in ids:
        _, listed = stack.ask("mlflow", f"/api/2.0/mlflow/artifacts/list?run_id={id_}&path=model")
        assert "MLmodel" in str(listed), listed
        assert listed["root_uri"].startswith("mlflow-artifacts:")
    return ids


def test_all_are_healthy_and_only_the_specified_ports_are_published(stack: Stack) -> None:
    containers = stack.containers()
    states = {one["Service"]: (one["State"], one["Health"], one["ExitCode"]) for one in containers}
    assert states.pop("aws-setup") == ("exited", "", 0)
    assert set(states.values()) == {("running", "healthy", 0)}, states
    published = {port["PublishedPort"] for one in containers for port in one["Publishers"] or ()} - {0}
    assert published == {port for name, port in PORTS.items() if stack.whole or name != "grafana"}


def test_only_who_has_a_key_is_answered(stack: Stack) -> None:
    (body,) = sent("key", 1)
    assert stack.ask("api", "/predict", body, Authorization="Bearer nothing")[0] == 401
    assert stack.ask("api", "/predict", body)[0] == 200
    assert stack.ask("api", "/ready", Authorization="")[1]["ready"] is True


def test_what_the_api_and_the_stream_decide_is_in_postgresql(stack: Stack) -> None:
    before = count(stack)
    decided(stack, sent("api", 60))
    stack.put(sent("stream", 300))
    awaited(lambda: count(stack) == before + 360, "the worker decides too little")
    said = stack.run("exec", "--no-TTY", "api", "python", "-m", "modules.fraud_detection", "verify")
    assert "each as it was written" in said


def test_mlflow_lists_the_run_and_serves_its_files(stack: Stack) -> None:
    assert len(runs(stack)) == 1


def test_mlflow_answers_under_its_own_names_alone(stack: Stack) -> None:
    asked = ("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1")
    assert stack.ask(*asked)[0] == 200
    program = (
        "from urllib.request import Request, urlopen\n"
        f"try:\n    urlopen(Request('http://mlflow:5000{asked[1]}', headers={{'Host': 'elsewhere.example'}}))\n"
        "except OSError as error:\n    print(error)\n"
    )
    assert "403" in stack.python("api", program)


def test_prometheus_reaches_every_required_target_and_evaluates_every_rule(stack: Stack) -> None:
    def up() -> set[str]:
        targets = stack.ask("prometheus", "/api/v1/targets")[1]["data"]["activeTargets"]
        return {one["labels"]["job"] for one in targets if one["health"] == "up"}

    awaited(lambda: up() == REQUIRED, f"some target is down; up are {up()}")
    awaited(lambda: healths(stack) == {"ok"}, "a rule fails")
    found = stack.ask("prometheus", "/api/v1/alertmanagers")[1]["data"]["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://alertmanager:9093/api/v2/alerts"]


def healths(stack: Stack) -> set[str]:
    groups = stack.ask("prometheus", "/api/v1/rules")[1]["data"]["groups"]
    assert groups
    return {rule["health"] for group in groups for rule in group["rules"]}


def test_an_alert_reaches_people_through_the_topic_and_not_the_queue_of_the_worker(stack: Stack) -> None:
    stack.python("api", LISTEN)
    stack.python("api", RAISE)

    def heard() -> Mapping[str, Any] | None:
        people, worker = (json.loads(line) for line in stack.python("api", HEAR).splitlines())
        assert worker == []
        return people[0] if people else None

    message = awaited(heard, "no alert came", 60)
    assert "it is only a test" in message["Message"]
    assert "Rehearsal" in message["Subject"]


def test_a_killed_api_comes_back_and_what_it_acknowledged_is_there(stack: Stack) -> None:
    acknowledged: dict[str, str] = {}
    batches = [sent(f"kill-{place}", 20) for place in range(200)]
    stop = threading.Event()

    def ask_on() -> None:
        for batch in batches:
            if stop.is_set():
                return
            try:
                acknowledged.update(decided(stack, batch))
            except OSError:
                return

    asking = threading.Thread(target=ask_on)
    asking.start()
    awaited(lambda: len(acknowledged) >= 200, "the API answers too little")
    stack.python("api", KILL)
    stop.set()
    asking.join()
    awaited(lambda: stack.restarts("api") == 1, "nobody started the API again")
    awaited(lambda: ready(stack), "the API did not come back")
    again = [one for batch in batches for one in batch if one["transaction_id"] in acknowledged]
    for start in range(0, len(again), 100):
        for id_, decision in decided(stack, again[start : start + 100]).items():
            assert acknowledged[id_] == decision
    found = stack.journal("select encode(id, 'hex') from journal where kind = 'decision'")
    assert set(acknowledged.values()) <= set(found)


def ready(stack: Stack) -> bool:
    try:
        return stack.ask("api", "/ready")[0] == 200
    except OSError:
        return False


def test_a_restart_keeps_runs_and_decisions(stack: Stack) -> None:
    kept, made = count(stack), runs(stack)
    stack.run("restart", "postgres", "redis", "mlflow", "api", "worker")
    stack.up()
    assert (count(stack), runs(stack)) == (kept, made)
    assert decided(stack, sent("api", 60)).keys() == {f"api-{place}" for place in range(60)}
    assert count(stack) == kept


def test_after_down_and_up_runs_and_decisions_are_there_and_the_new_stream_is_read(stack: Stack) -> None:
    kept, made = count(stack), runs(stack)
    stack.run("down")
    assert stack.containers() == []
    stack.up()
    assert (count(stack), runs(stack)) == (kept, made)
    stack.put(sent("after", 100))
    awaited(lambda: count(stack) == kept + 100, "the worker does not read the new stream")


def test_no_password_stands_in_an_argument_a_log_or_an_image(stack: Stack) -> None:
    environment = stack.run("exec", "--no-TTY", "postgres", "env") + stack.run("exec", "--no-TTY", "redis", "env")
    secrets = {line.split("=", 1)[1] for line in environment.splitlines() if "_PASSWORD=" in line or "AUTH=" in line}
    assert len(secrets) == 5
    shown = stack.run("top") + stack.run("logs", "--no-color")
    images = {one["Image"] for one in stack.containers()}
    shown += "".join(stack.history(image) for image in images)
    assert [secret for secret in secrets if secret in shown] == []


def test_an_owner_of_one_database_enters_no_other(stack: Stack) -> None:
    program = (
        "import os, psycopg\n"
        "url = os.environ['SECRET_MLOPS_LEDGER_URL']\n"
        "psycopg.connect(url).close()\n"
        "try:\n    psycopg.connect(url.removesuffix('/ledger') + '/journal')\n"
        "except psycopg.OperationalError as error:\n    print(error)\n"
    )
    assert "permission denied for database" in stack.python("api", program)


def test_the_stores_are_out_of_reach_for_what_only_watches(stack: Stack) -> None:
    for store in ("redis:6379", "postgres:5432"):
        done = stack.attempt("exec", "--no-TTY", "prometheus", "wget", "-q", "-T", "3", "-O", "-", f"http://{store}/")
        assert "bad address" in done


def test_grafana_has_both_dashboards_and_lets_nobody_in_without_the_password(stack: Stack) -> None:
    if not stack.whole:
        missing("Grafana's image cannot be pulled here, and Debian has no Grafana")
    assert stack.ask("grafana", "/api/health", Authorization="")[1]["database"] == "ok"
    assert stack.ask("grafana", "/api/search", Authorization="")[0] == 401
    settings = json.loads(stack.run("config", "--format", "json"))["services"]["grafana"]["environment"]
    word = base64.b64encode(f"admin:{settings['GF_SECURITY_ADMIN_PASSWORD']}".encode()).decode()
    status, found = stack.ask("grafana", "/api/search?type=dash-db", Authorization=f"Basic {word}")
    dashboards = [json.loads(path.read_text()) for path in (ROOT / "monitoring" / "grafana_dashboards").glob("*.json")]
    assert (status, {one["uid"] for one in found}) == (200, {one["uid"] for one in dashboards})
