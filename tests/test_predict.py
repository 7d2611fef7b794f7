"""The API as its users meet it: decisions, explanations, labels; the same answer however often and wherever asked."""

import asyncio
import io
import json
import math
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from mlops.errors import BadConfiguration
from mlops.journaling import journal
from mlops.serving.access import make
from mlops.serving.api import SAGEMAKER_PORT, Reach
from mlops.storage import objects
from modules.fraud_detection import serve
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.explainability.shap_explainer import Explainer
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.models.tree_shap import TreeShap
from tests.api import Client, processes, serving, settings_of
from tests.conftest import ROOT
from tests.services import missing

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def api(finished: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One API for the tests that only add transactions of their own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("api")
        patch.chdir(folder)
        with serving(settings_of(finished, folder)) as client:
            yield client


def transaction(id_: str, **changed: Any) -> dict[str, Any]:
    """A transaction shortly after the simulated ones."""
    values = {
        "transaction_id": id_, "timestamp": "2025-03-13T10:00:00", "customer_id": 7, "terminal_id": 11, "amount": 40.5,
    }  # fmt: skip
    return values | changed


def test_a_raw_transaction_is_decided(api: Client) -> None:
    status, said, _ = api.post("/predict", transaction("first"))
    assert status == 200
    assert set(said) == {"transaction_id", "decision_id", "fraud_probability", "decision", "model", "replayed"}
    assert said["transaction_id"] == "first"
    assert 0 < said["fraud_probability"] < 1
    assert said["decision"] in ("approve", "review", "decline")
    assert said["model"] == {"name": NAME, "version": 1, "arm": "production"}
    assert said["replayed"] is False


def test_the_same_transaction_gets_the_same_answer_and_counts_once(api: Client) -> None:
    hits, misses = api.metric("cache_hits_total"), api.metric("cache_misses_total")
    first = api.post("/predict", transaction("again")).body
    second = api.post("/predict", transaction("again", amount=40.500)).body
    assert second == {**first, "replayed": True}
    assert api.metric("cache_hits_total") == hits + 1
    assert api.metric("cache_misses_total") == misses + 1
    counted = api.post("/predict", transaction("again 2", timestamp="2025-03-13T10:00:01")).body
    seen = api.get(f"/decisions/{counted['decision_id']}").body["features"]
    before = api.get(f"/decisions/{first['decision_id']}").body["features"]
    assert seen["customer_id_amount_count_30d"] >= before["customer_id_amount_count_30d"] + 1
    assert api.post("/predict", transaction("again")).body == second


def test_the_same_id_with_another_body_is_a_conflict_and_leaves_no_trace(api: Client) -> None:
    api.post("/predict", transaction("taken", customer_id=31))
    status, said, _ = api.post("/predict", transaction("taken", customer_id=31, amount=999.0))
    assert status == 409
    assert "999" not in json.dumps(said)
    after = api.post("/predict", transaction("taken 2", customer_id=31, timestamp="2025-03-13T10:00:01")).body
    seen = api.get(f"/decisions/{after['decision_id']}").body["features"]
    assert seen["customer_id_amount_max_7d"] != 999.0


def test_reasons_come_with_the_answer_when_asked_for(api: Client) -> None:
    said = api.post("/predict?explain=true", transaction("why", amount=4_000.0)).body
    assert len(said["reasons"]) == 3
    for reason in said["reasons"]:
        assert set(reason) == {"feature", "value", "contribution", "text"}
        assert reason["text"].endswith("raises the risk" if reason["contribution"] > 0 else "lowers the risk")
    again = api.post("/predict?explain=true", transaction("why", amount=4_000.0)).body
    assert again["reasons"] == said["reasons"]


def test_a_batch_is_applied_in_order_with_one_result_or_error_each(api: Client) -> None:
    one = transaction("b1", customer_id=55)
    bad = {**transaction("b2"), "amount": "12.5"}
    other = transaction("b3", customer_id=55, timestamp="2025-03-13T10:00:05")
    status, said, _ = api.post("/predict/batch", {"transactions": [one, bad, other, one, {**one, "amount": 1.0}]})
    assert status == 200
    first, refused, second, replayed, conflict = said["results"]
    assert refused["error"] == {"field": "amount", "reason": "expected float, got str", "status": 422}
    assert conflict["error"]["status"] == 409
    assert replayed == {**first, "replayed": True}
    counts = [
        api.get(f"/decisions/{one['decision_id']}").body["features"]["customer_id_amount_count_1d"]
        for one in (first, second)
    ]
    assert counts[1] == counts[0] + 1


@pytest.mark.parametrize("body", [{"transactions": []}, {"transactions": 1}, {}, {"transactions": [{}] * 101}])
def test_a_batch_of_no_or_too_many_transactions_is_refused(api: Client, body: Any) -> None:
    status, said, _ = api.post("/predict/batch", body)
    assert status == 422
    assert said["error"]["field"] == "transactions"


def test_sagemakers_door_says_the_same(api: Client) -> None:
    assert api.get("/ping").status == 200
    one = api.post("/predict", transaction("sage")).body
    assert api.post("/invocations", transaction("sage")).body == {**one, "replayed": True}
    many = api.post("/invocations", {"transactions": [transaction("sage"), transaction("sage 2")]}).body["results"]
    assert many[0] == {**one, "replayed": True}
    assert many[1]["replayed"] is False


def test_sagemakers_port_has_its_contract_and_nothing_else(finished: Job, tmp_path: Path) -> None:
    """SageMaker stands before port 8080 and checks who calls: no key is asked for there, and few paths answer."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", SAGEMAKER_PORT)) == 0:
            missing("something listens on port 8080")
    key, hash_ = make()
    own = yaml.safe_load((ROOT / "modules" / NAME / "config" / "config.yaml").read_text())
    own["serving"] = {**own.get("serving", {}), "keys": [{"name": "shop", "sha256": hash_, "scopes": ["predict"]}]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    options = ("--sagemaker", "--config", "own.yaml")
    with processes(settings_of(finished, tmp_path), tmp_path, 1, *options) as (_, client):
        sage = Client(SAGEMAKER_PORT)
        assert sage.get("/ping").status == sage.get("/metrics").status == 200
        decided = sage.post("/invocations", transaction("by sagemaker"))
        assert decided.status == 200
        for hidden in ("/predict", "/predict/batch", "/explain", "/feedback"):
            assert sage.post(hidden, transaction("hidden")).status == 404
        assert sage.get(f"/decisions/{decided.body['decision_id']}").status == sage.get("/docs").status == 404
        assert client.post("/predict", transaction("by sagemaker")).status == 401
        keyed = client.post("/predict", transaction("by sagemaker"), Authorization=f"Bearer {key}")
        assert keyed.body == {**decided.body, "replayed": True}
        sage.close()


def test_a_decision_is_explained_exactly_as_it_was_made(api: Client) -> None:
    decided = api.post("/predict", transaction("explained", amount=2_500.0)).body
    status, said, _ = api.post("/explain", {"decision_id": decided["decision_id"]})
    assert status == 200
    assert said["fraud_probability"] == decided["fraud_probability"]
    assert said["model"] == decided["model"]
    total = math.fsum([said["base_value"], *(part["contribution"] for part in said["contributions"])])
    assert total == pytest.approx(said["margin"], abs=1e-12)
    assert 1 / (1 + math.exp(-said["margin"])) == pytest.approx(decided["fraud_probability"], abs=1e-5)
    assert api.post("/explain", transaction("explained", amount=2_500.0)).body == said
    assert api.post("/explain", transaction("explained", amount=1.0)).status == 409


def test_a_transaction_can_be_explained_without_being_decided(api: Client) -> None:
    asked = transaction("what if", customer_id=77)
    said = api.post("/explain", asked).body
    assert "decision_id" not in said
    assert said["decision"] in ("approve", "review", "decline")
    decided = api.post("/predict", asked).body
    assert decided["replayed"] is False
    assert decided["fraud_probability"] == said["fraud_probability"]


def test_what_explains_is_made_when_a_version_wakes_and_by_no_request(
    api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for kind, name in ((Explainer, "__init__"), (TreeShap, "of")):
        monkeypatch.setattr(kind, name, lambda *_, name=f"{kind.__name__}.{name}": made.append(name))
    decided = api.post("/predict?explain=true", transaction("ready made")).body
    for asked in ({"decision_id": decided["decision_id"]}, transaction("ready made"), transaction("not decided")):
        assert api.post("/explain", asked).status == 200
    assert made == []


def test_an_explanation_can_be_seen(api: Client) -> None:
    decided = api.post("/predict", transaction("seen")).body
    status, data, headers = api.post("/explain", {"decision_id": decided["decision_id"]}, Accept="image/png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert np.asarray(Image.open(io.BytesIO(data))).std() > 5


def test_an_explanation_of_a_decision_is_kept(api: Client, finished: Job) -> None:
    decided = api.post("/predict", transaction("kept")).body
    said = api.post("/explain", {"decision_id": decided["decision_id"]}).body
    key = f"explanations/decisions/{decided['decision_id']}.json"
    for _ in range(1_000):
        if finished.platform.objects.exists(key):
            break
        api.get("/health")
    assert json.loads(objects.read(finished.platform.objects, key)) == said


@pytest.mark.parametrize("path", ["/decisions/00", "/decisions/zz", f"/decisions/{'0' * 32}"])
def test_an_unknown_decision_is_not_found(api: Client, path: str) -> None:
    assert api.get(path).status == 404
    assert api.post("/explain", {"decision_id": path.rsplit("/", 1)[1]}).status == 404


def test_a_label_is_recorded_once_can_be_corrected_and_is_shown(api: Client) -> None:
    decided = api.post("/predict", transaction("labelled")).body
    path = f"/decisions/{decided['decision_id']}"
    assert api.get(path).body["label"] is None
    first = {"transaction_id": "labelled", "is_fraud": True, "known_at": "2025-03-20T00:00:00Z"}
    assert api.post("/feedback", first).body["recorded"] is True
    assert api.post("/feedback", first).body["recorded"] is False
    assert api.post("/feedback", {"transaction_id": "labelled", "is_fraud": 1}).body["recorded"] is False
    assert api.get(path).body["label"] == {"is_fraud": 1, "known_at": "2025-03-20T00:00:00+00:00"}
    assert api.post("/feedback", {"transaction_id": "labelled", "is_fraud": 0}).body["recorded"] is True
    assert api.get(path).body["label"]["is_fraud"] == 0


@pytest.mark.parametrize(
    ("changed", "status", "field"),
    [
        ({"transaction_id": "nobody"}, 404, None),
        ({"known_at": "2025-03-13T10:00:00"}, 422, "known_at"),
        ({"known_at": "2099-01-01"}, 422, "known_at"),
        ({"known_at": "soon"}, 422, "known_at"),
        ({"is_fraud": 2}, 422, "is_fraud"),
        ({"is_fraud": "yes"}, 422, "is_fraud"),
        ({"is_fraud": None}, 422, "is_fraud"),
        ({"more": 1}, 422, None),
    ],
)
def test_a_bad_label_is_refused(api: Client, changed: dict[str, Any], status: int, field: str | None) -> None:
    api.post("/predict", transaction("to label"))
    found = api.post("/feedback", {"transaction_id": "to label", "is_fraud": True, **changed})
    assert found.status == status
    assert found.body["error"]["field"] == field


def test_a_label_is_counted_from_the_moment_it_was_known(api: Client) -> None:
    terminal = {"terminal_id": "t-labels"}

    def known(id_: str, day: int) -> Any:
        decided = api.post("/predict", transaction(id_, timestamp=f"2025-05-{day:02d}T10:00:00", **terminal)).body
        seen = api.get(f"/decisions/{decided['decision_id']}").body["features"]
        return seen["terminal_id_is_fraud_count_30d_7d_ago"], seen["terminal_id_is_fraud_share_30d_7d_ago"]

    assert known("l1", 1) == (0, 0)
    api.post("/feedback", {"transaction_id": "l1", "is_fraud": True, "known_at": "2025-05-10T00:00:00"})
    assert known("l2", 9) == (0, 0)
    assert known("l3", 10) == (1, 1)
    api.post("/feedback", {"transaction_id": "l1", "is_fraud": False, "known_at": "2025-05-12T00:00:00"})
    assert known("l4", 11) == (1, 1)
    assert known("l5", 13) == (1, 0)


def test_what_is_served_can_be_asked(api: Client, finished: Job) -> None:
    said = api.get("/model").body
    assert said["hash"] == finished.records["train"]["model"]
    assert said["snapshot"] == finished.records["features"]["snapshot"]
    assert said["problem"] is None
    assert api.metric(f'model_info{{hash="{said["hash"][:16]}",name="{NAME}",version="1"}}') == 1


def test_the_documents_describe_what_is_served_with_an_example_that_works(api: Client) -> None:
    assert api.get("/docs").status == 200
    document = api.get("/openapi.json").body
    post = document["paths"]["/predict"]["post"]
    example = post["requestBody"]["content"]["application/json"]["example"]
    assert api.post("/predict", example).status == 200
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(example)


def test_concurrent_requests_for_one_transaction_get_one_decision(api: Client) -> None:
    clients = [Client(api.port) for _ in range(8)]
    start = threading.Barrier(8)

    def ask(client: Client) -> Any:
        start.wait()
        return client.post("/predict", transaction("at once")).body

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, clients))
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len({(answer["decision_id"], answer["fraud_probability"]) for answer in answers}) == 1
    for client in clients:
        client.close()


def test_explaining_and_deciding_are_counted_apart(api: Client) -> None:
    def counts() -> tuple[float, float]:
        return (
            api.metric("predict_request_duration_seconds_count"),
            api.metric("explain_request_duration_seconds_count"),
        )

    before = counts()
    api.post("/explain", transaction("apart"))
    assert counts() == (before[0], before[1] + 1)
    api.post("/predict", transaction("apart"))
    assert counts() == (before[0] + 1, before[1] + 1)
    refused = api.metric('explain_requests_total{status="422"}')
    api.post("/explain", {"amount": 1})
    assert api.metric('explain_requests_total{status="422"}') == refused + 1
    assert api.metric('explain_requests_total{status="500"}') == 0


def test_every_answer_is_in_the_journal_and_the_chain_is_whole(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        ids = [client.post("/predict", transaction(f"j{number}")).body["decision_id"] for number in range(20)]
        client.post("/feedback", {"transaction_id": "j3", "is_fraud": True})
    kept = journal.connect(settings.platform.journal)
    assert kept.verify().count == 21
    assert [row.entry.id.hex() for row in kept.since(0)][:20] == ids
    kept.close()


def test_after_a_restart_answers_state_and_labels_are_as_before(finished: Job, tmp_path: Path) -> None:
    settings = settings_of(finished, tmp_path)
    at = {"terminal_id": "t-restart", "customer_id": "c-restart"}
    with serving(settings) as client:
        first = client.post("/predict", transaction("r1", timestamp="2025-05-01T10:00:00", **at)).body
        client.post("/feedback", {"transaction_id": "r1", "is_fraud": True, "known_at": "2025-05-05"})
    with serving(settings) as client:
        again = client.post("/predict", transaction("r1", timestamp="2025-05-01T10:00:00", **at)).body
        assert again == {**first, "replayed": True}
        assert client.post("/predict", transaction("r1", **at)).status == 409
        later = client.post("/predict", transaction("r2", timestamp="2025-05-09T10:00:00", **at)).body
        seen = client.get(f"/decisions/{later['decision_id']}").body["features"]
        assert seen["terminal_id_is_fraud_share_30d_7d_ago"] == 1
        assert seen["customer_id_amount_count_30d"] == 2


def test_the_past_before_the_journal_is_the_data_that_the_version_was_trained_on(finished: Job, tmp_path: Path) -> None:
    snapshot = feature_store.load(finished.platform.objects, finished.records["features"]["snapshot"])
    latest = snapshot["timestamp"].max()
    busiest = snapshot.filter(pl.col("timestamp") > pl.lit(latest) - pl.duration(days=1))["customer_id"].mode()[0]
    mine = snapshot.filter(pl.col("customer_id") == busiest)
    with serving(settings_of(finished, tmp_path)) as client:
        asked = transaction("next", customer_id=int(busiest), timestamp=latest.isoformat())  # type: ignore[union-attr]
        decided = client.post("/predict", asked).body
        seen = client.get(f"/decisions/{decided['decision_id']}").body["features"]
    inside = mine.filter(pl.col("timestamp") > pl.lit(latest) - pl.duration(days=30))
    assert seen["customer_id_amount_count_30d"] == inside.height + 1


def test_api_keys_open_every_route_that_reads_or_writes_decisions(finished: Job, tmp_path: Path) -> None:
    key, hash_ = make()
    keys = {"keys": [{"name": "shop", "sha256": hash_}]}
    with serving(settings_of(finished, tmp_path, serving=keys)) as client:
        closed = [
            ("POST", "/predict"), ("POST", "/predict/batch"), ("POST", "/explain"), ("POST", "/feedback"),
            ("POST", "/invocations"), ("GET", f"/decisions/{'0' * 32}"), ("GET", "/model"),
        ]  # fmt: skip
        for method, path in closed:
            assert client.ask(method, path, transaction("k")).status == 401, path
        for path in ("/health", "/ready", "/metrics", "/ping"):
            assert client.get(path).status == 200
        assert client.post("/predict", transaction("k"), Authorization=f"Bearer {key}").status == 200


def test_several_workers_need_a_shared_past(finished: Job, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="REDIS_URL=redis://HOST:6379/0, or --workers 1"):
        serve.serve(settings_of(finished, tmp_path), Reach("127.0.0.1", 0, 2, None), print)


def test_before_a_model_is_awake_the_api_is_alive_and_not_ready(tmp_path: Path, finished: Job) -> None:
    nothing = {"tracking": f"sqlite:///{tmp_path}/empty.db"}
    api = serve.api_of(settings_of(finished, tmp_path, platform=nothing))

    async def ask() -> None:
        await api._start()
        with api._live.changed:
            api._live.changed.wait_for(lambda: "no version" in (api._live.problem or ""), 30)
        assert (await api._ready(None)).status == 503  # type: ignore[arg-type]
        assert (await api._health(None)).status == 200  # type: ignore[arg-type]
        await api._stop()

    asyncio.run(ask())
