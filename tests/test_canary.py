"""Two versions beside each other over HTTP: each customer stays with one, and the way back is short."""

import time
from pathlib import Path

import pytest

from modules.fraud_detection.settings import NAME
from tests.api import Client, processes, serving, settings_of
from tests.redis_server import RedisServer
from tests.test_faults import awaited, releases, second_version
from tests.test_predict import transaction

pytestmark = pytest.mark.no_cover

CUSTOMERS = 200
QUIET, LONGEST = 1.5, 30.0
"""Seconds without another arm that are taken for the end, and seconds that following may take at most."""


def arms(client: Client, name: str) -> dict[str, tuple[str, int]]:
    """Which arm and version decided about each customer."""
    found = {}
    for customer in range(CUSTOMERS):
        body = client.post("/predict", transaction(f"{name} {customer}", customer_id=f"c-{customer}")).body
        found[f"c-{customer}"] = body["model"]["arm"], body["model"]["version"]
    return found


def met(found: dict[str, tuple[str, int]]) -> set[str]:
    return {customer for customer, (arm, _) in found.items() if arm == "canary"}


def shown(client: Client) -> dict[str, object]:
    traffic: dict[str, object] = client.get("/model").body["traffic"]
    return traffic


def test_a_canary_meets_its_share_and_everybody_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    job = second_version(tmp_path)
    with serving(settings_of(job, tmp_path)) as client:
        assert set(arms(client, "before").values()) == {("production", 1)}
        releases(job).trial(2, "canary", 0.2, "ada", "try it")
        awaited(lambda: shown(client)["weight"] == 0.2)
        first = arms(client, "first")
        assert set(first.values()) == {("production", 1), ("canary", 2)}
        assert 0.1 < len(met(first)) / CUSTOMERS < 0.3
        assert arms(client, "again") == first
        releases(job).trial(2, "canary", 0.5, "ada", "more")
        awaited(lambda: shown(client)["weight"] == 0.5)
        assert met(first) < met(arms(client, "more"))
        assert client.metric('decisions_total{arm="canary",decision="approve",version="2"}') > 0
        assert client.metric('decision_duration_seconds_count{arm="canary",version="2"}') > 0
        releases(job).back("ada", "a complaint")
        began = time.monotonic()
        awaited(lambda: shown(client)["candidate"] is None)
        assert time.monotonic() - began < 2
        assert set(arms(client, "after").values()) == {("production", 1)}
        # What was decided stays as it was decided.
        customer = min(met(first)).removeprefix("c-")
        repeated = client.post("/predict", transaction(f"first {customer}", customer_id=f"c-{customer}")).body
        assert (repeated["replayed"], repeated["model"]["version"]) == (True, 2)
        explained = client.post("/explain", {"decision_id": repeated["decision_id"]}).body
        assert explained["model"]["version"] == 2


def test_an_ab_test_has_a_challenger_and_a_shadow_answers_nobody(tmp_path: Path) -> None:
    job = second_version(tmp_path)
    with serving(settings_of(job, tmp_path)) as client:
        releases(job).trial(2, "ab", 0.5, "ada", "compare")
        awaited(lambda: shown(client)["mode"] == "ab")
        assert {arm for arm, _ in arms(client, "ab").values()} == {"production", "challenger"}
        releases(job).trial(2, "shadow", 0.0, "ada", "look only")
        awaited(lambda: shown(client)["mode"] == "shadow")
        assert set(arms(client, "shadow").values()) == {("production", 1)}


def test_a_candidate_that_cannot_be_woken_costs_nobody_an_answer_and_is_told(tmp_path: Path) -> None:
    job = second_version(tmp_path)
    broken = job.platform.registry.find(NAME, 2)
    folder = job.platform.tracking.client.get_run(broken.run_id).info.artifact_uri
    model = Path(folder.removeprefix("file://")) / "model" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with serving(settings_of(job, tmp_path)) as client:
        releases(job).trial(2, "canary", 0.5, "ada", "try it")
        awaited(lambda: client.get("/ready").body["problem"] is not None)
        assert "version 2 is not served, production answers alone" in client.get("/ready").body["problem"]
        assert client.get("/ready").status == 200
        assert set(arms(client, "broken").values()) == {("production", 1)}
        assert client.metric('candidate_failures_total{version="2"}') > 0


def test_every_worker_follows_a_weight_and_a_rollback_within_two_seconds(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    job = second_version(tmp_path)
    settings = settings_of(job, tmp_path, platform={"online": redis_server.url})
    with processes(settings, tmp_path, 3) as (_, client):
        releases(job).trial(2, "canary", 1.0, "ada", "all of it")
        followed(client, "canary", "up")
        releases(job).back("ada", "no")
        assert followed(client, "production", "down") < 2


def followed(client: Client, arm: str, name: str) -> float:
    """Wait until every answer is of an arm, over connections that reach every worker; seconds until the last other."""
    began, last, number = time.monotonic(), 0.0, 0
    while (now := time.monotonic() - began) < last + QUIET or number < last + 60:
        assert now < LONGEST
        number += 1
        mine = Client(client.port)
        found = mine.post("/predict", transaction(f"{name} {number}", customer_id=f"c-{number}")).body["model"]["arm"]
        mine.close()
        if found != arm:
            last = time.monotonic() - began
    return last
