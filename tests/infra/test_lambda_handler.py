"""The Lambda door before the real API: each record decided once and in order, or kept whole, whatever breaks."""

import base64
import gzip
import http.client
import json
import random
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra import lambda_handler
from infra.lambda_handler import BadConfiguration, handler
from mlops.journaling import journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.serving.access import make
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import Settings
from tests.api import Client, serving, settings_of
from tests.infra.event_source_mapping import Context, EventSourceMapping, Options
from tests.test_hostile_input import mutated
from tests.test_predict import transaction

LIKE_OURS = Options(batch_size=50, report_batch_item_failures=True, bisect_batch_on_function_error=True, timeout=10)
KEY, HASH = make()
KEYS = {"keys": [{"name": "lambda", "sha256": HASH}]}
ENDPOINT = "fraud-detection"
LATE = "no answer came while there was time"
VARIABLES = ("TARGET", "API_URL", "API_KEY", "API_KEY_SECRET", "ENDPOINT_NAME", "DEAD_LETTERS")


class Call(NamedTuple):
    """A call that a front got."""

    path: str
    body: bytes
    key: str


Trick = Callable[[BaseHTTPRequestHandler], None]


class Front:
    """Stands before an API as a load balancer or SageMaker does; it may play a trick on the next calls."""

    def __init__(self, port: int, secured: ssl.SSLContext | None = None) -> None:
        self.upstream, self.calls = port, list[Call]()
        self.tricks: deque[Trick] = deque()
        self.closed = threading.Event()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.body = self.rfile.read(int(self.headers["content-length"]))
                front.calls.append(Call(self.path, self.body, self.headers.get("authorization", "")))
                (front.tricks.popleft() if front.tricks else front.forward)(self)

            def do_PUT(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if secured is not None:
            self._server.socket = secured.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def passed_on(self, call: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        """What the API answers to a call."""
        path = "/invocations" if call.path == f"/endpoints/{ENDPOINT}/invocations" else call.path
        with closing(http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)) as connection:
            headers = {"authorization": call.headers.get("authorization", ""), "content-type": "application/json"}
            connection.request("POST", path, call.body, headers)  # type: ignore[attr-defined]
            response = connection.getresponse()
            return response.status, response.read()

    def forward(self, call: BaseHTTPRequestHandler) -> None:
        """Answer what the API answers; for a container that refuses, as SageMaker wraps it."""
        try:
            status, said = self.passed_on(call)
        except OSError:
            status, said = 503, b"<html>no healthy host</html>"
        if status != 200 and call.path.endswith("/invocations"):
            wrapped = {
                "Message": "m",
                "OriginalStatusCode": status,
                "OriginalMessage": said.decode(),
                "LogStreamArn": "",
            }
            answer(call, 424, json.dumps(wrapped).encode(), {"x-amzn-errortype": "ModelError"})
        else:
            answer(call, status, said)

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(call: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    call.send_response(status)
    for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
        call.send_header(name, value)
    call.end_headers()
    call.wfile.write(body)


def says(status: int, body: bytes, **headers: str) -> Trick:
    """A trick: something else than the API answers."""
    return lambda call: answer(call, status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def drops(call: BaseHTTPRequestHandler) -> None:
    """A trick: the connection breaks before an answer."""
    call.close_connection = True


@pytest.fixture(scope="module")
def api(finished: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One API for the tests that only add transactions of their own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("api")
        patch.chdir(folder)
        with serving(settings_of(finished, folder, serving=KEYS)) as client:
            yield client


@pytest.fixture
def front(api: Client) -> Iterator[Front]:
    with closing(Front(api.port)) as opened:
        yield opened


@pytest.fixture
def configured(bucket: str, front: Front, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A cold start: a process in which the function was never called, configured for the front."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "TARGET": "api", "API_URL": front.url, "API_KEY": KEY, "DEAD_LETTERS": f"s3://{bucket}/platform",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield monkeypatch
    forget()


def forget() -> None:
    """Let what the function holds go, as AWS does with a process that it needs no more."""
    if lambda_handler._connected.cache_info().currsize:
        target = lambda_handler._connected().target
        if isinstance(target, lambda_handler.Api) and target._kept is not None:
            target._kept.close()
    lambda_handler._connected.cache_clear()


def encoded(**values: Any) -> bytes:
    return json.dumps(transaction(**values)).encode()


def mapped(records: Sequence[bytes], options: Options = LIKE_OURS, function: Any = handler) -> EventSourceMapping:
    mapping = EventSourceMapping(function, options)
    for record in records:
        mapping.put(record)
    return mapping


def event(records: Sequence[bytes]) -> Any:
    """An event with these records."""
    seen: list[Any] = []
    mapped(records, Options(batch_size=10_000), lambda event, _: seen.append(event)).run()
    (whole,) = seen
    return whole


def within(seconds: float) -> Context:
    now = datetime.now(UTC).timestamp()
    return Context(now + seconds, lambda: datetime.now(UTC).timestamp())


def failed(records: Sequence[bytes], seconds: float = 30) -> int | None:
    """Call the function; the place of the record that it reports, if it reports one."""
    given = event(records)
    sequences = [one["kinesis"]["sequenceNumber"] for one in given["Records"]]
    found = handler(given, within(seconds))["batchItemFailures"]
    assert len(found) <= 1
    return sequences.index(found[0]["itemIdentifier"]) if found else None


def letters(bucket: str) -> dict[str, dict[str, Any]]:
    """Every dead letter of a bucket, by its key."""
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return {key: json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


def bytes_of(letter: Mapping[str, Any]) -> bytes:
    return base64.b64decode(letter["data"])


def asked(client: Client, record: bytes) -> tuple[int, Any]:
    """What /predict says to a record."""
    found = client.post("/predict", record, Authorization=f"Bearer {KEY}")
    return found.status, found.body


def decided(settings: Settings) -> list[str]:
    """The ids of the transactions that a journal has decisions about, in its order; the API must have ended."""
    with closing(journal.connect(settings.platform.journal)) as kept:
        kept.verify()
        return [decode_record(row.entry.body).key for row in kept.since(0) if row.entry.kind == DECISION]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class TestDeciding:
    def test_decisions_and_ids_are_those_of_predict(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, tmp_path: Path
    ) -> None:
        """The same events through the function and through /predict of another platform, row by row."""
        records = [
            encoded(
                id_=f"same {number}",
                customer_id=number % 5,
                amount=10.0 * number,
                timestamp=f"2025-04-01T10:{number}:00",
            )
            for number in range(10, 50)
        ]
        with serving(settings_of(finished, tmp_path)) as other:
            front.upstream = other.port
            assert mapped(records).run()
            through_function = [other.post("/predict", record).body for record in records]
        (tmp_path / "other").mkdir()
        with serving(settings_of(finished, tmp_path / "other")) as other:
            assert [{**other.post("/predict", one).body, "replayed": True} for one in records] == through_function

    def test_each_valid_record_is_decided_once_in_the_order_of_its_shard(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, bucket: str, tmp_path: Path
    ) -> None:
        """Four shards with poison and duplicates: the journal has each transaction once, the bucket has all poison."""
        settings, draw = settings_of(finished, tmp_path), random.Random(5)
        mapping = EventSourceMapping(handler, LIKE_OURS, shards=4)
        put: list[list[str]] = [[] for _ in range(4)]
        poison: list[bytes] = []
        with serving(settings) as other:
            front.upstream = other.port
            for number in range(1_200):
                shard = draw.randrange(4)
                if draw.random() < 0.03:
                    poison.append(draw.choice([b"no json %d", b'{"transaction_id":"bad %d"}', b"[%d]"]) % number)
                    mapping.put(poison[-1], shard)
                else:
                    again = draw.choice(put[shard]) if put[shard] and draw.random() < 0.05 else f"{shard}-{number}"
                    put[shard].append(again)
                    mapping.put(encoded(id_=again), shard)
            assert mapping.run()
        kept = decided(settings)
        assert len(kept) == len(set(kept))
        for shard, ids in enumerate(put):
            assert [id_ for id_ in kept if id_.startswith(f"{shard}-")] == list(dict.fromkeys(ids))
        assert sorted(map(bytes_of, letters(bucket).values())) == sorted(poison)

    def test_an_event_that_comes_twice_is_decided_once(
        self, configured: pytest.MonkeyPatch, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        records = [encoded(id_=f"twice {number}") for number in range(20)] + [b"poison"]
        assert failed(records) is None
        assert failed(records) is None
        first, second = lines(capsys)
        assert (first["decided"], first["replayed"], first["dead_letters"]) == (20, 0, 1)
        assert (second["decided"], second["replayed"], second["dead_letters"]) == (0, 20, 1)
        assert len(letters(bucket)) == 1

    def test_a_function_that_is_killed_in_the_middle_decides_each_record_once(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, tmp_path: Path
    ) -> None:
        settings, draw = settings_of(finished, tmp_path), random.Random(7)
        killed = 0

        def mortal(event: Any, context: Context) -> Any:
            nonlocal killed
            if killed < 12:
                killed += 1
                handler({"Records": event["Records"][: draw.randrange(len(event["Records"]))]}, context)
                forget()
                raise RuntimeError("killed")
            return handler(event, context)

        ids = [f"mortal {number}" for number in range(120)]
        with serving(settings) as other:
            front.upstream = other.port
            assert mapped([encoded(id_=id_) for id_ in ids], Options(report_batch_item_failures=True), mortal).run()
        assert decided(settings) == ids

    def test_one_line_tells_of_an_invocation(
        self, configured: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert failed([encoded(id_="line 1"), b"{", encoded(id_="line 2"), encoded(id_="line 1")]) is None
        configured.setattr(lambda_handler, "MARGIN", 60.0)
        assert failed([encoded(id_="line 3"), encoded(id_="line 4")]) == 0
        done, not_done = lines(capsys)
        assert done.pop("milliseconds") >= 0
        assert done == {"records": 4, "decided": 2, "replayed": 1, "dead_letters": 1, "failed": 0, "reason": None}
        assert not_done["failed"] == 2
        assert not_done["reason"] == "no time is left"

    def test_an_event_without_records_needs_nothing(self, configured: pytest.MonkeyPatch, front: Front) -> None:
        assert handler({"Records": []}, within(30)) == {"batchItemFailures": []}
        assert front.calls == []


POISON = {
    "nothing": b"",
    "no json": b"amount=12",
    "half a transaction": encoded(id_="p half")[:-5],
    "two transactions": encoded(id_="p two a") + b"," + encoded(id_="p two b"),
    "bytes that close the list early": encoded(id_="p close a") + b'],"transactions":[' + encoded(id_="p close b"),
    "bytes that close the body early": encoded(id_="p end") + b"]}",
    "two lines": encoded(id_="p line a") + b"\n" + encoded(id_="p line b"),
    "a comma too many": encoded(id_="p comma") + b",",
    "a batch of its own": b'{"transactions":[' + encoded(id_="p inner") + b"]}",
    "another list in it": encoded(id_="p list", transactions=[transaction("p inner list")]),
    "a list": b"[" + encoded(id_="p in a list") + b"]",
    "a number": b"12",
    "a null": b"null",
    "no number": encoded(id_="p nan").replace(b"40.5", b"NaN"),
    "no end": encoded(id_="p infinity").replace(b"40.5", b"-Infinity"),
    "too large a number": encoded(id_="p large").replace(b"40.5", b"1e400"),
    "too long a number": encoded(id_="p long").replace(b"40.5", b"9" * 5_000),
    "invalid utf-8": encoded(id_="p utf").replace(b"p utf", b"p \xff"),
    "a surrogate in bytes": encoded(id_="p cesu").replace(b"p cesu", b"p \xed\xa0\x80"),
    "a lone surrogate": encoded(id_="p surrogate").replace(b"p surrogate", b"p \\ud800"),
    "a byte order mark": b"\xef\xbb\xbf" + encoded(id_="p mark"),
    "utf-16": json.dumps(transaction("p utf-16")).encode("utf-16"),
    "a control character": encoded(id_="p control").replace(b"p control", b"p \x01"),
    "compressed": gzip.compress(encoded(id_="p compressed")),
    "a wrong type": encoded(id_="p type", amount="40.5"),
    "an unknown field": encoded(id_="p unknown", color="red"),
    "a missing field": b'{"transaction_id":"p missing"}',
    "another amount under a known id": encoded(id_="p before", amount=1.0),
    "too much": encoded(id_="p much")[:-1] + b" " * 262_144 + b"}",
    "far too much": b"x" * 1_000_000,
}


class TestPoison:
    def test_poison_is_kept_whole_for_the_reason_that_predict_gives_and_stops_no_other(
        self, api: Client, configured: pytest.MonkeyPatch, front: Front, bucket: str
    ) -> None:
        records = [encoded(id_="p before")]
        for number, record in enumerate(POISON.values()):
            records += [record, encoded(id_=f"p after {number}")]
        mapping = mapped(records, Options(batch_size=1_000, report_batch_item_failures=True))
        assert mapping.run()
        assert len(mapping.invocations) == 1
        found = {bytes_of(letter): letter for letter in letters(bucket).values()}
        assert set(found) == set(POISON.values())
        for record in POISON.values():
            status, said = asked(api, record)
            letter = found[record]
            assert {"field": letter["field"], "reason": letter["reason"]} == said["error"]
            assert letter["status"] == status
        for number in range(len(POISON)):
            assert asked(api, encoded(id_=f"p after {number}"))[1]["replayed"]
        for call in front.calls:
            assert list(json.loads(call.body.decode(), parse_int=str, parse_constant=pytest.fail)) == ["transactions"]

    def test_nothing_inside_a_poison_record_was_decided(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, tmp_path: Path
    ) -> None:
        settings = settings_of(finished, tmp_path)
        with serving(settings) as other:
            front.upstream = other.port
            assert mapped([encoded(id_="p before"), *POISON.values()]).run()
        assert decided(settings) == ["p before"]

    def test_a_dead_letter_says_where_its_record_was(self, configured: pytest.MonkeyPatch, bucket: str) -> None:
        mapping = EventSourceMapping(handler, LIKE_OURS, "payments", shards=2)
        sequence = mapping.put(b"\xff", 1)
        assert mapping.run()
        ((key, letter),) = letters(bucket).items()
        assert key == f"platform/monitoring/dead_letters/payments/shardId-000000000001/{sequence}.json"
        at = letter.pop("at")
        assert letter == {
            "stream": "payments", "shard": "shardId-000000000001", "sequence": sequence, "data": "/w==",
            "field": None, "reason": "the body is not one JSON object in UTF-8", "status": 400,
        }  # fmt: skip
        assert abs(datetime.now(UTC).timestamp() * 1e6 - at) < 60e6

    def test_the_name_of_a_stream_is_found_behind_a_consumer_too(
        self, configured: pytest.MonkeyPatch, bucket: str
    ) -> None:
        given = event([b"poison"])
        given["Records"][0]["eventSourceARN"] += "/consumer/reader:1700000000"
        assert handler(given, within(30)) == {"batchItemFailures": []}
        assert [letter["stream"] for letter in letters(bucket).values()] == ["transactions"]

    def test_without_a_prefix_dead_letters_begin_at_the_top_of_the_bucket(
        self, configured: pytest.MonkeyPatch, bucket: str
    ) -> None:
        configured.setenv("DEAD_LETTERS", f"s3://{bucket}")
        assert failed([b"poison"]) is None
        assert [key.partition("/")[0] for key in letters(bucket)] == ["monitoring"]

    def test_a_record_with_a_key_twice_is_decided_as_predict_would(
        self, api: Client, configured: pytest.MonkeyPatch, bucket: str
    ) -> None:
        record = encoded(id_="double")[:-1] + b',"amount":77.0}'
        assert failed([record]) is None
        assert asked(api, record)[1]["replayed"]
        assert asked(api, encoded(id_="double", amount=77.0))[1]["replayed"]
        assert letters(bucket) == {}

    def test_a_dead_letter_that_cannot_be_written_makes_its_record_a_failure(
        self, configured: pytest.MonkeyPatch, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configured.setenv("DEAD_LETTERS", f"s3://{bucket}-gone")
        records = [encoded(id_="unburied 1"), b"poison", encoded(id_="unburied 2")]
        assert failed(records) == 1
        assert lines(capsys)[0]["reason"].endswith(".json could not be written: NoSuchBucket")
        mapping = mapped(records)
        assert not mapping.run(3)
        boto3.client("s3").create_bucket(Bucket=f"{bucket}-gone")
        assert mapping.run()
        assert [bytes_of(letter) for letter in letters(f"{bucket}-gone").values()] == [b"poison"]

    @pytest.mark.parametrize("depth", [900, 970, 1_000, 100_000])
    def test_depth_harms_nobody(self, api: Client, configured: pytest.MonkeyPatch, bucket: str, depth: int) -> None:
        record = b'{"a":' * depth + b"1" + b"}" * depth
        beside = [encoded(id_=f"{place} {depth} deep") for place in ("above", "below")]
        assert failed([beside[0], record, beside[1]]) is None
        assert [bytes_of(letter) for letter in letters(bucket).values()] == [record]
        assert all(asked(api, one)[1]["replayed"] for one in beside)

    def test_hostile_records_end_as_predict_says(
        self, api: Client, configured: pytest.MonkeyPatch, bucket: str
    ) -> None:
        draw = random.Random(11)
        records = [mutated(draw, transaction(f"hostile {number}")) for number in range(200)]
        assert mapped(records, Options(batch_size=200, report_batch_item_failures=True)).run()
        refused = {bytes_of(letter): letter for letter in letters(bucket).values()}
        unreadable = {"field": None, "reason": "the body is not one JSON object in UTF-8", "status": 400}
        differing = 0
        for record in records:
            status, said = asked(api, record)
            assert (status == 200) == (record not in refused), record[:200]
            if status == 200:
                assert said["replayed"]
                continue
            letter = {name: refused[record][name] for name in unreadable}
            if letter != {**said["error"], "status": status}:
                # It has several faults, and another one comes first for who reads on only until there is one.
                assert letter == unreadable, record[:200]
                differing += 1
        assert len(records) / 4 < len(refused) < len(records)
        assert differing < len(refused) / 10


class TestSize:
    def test_more_records_than_a_call_may_carry_are_sent_in_several(
        self, configured: pytest.MonkeyPatch, front: Front
    ) -> None:
        assert failed([encoded(id_=f"many {number}") for number in range(250)]) is None
        assert [call.body.count(b"many ") for call in front.calls] == [100, 100, 50]

    def test_more_bytes_than_a_call_may_carry_are_sent_in_several(
        self, configured: pytest.MonkeyPatch, front: Front, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draw = random.Random(3)
        large = [
            (record := encoded(id_=f"large {number}"))[:-1] + b" " * (draw.randrange(150_000) - len(record)) + b"}"
            for number in range(25)
        ]
        full = encoded(id_="full")[:-1]
        full += b" " * (lambda_handler.MAX_BODY - len(b'{"transactions":[') - len(b"]}") - len(full) - 1) + b"}"
        assert failed([*large, full, *large]) is None
        assert letters(bucket) == {}
        assert max(len(call.body) for call in front.calls) == lambda_handler.MAX_BODY
        assert sum(call.body.count(b"large ") for call in front.calls) == 50
        assert [(line["decided"], line["replayed"]) for line in lines(capsys)] == [(26, 25)]

    @pytest.mark.parametrize("limit", [{"max_batch": 7}, {"max_body": 1_500}, {"max_batch": 1}])
    def test_an_api_with_smaller_limits_gets_smaller_calls(
        self,
        finished: Job,
        configured: pytest.MonkeyPatch,
        front: Front,
        bucket: str,
        tmp_path: Path,
        limit: dict[str, int],
    ) -> None:
        settings = settings_of(finished, tmp_path, serving=limit)
        ids = [f"small {number}" for number in range(40)]
        too_large = encoded(id_="too large")[:-1] + b" " * 1_600 + b"}"
        with serving(settings) as other:
            front.upstream = other.port
            records = [encoded(id_=id_) for id_ in ids]
            assert mapped([*records[:20], too_large, *records[20:]]).run()
        poison = [bytes_of(letter) for letter in letters(bucket).values()]
        assert poison == ([too_large] if "max_body" in limit else [])
        assert [id_ for id_ in decided(settings) if id_ != "too large"] == ids

    @pytest.mark.parametrize("size", [2_000, 60_000, 262_000])
    def test_an_api_that_refuses_a_body_at_once_is_understood(
        self, finished: Job, configured: pytest.MonkeyPatch, bucket: str, tmp_path: Path, size: int
    ) -> None:
        """It answers from the head of the request alone, while the body is still on its way."""
        with serving(settings_of(finished, tmp_path, serving={"max_body": 1_000})) as other:
            configured.setenv("API_URL", f"http://127.0.0.1:{other.port}")
            assert failed([b"{" + b" " * size + b"}", encoded(id_="after")]) is None
        (letter,) = letters(bucket).values()
        assert (letter["status"], letter["reason"]) == (413, "the body has more than 1000 bytes")


class TestFaults:
    SHORT = Options(batch_size=50, report_batch_item_failures=True, bisect_batch_on_function_error=True, timeout=1.5)

    def test_an_api_that_goes_away_and_comes_back_loses_nothing(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, bucket: str, tmp_path: Path
    ) -> None:
        settings, ids = settings_of(finished, tmp_path), [f"away {number}" for number in range(240)]
        mapping = mapped([encoded(id_=id_) for id_ in ids], self.SHORT)
        for _ in range(2):
            with serving(settings) as other:
                front.upstream = other.port
                mapping.step()
                mapping.step()
            assert not mapping.run(2)
        with serving(settings) as other:
            front.upstream = other.port
            assert mapping.run()
        assert decided(settings) == ids
        assert letters(bucket) == {}

    def test_a_refused_connection_is_a_failure_of_the_first_record(
        self, configured: pytest.MonkeyPatch, front: Front, capsys: pytest.CaptureFixture[str]
    ) -> None:
        front.close()
        assert failed([encoded(id_="refused 1"), encoded(id_="refused 2")], 1.5) == 0
        assert lines(capsys)[0]["reason"] == "the API does not answer: ConnectionRefusedError"

    def test_too_much_at_once_is_tried_again_until_it_is_let_in(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, bucket: str, tmp_path: Path
    ) -> None:
        settings = settings_of(finished, tmp_path, serving={"requests_per_second": 4})
        with serving(settings) as other:
            front.upstream = other.port
            assert mapped([encoded(id_=f"fast {number}") for number in range(10)], Options(batch_size=1)).run()
        assert len(decided(settings)) == 10
        assert len(front.calls) > 10
        assert letters(bucket) == {}

    @pytest.mark.parametrize(
        "trick",
        [
            says(503, b'{"error":{"field":null,"reason":"too many requests are in work; ask again soon"}}'),
            says(429, b'{"error":{"field":null,"reason":"too many requests for this key"}}', retry_after="1"),
            says(500, b'{"error":{"field":null,"reason":"an error of ours; it was logged"}}'),
            says(502, b"<html>bad gateway</html>"),
            drops,
        ],
        ids=["503", "429", "500", "a proxy's 502", "a broken connection"],
    )
    def test_what_passes_is_tried_again_within_the_call(
        self, configured: pytest.MonkeyPatch, front: Front, bucket: str, trick: Trick
    ) -> None:
        front.tricks.extend([trick] * 3)
        assert failed([encoded(id_=f"passing {number}") for number in range(3)]) is None
        assert len(front.calls) == 4
        assert letters(bucket) == {}

    @pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 405, 413, 415, 422])
    @pytest.mark.parametrize(
        "body",
        [
            b"", b"<html>no</html>", b"[]", b"null", b'{"results":[]}', b'{"results":7}', b'{"results":[7,7]}',
            b'{"results":[{},{}]}', b'{"results":[{"error":{}},{"error":{}}]}', b'{"error":"no"}', b'{"error":null}',
        ],
    )  # fmt: skip
    def test_who_does_not_speak_as_a_scorer_turns_no_record_into_a_dead_letter(
        self, configured: pytest.MonkeyPatch, front: Front, bucket: str, status: int, body: bytes
    ) -> None:
        front.tricks.append(says(status, body))
        assert failed([encoded(id_="proxy 1"), encoded(id_="proxy 2")]) == 0
        assert len(front.calls) == 1
        assert letters(bucket) == {}

    def test_a_record_that_fails_by_itself_is_tried_again_and_those_before_it_are_not(
        self, api: Client, configured: pytest.MonkeyPatch, front: Front, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def one_is_unavailable(call: BaseHTTPRequestHandler) -> None:
            status, said = front.passed_on(call)
            results = json.loads(said)["results"]
            results[1] = {"error": {"field": None, "reason": "ask again soon", "status": 503}}
            answer(call, status, json.dumps({"results": results}).encode())

        front.tricks.extend([one_is_unavailable] * 2)
        records = [encoded(id_=f"by itself {number}") for number in range(5)]
        assert failed(records) is None
        assert [call.body.count(b"by itself") for call in front.calls] == [5, 4, 3]
        assert all(asked(api, record)[1]["replayed"] for record in records)
        assert lines(capsys)[0]["records"] == 5

    def test_after_a_failure_no_later_record_is_sent(self, configured: pytest.MonkeyPatch, front: Front) -> None:
        front.tricks.extend([front.forward, says(403, b'{"error":{"field":null,"reason":"no"}}')])
        assert failed([encoded(id_=f"order {number}") for number in range(400)]) == 100
        assert [call.body.count(b"order") for call in front.calls] == [100, 100]

    def test_a_connection_is_kept_and_made_anew_when_the_other_side_let_it_go(
        self, configured: pytest.MonkeyPatch, front: Front, capsys: pytest.CaptureFixture[str]
    ) -> None:
        peers: list[Any] = []

        def notes(call: BaseHTTPRequestHandler) -> None:
            peers.append(call.client_address)
            front.forward(call)

        def notes_and_leaves(call: BaseHTTPRequestHandler) -> None:
            notes(call)
            call.close_connection = True

        front.tricks.extend([notes, notes, notes_and_leaves, notes, notes])
        configured.setattr(lambda_handler, "FIRST_PAUSE", 1e9)
        for number in range(5):
            assert failed([encoded(id_=f"kept {number}")]) is None
        assert peers[0] == peers[1] == peers[2] != peers[3] == peers[4]

    def test_https_is_spoken_with_who_has_a_certificate_and_with_nobody_else(
        self, api: Client, configured: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(tmp_path))
        with closing(Front(api.port, context)) as secured:
            configured.setenv("API_URL", f"https://localhost:{secured.port}/")
            assert failed([encoded(id_="secret 1")], 1.5) == 0
            configured.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
            assert failed([encoded(id_="secret 1")]) is None
            assert failed([encoded(id_="secret 1")]) is None
            forget()
        assert [(line["decided"], line["replayed"]) for line in lines(capsys)] == [(0, 0), (1, 0), (0, 1)]

    def test_an_api_below_a_path_is_found_there(self, configured: pytest.MonkeyPatch, front: Front) -> None:
        configured.setenv("API_URL", f"{front.url}/fraud/v1/")
        assert failed([encoded(id_="below")]) == 0
        assert [call.path for call in front.calls] == ["/fraud/v1/predict/batch"]


def certificate(folder: Path) -> Path:
    """A certificate of localhost that nobody knows, with its key, in one file."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "both.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


class TestTime:
    """A function that AWS kills has not said what it did; one that answers in time has."""

    @pytest.fixture
    def patient(self, front: Front) -> Iterator[Front]:
        """A front whose tricks that wait end with the test."""
        yield front
        front.closed.set()

    def hangs(self, front: Front) -> Trick:
        def trick(_: BaseHTTPRequestHandler) -> None:
            front.closed.wait(60)

        return trick

    def dribbles(self, front: Front) -> Trick:
        def trick(call: BaseHTTPRequestHandler) -> None:
            call.close_connection = True
            with suppress(OSError):
                while not front.closed.wait(0.02):
                    call.wfile.write(b"H")

        return trick

    @pytest.mark.parametrize("trick", ["hangs", "dribbles"])
    def test_it_answers_before_its_time_is_over_however_long_the_api_takes(
        self, configured: pytest.MonkeyPatch, patient: Front, capsys: pytest.CaptureFixture[str], trick: str
    ) -> None:
        patient.tricks.append(getattr(self, trick)(patient))
        context = within(1.5)
        given = event([encoded(id_="slow")])
        assert handler(given, context)["batchItemFailures"] == [
            {"itemIdentifier": given["Records"][0]["kinesis"]["sequenceNumber"]}
        ]
        assert context.get_remaining_time_in_millis() > 0
        assert lines(capsys)[0]["reason"] in ("the API does not answer: TimeoutError", LATE)

    def test_it_answers_before_its_time_is_over_however_long_the_bucket_takes(
        self, api: Client, configured: pytest.MonkeyPatch, patient: Front
    ) -> None:
        configured.setenv("AWS_ENDPOINT_URL_S3", patient.url)
        configured.setenv("API_URL", f"http://127.0.0.1:{api.port}")
        patient.tricks.append(self.hangs(patient))
        context = within(1.5)
        assert len(handler(event([b"poison"]), context)["batchItemFailures"]) == 1
        assert context.get_remaining_time_in_millis() > 0

    def test_what_was_begun_too_late_is_left_and_what_was_done_is_not_reported(
        self, api: Client, configured: pytest.MonkeyPatch, patient: Front
    ) -> None:
        patient.tricks.extend([patient.forward, patient.forward, self.hangs(patient)])
        records = [encoded(id_=f"late {number}") for number in range(350)]
        assert failed(records, 3) == 200
        assert asked(api, records[199])[1]["replayed"]

    def test_without_time_nothing_is_begun(self, configured: pytest.MonkeyPatch, front: Front) -> None:
        assert failed([encoded(id_="none left")], lambda_handler.MARGIN) == 0
        assert front.calls == []

    def test_a_silent_scorer_is_asked_again_while_there_is_time(
        self, configured: pytest.MonkeyPatch, patient: Front
    ) -> None:
        configured.setattr(lambda_handler, "PATIENCE", 0.2)
        patient.tricks.extend([self.hangs(patient)] * 3)
        assert failed([encoded(id_="silent")]) is None
        assert len(patient.calls) == 4


class TestKeys:
    @pytest.fixture
    def secret(self, configured: pytest.MonkeyPatch, bucket: str) -> Callable[[str], None]:
        """Put a key into the secret that the function is configured with."""
        manager = boto3.client("secretsmanager")
        manager.create_secret(Name=f"mlops/{bucket}", SecretString="none yet")
        configured.delenv("API_KEY")
        configured.setenv("API_KEY_SECRET", f"mlops/{bucket}")

        def put(key: str) -> None:
            manager.put_secret_value(SecretId=f"mlops/{bucket}", SecretString=key)

        return put

    def test_a_key_comes_from_a_secret_and_is_read_once(
        self, configured: pytest.MonkeyPatch, front: Front, secret: Callable[[str], None]
    ) -> None:
        secret(f"{KEY}\n")
        assert failed([encoded(id_="by secret 1")]) is None
        secret("another")
        assert failed([encoded(id_="by secret 2")]) is None
        assert {call.key for call in front.calls} == {f"Bearer {KEY}"}

    def test_after_a_while_it_is_read_again(
        self, configured: pytest.MonkeyPatch, front: Front, secret: Callable[[str], None]
    ) -> None:
        configured.setattr(lambda_handler, "KEY_AGE", 0.0)
        secret("the_old_key")
        assert failed([encoded(id_="aged 1")]) == 0
        secret(KEY)
        assert failed([encoded(id_="aged 1")]) is None
        assert [call.key for call in front.calls] == ["Bearer the_old_key", f"Bearer {KEY}"]

    def test_a_key_that_is_refused_is_read_again_and_the_record_is_decided(
        self, finished: Job, configured: pytest.MonkeyPatch, front: Front, secret: Callable[[str], None], bucket: str,
        tmp_path: Path, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        secret(KEY)
        assert failed([encoded(id_="rotated 1")]) is None
        new, hash_ = make()
        secret(new)
        rotated = settings_of(finished, tmp_path, serving={"keys": [{"name": "lambda", "sha256": hash_}]})
        with serving(rotated) as other:
            front.upstream = other.port
            assert failed([encoded(id_="rotated 2")]) is None
        assert [call.key for call in front.calls] == [f"Bearer {key}" for key in (KEY, KEY, new)]
        said = capsys.readouterr()
        assert not any(key in text for key in (KEY, new) for text in said)

    def test_a_key_that_stays_refused_is_a_failure_and_not_the_records(
        self, configured: pytest.MonkeyPatch, front: Front, secret: Callable[[str], None], bucket: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        secret("wrong")
        assert failed([encoded(id_="locked out")]) == 0
        assert len(front.calls) == 1
        assert letters(bucket) == {}
        assert lines(capsys)[0]["reason"] == "401 a valid API key is needed: Authorization: Bearer KEY"

    def test_a_secret_that_is_not_there_is_a_failure(
        self, configured: pytest.MonkeyPatch, front: Front, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configured.delenv("API_KEY")
        configured.setenv("API_KEY_SECRET", "mlops/nowhere")
        assert failed([encoded(id_="no secret")], 1.5) == 0
        assert front.calls == []
        assert lines(capsys)[0]["reason"] == "the secret 'mlops/nowhere' could not be read: ResourceNotFoundException"

    @pytest.mark.parametrize("value", ["two words", "two\nlines", "schlüssel", "\x00", " "])
    def test_a_secret_that_holds_no_key_is_not_repeated(
        self,
        configured: pytest.MonkeyPatch,
        secret: Callable[[str], None],
        capsys: pytest.CaptureFixture[str],
        value: str,
    ) -> None:
        secret(value)
        assert failed([encoded(id_="odd")]) == 0
        (line,) = lines(capsys)
        assert line["reason"].endswith("holds no key; write one line of printable ASCII")
        assert value == " " or value not in line["reason"]


WRONG_URL = "API_URL is not what it has to be; write https://HOST[:PORT]"
WRONG_ENDPOINT = "ENDPOINT_NAME is not what it has to be; write an endpoint's name"
WRONG_BUCKET = "DEAD_LETTERS is not what it has to be; write s3://BUCKET[/PREFIX]"
ONE_KEY = "set one: a key, or the name of its secret"


class TestConfiguration:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"TARGET": ""}, "TARGET is not set; write api or sagemaker"),
            ({"TARGET": "API"}, "TARGET is not what it has to be; write api or sagemaker"),
            ({"API_URL": ""}, "API_URL is not set; write https://HOST[:PORT]"),
            ({"API_URL": "ftp://host"}, WRONG_URL),
            ({"API_URL": "http://user:s3cret@host"}, WRONG_URL),
            ({"API_URL": "http://host/?key=s3cret"}, WRONG_URL),
            ({"API_URL": "http://host\r\nx: y"}, WRONG_URL),
            ({"API_KEY": ""}, f"neither API_KEY nor API_KEY_SECRET is set; {ONE_KEY}"),
            ({"API_KEY_SECRET": "s3cret"}, f"both API_KEY and API_KEY_SECRET are set; {ONE_KEY}"),
            ({"API_KEY": "s3cret\nkey"}, "API_KEY is no key; write one line of printable ASCII"),
            ({"TARGET": "sagemaker"}, "ENDPOINT_NAME is not set; write an endpoint's name"),
            ({"TARGET": "sagemaker", "ENDPOINT_NAME": "a/b"}, WRONG_ENDPOINT),
            ({"DEAD_LETTERS": ""}, "DEAD_LETTERS is not set; write s3://BUCKET[/PREFIX]"),
            ({"DEAD_LETTERS": "sqs://queue"}, WRONG_BUCKET),
            ({"DEAD_LETTERS": "s3://bucket//x"}, WRONG_BUCKET),
        ],
    )
    def test_what_is_missing_or_wrong_is_said_in_one_line_without_its_value(
        self, configured: pytest.MonkeyPatch, changed: dict[str, str], message: str
    ) -> None:
        for name, value in changed.items():
            configured.setenv(name, value)
        for _ in range(2):
            with pytest.raises(BadConfiguration) as error:
                handler(event([encoded(id_="x")]), within(30))
            assert str(error.value) == message
            assert "s3cret" not in str(error.value)


class TestSageMaker:
    @pytest.fixture
    def endpoint(self, configured: pytest.MonkeyPatch, front: Front) -> pytest.MonkeyPatch:
        """A function that asks a SageMaker endpoint, in whose place the front stands."""
        for name in ("API_URL", "API_KEY"):
            configured.delenv(name)
        for name, value in {
            "TARGET": "sagemaker", "ENDPOINT_NAME": ENDPOINT, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": front.url,
        }.items():  # fmt: skip
            configured.setenv(name, value)
        return configured

    @pytest.fixture
    def container(self, finished: Job, front: Front, tmp_path: Path) -> Iterator[Settings]:
        """The settings of a container, which asks for no key."""
        settings = settings_of(finished, tmp_path, serving={"max_body": 20_000})
        with serving(settings) as other:
            front.upstream = other.port
            yield settings

    def test_records_are_decided_by_the_endpoint_and_poison_is_kept(
        self, endpoint: pytest.MonkeyPatch, container: Settings, front: Front, bucket: str
    ) -> None:
        records = [encoded(id_="p before")]
        for number, record in enumerate(POISON.values()):
            records += [record, encoded(id_=f"sage {number}")]
        assert mapped(records).run()
        assert {call.path for call in front.calls} == {f"/endpoints/{ENDPOINT}/invocations"}
        found = {bytes_of(letter): letter for letter in letters(bucket).values()}
        assert set(found) == set(POISON.values())
        with closing(Client(front.upstream)) as other:
            for record in [record for record in POISON.values() if len(record) < 20_000]:
                said = other.post("/predict", record)
                letter = {name: found[record][name] for name in ("field", "reason")}
                assert (letter, found[record]["status"]) == (said.body["error"], said.status)
            assert all(other.post("/predict", record).body["replayed"] for record in records[::2])

    def test_the_decisions_are_those_of_the_api(
        self, endpoint: pytest.MonkeyPatch, container: Settings, front: Front, finished: Job, tmp_path: Path
    ) -> None:
        records = [encoded(id_=f"door {number}", customer_id=number % 3, amount=7.0 * number) for number in range(30)]
        assert mapped(records).run()
        with closing(Client(front.upstream)) as other:
            by_endpoint = [other.post("/predict", record).body for record in records]
        (tmp_path / "other").mkdir()
        with serving(settings_of(finished, tmp_path / "other")) as api:
            front.upstream = api.port
            endpoint.setenv("TARGET", "api")
            endpoint.setenv("API_URL", front.url)
            endpoint.setenv("API_KEY", KEY)
            forget()
            assert mapped(records).run()
            assert [api.post("/predict", record).body for record in records] == by_endpoint

    def test_a_container_that_refuses_a_whole_body_gets_it_in_parts(
        self, endpoint: pytest.MonkeyPatch, container: Settings, bucket: str
    ) -> None:
        padded = [encoded(id_=f"padded {number}")[:-1] + b" " * 3_000 + b"}" for number in range(20)]
        too_large = encoded(id_="too large")[:-1] + b" " * 21_000 + b"}"
        assert failed([*padded, too_large, encoded(id_="last")]) is None
        (letter,) = letters(bucket).values()
        assert bytes_of(letter) == too_large
        assert (letter["status"], letter["reason"]) == (413, "the body has more than 20000 bytes")

    @pytest.mark.parametrize(
        ("code", "status"),
        [("ValidationError", 400), ("AccessDenied", 403), ("ThrottlingException", 429), ("ServiceUnavailable", 503)],
    )
    def test_a_fault_of_the_endpoint_is_no_fault_of_a_record(
        self, endpoint: pytest.MonkeyPatch, front: Front, bucket: str, code: str, status: int,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        front.tricks.extend([says(status, b'{"Message":"no"}', x_amzn_errortype=code)] * 50)
        assert failed([encoded(id_="endpoint 1"), encoded(id_="endpoint 2")], 2) == 0
        assert letters(bucket) == {}
        assert lines(capsys)[0]["reason"] in (f"the endpoint '{ENDPOINT}' does not answer: {code}", LATE)

    def test_a_container_that_goes_away_and_comes_back_loses_nothing(
        self, endpoint: pytest.MonkeyPatch, container: Settings, front: Front
    ) -> None:
        upstream, front.upstream = front.upstream, 1
        mapping = mapped([encoded(id_=f"back {number}") for number in range(60)], TestFaults.SHORT)
        assert not mapping.run(2)
        front.upstream = upstream
        assert mapping.run()
        with closing(Client(upstream)) as other:
            assert all(other.post("/predict", encoded(id_=f"back {number}")).body["replayed"] for number in range(60))
