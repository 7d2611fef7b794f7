"""Hostile input: whatever is sent, the answer is never an error of ours, and never quotes what was sent."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from modules.fraud_detection.job import Job
from tests.api import Client, serving, settings_of
from tests.test_predict import transaction

pytestmark = pytest.mark.no_cover

FUZZED = 20_000
AT_ONCE = 50
PATHS = ("/predict", "/predict/batch", "/explain", "/feedback", "/invocations")
SECRET = "4111111111111111"


@pytest.fixture(scope="module")
def api(finished: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hostile")
        patch.chdir(folder)
        with serving(settings_of(finished, folder)) as client:
            yield client


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_that_the_document_allows_or_nearly_allows_breaks_the_api(api: Client, mode: GenerationMode) -> None:
    """schemathesis over the OpenAPI document, with requests that fit it and requests that do not: none is a 5xx."""
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json")
    tried: dict[str, int] = {}
    for operation in [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.path, answer.content)
            tried[case.path] = tried.get(case.path, 0) + 1

        with suppress(Unsatisfiable):
            ask()
    assert {"/predict", "/predict/batch", "/explain", "/feedback", "/invocations"} <= set(tried)


def mutated(draw: random.Random, body: dict[str, Any]) -> bytes:
    """A request with one thing or several wrong with it."""
    changed: Any = dict(body)
    strange: list[Any] = [
        None, True, -1, 0, 1e308, -1e308, 10**400, "12.5", "", " ", "\x00", "\ud800", "x" * 70, "ä", [], {}, [[[[]]]],
        {"a": {"b": {}}}, "2026-13-45", "9999-12-31T23:59:59+23:59", "0001-01-01", SECRET, "NaN", 2**63, -(2**63) - 1,
        "٣", "a\u202eb", 0.1 + 0.2, 5e-324,
    ]  # fmt: skip
    for _ in range(draw.randrange(1, 4)):
        name = draw.choice([*changed, "extra", SECRET, "__proto__", ""])
        if draw.random() < 0.2:
            changed.pop(name, None)
        else:
            changed[name] = draw.choice(strange)
    data = json.dumps(changed)
    kind = draw.random()
    if kind < 0.1:
        data = data.replace(
            "1e+308", draw.choice(["NaN", "Infinity", "1e400", "-Infinity", "1e-400", "0x10", "1_0", "01"])
        )
    elif kind < 0.2:
        place = draw.randrange(len(data))
        data = data[:place] + draw.choice(["", "\x00", '"', "}", "[" * 50_000, "\\u", "//", "\ufeff"]) + data[place:]
    raw = data.encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        raw = raw[: draw.randrange(len(raw))] + bytes([draw.randrange(256)]) + raw[draw.randrange(len(raw)) :]
    return raw


@settings(
    max_examples=FUZZED // AT_ONCE, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    database=None,
)  # fmt: skip
@given(seed=st.integers(0, 2**64), path=st.sampled_from(PATHS))
def test_twenty_thousand_hostile_bodies_break_nothing(api: Client, seed: int, path: str) -> None:
    draw = random.Random(seed)
    good: dict[str, dict[str, Any]] = {
        "/predict": transaction("f"), "/explain": transaction("f"), "/invocations": transaction("f"),
        "/predict/batch": {"transactions": [transaction("f"), transaction("g")]},
        "/feedback": {"transaction_id": "f", "is_fraud": True, "known_at": "2025-04-01"},
    }  # fmt: skip
    for _ in range(AT_ONCE):
        body = mutated(draw, good[path])
        answer = api.post(path, body)
        assert answer.status < 500, (path, body[:300], answer)
        if answer.status >= 400:
            assert SECRET not in json.dumps(answer.body)


@given(st.binary(max_size=2_000))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_answered(api: Client, data: bytes) -> None:
    assert api.post("/predict", data).status in (400, 422)


def test_after_all_that_it_still_decides_and_counted_no_failure(api: Client) -> None:
    assert api.post("/predict", transaction("still here")).status == 200
    assert api.metric('predict_requests_total{status="500"}') == 0
    assert api.metric('explain_requests_total{status="500"}') == 0
