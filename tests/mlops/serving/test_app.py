"""The door: hostile and clumsy callers over real sockets get one clear refusal, and everybody else an answer."""

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from uvicorn import Server

from mlops.errors import BadConfiguration, NotFound, Refused, StorageFailed
from mlops.serving.access import Access, Key, Serving, check_reach, make
from mlops.serving.app import Call, Door, Guarded, Reply, Route
from mlops.serving.listening import bind, configured
from tests.mlops.test_logs import written

KEY, HASH = make()
LIMITED = Serving(max_body=1_000, max_waiting=4, idle_seconds=1)


class Handlers:
    """Routes that answer, refuse, fail and wait."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.told: list[tuple[str, int]] = []

    async def echo(self, call: Call) -> Reply:
        return Reply(json.dumps({"size": len(call.body), "rest": call.rest}).encode())

    async def fail(self, call: Call) -> Reply:
        errors: dict[bytes, Exception] = {
            b"refused": Refused("is wrong", "amount"), b"missing": NotFound("there is no such thing"),
            b"store": StorageFailed("secret host 10.0.0.1"), b"bug": ZeroDivisionError("secret"),
        }  # fmt: skip
        raise errors[call.body]

    async def wait(self, call: Call) -> Reply:
        self.entered.release()
        await asyncio.to_thread(self.release.wait)
        logging.getLogger("handlers").info("waited", extra={"body": call.body.decode()})
        return Reply(b"{}")

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/echo", self.echo, "predict"),
            Route("GET", "/things/{name}", self.echo, "read"),
            Route("POST", "/fail", self.fail),
            Route("POST", "/failing/{what}", self.fail),
            Route("POST", "/wait", self.wait),
            Route("GET", "/health", self.echo, sheds=False),
        ]

    def hear(self, path: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.told.append((path, status))


@contextmanager
def served(settings: Serving, handlers: Handlers, guarded_too: bool = False) -> Iterator[list[int]]:
    """Serve the handlers on one port, or on a second, guarded one as well; yield the ports."""
    sockets = [bind("127.0.0.1", 0) for _ in range(1 + guarded_too)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    started = threading.Event()

    async def start() -> None:
        started.set()

    async def stop() -> None:
        handlers.release.set()

    guarded = Guarded(ports[1], frozenset({"/echo"})) if guarded_too else None
    door = Door(handlers.routes(), settings, "test", start, stop, handlers.hear, dict, guarded)
    server = Server(configured(lambda: door, 1, settings.idle_seconds))
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    started.wait(10)
    try:
        yield ports
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def port(handlers: Handlers) -> Iterator[int]:
    with served(LIMITED, handlers) as ports:
        yield ports[0]


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data else None, dict(response.getheaders())


def raw(port: int, data: bytes) -> bytes:
    """Send bytes and read until the other side closes, politely or not."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(ConnectionError):
        connection.sendall(data)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def test_a_route_answers_with_what_it_was_given(port: int) -> None:
    assert ask(port, "POST", "/echo", b"x" * 10)[:2] == (200, {"size": 10, "rest": ""})
    assert ask(port, "GET", "/things/abc")[:2] == (200, {"size": 0, "rest": "abc"})


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"refused", 422, {"field": "amount", "reason": "is wrong"}),
        (b"missing", 404, {"field": None, "reason": "there is no such thing"}),
        (b"store", 503, {"field": None, "reason": "a store does not answer; ask again soon"}),
        (b"bug", 500, {"field": None, "reason": "an error of ours; it was logged"}),
    ],
)
def test_an_error_says_what_the_caller_may_know(
    port: int, handlers: Handlers, body: bytes, status: int, said: dict[str, Any]
) -> None:
    found, answer, headers = ask(port, "POST", "/fail", body)
    assert (found, answer) == (status, {"error": said})
    assert ("retry-after" in headers) == (status == 503)
    assert handlers.told == [("/fail", status)]


@pytest.mark.parametrize("path", ["/echo", "/things/abc", "/docs", "/nowhere"])
def test_every_answer_says_what_the_caller_calls_the_request_or_else_another_number(port: int, path: str) -> None:
    method = "POST" if path == "/echo" else "GET"

    def named(*headers: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path)
        for header in headers:
            connection.putheader("X-Request-ID", header)
        connection.endheaders()
        (found,) = connection.getresponse().headers.get_all("X-Request-ID", [])
        connection.close()
        return found

    assert named("shop/7:=0") == "shop/7:=0"
    unfit = ["", "x" * 129, "two words", "\x85"]
    made = [named(), named(), *[named(one) for one in unfit]]
    assert len(set(made) - set(unfit)) == len(made)


@pytest.mark.parametrize("path", ["/fail", "/failing/it"])
def test_a_line_about_a_request_carries_the_id_that_its_answer_has(port: int, path: str) -> None:
    with written("serving") as lines:
        sent: list[dict[str, str]] = [{"X-Request-ID": "shop-1"}, {}, {}]
        answers = [
            ask(port, "POST", path, body, more) for body, more in zip((b"bug", b"bug", b"store"), sent, strict=True)
        ]
        ids = [headers["x-request-id"] for _, _, headers in answers]
        assert [line["request_id"] for line in lines()] == ids
    assert (ids[0], len(set(ids))) == ("shop-1", 3)


def test_requests_in_work_at_once_are_not_taken_for_each_other(port: int, handlers: Handlers) -> None:
    names = ["a", "b", "c"]
    with written("handlers") as lines, ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(ask, port, "POST", "/wait", name.encode(), {"X-Request-ID": name}) for name in names]
        for _ in sent:
            handlers.entered.acquire(timeout=10)
        handlers.release.set()
        assert [each.result(10)[2]["x-request-id"] for each in sent] == names
        assert sorted((line["request_id"], line["body"]) for line in lines()) == [(name, name) for name in names]


def test_unknown_paths_and_methods_are_refused_in_the_same_form(port: int) -> None:
    status, answer, _ = ask(port, "GET", "/nothing")
    assert status == 404
    assert "reason" in answer["error"]
    status, answer, headers = ask(port, "GET", "/echo")
    assert status == 405
    assert headers["allow"] == "POST"


def test_a_body_over_the_limit_is_refused_before_it_is_read(port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
    assert b" 413 " in raw(port, head)


def test_a_body_without_a_length_is_counted_while_it_is_read(port: int) -> None:
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    data = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 3
    assert b" 413 " in raw(port, data)


def test_a_compressed_body_is_refused(port: int) -> None:
    assert ask(port, "POST", "/echo", b"x", {"Content-Encoding": "gzip"})[0] == 415


@pytest.mark.parametrize(
    "data",
    [
        b"", b"POST /echo HTTP/1.1\r\nhost: x\r\n", b"POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
    ],
    ids=["silent", "half a head", "half a body", "half a chunk"],
)  # fmt: skip
def test_a_request_that_does_not_arrive_in_time_is_cut_off(port: int, data: bytes) -> None:
    assert b"too long to arrive" in raw(port, data)


def test_a_head_without_end_is_cut_off(port: int) -> None:
    began = time.monotonic()
    raw(port, b"GET /health HTTP/1.1\r\n" + b"x-a: " + b"y" * 200_000)
    assert time.monotonic() - began < LIMITED.idle_seconds


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_refused(port: int, data: bytes) -> None:
    assert raw(port, data).startswith(b"HTTP/1.1 400") or raw(port, data) == b""
    assert ask(port, "GET", "/health")[0] == 200


def test_many_idle_connections_do_not_keep_others_out(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    assert ask(port, "GET", "/health")[0] == 200
    for each in idle:
        each.settimeout(10)
        while each.recv(4_096):
            pass
        each.close()


def test_overload_is_refused_at_once_and_health_still_answers(port: int, handlers: Handlers) -> None:
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(ask, port, "POST", "/wait") for _ in range(LIMITED.max_waiting)]
        for _ in held:
            handlers.entered.acquire(timeout=10)
        status, answer, headers = ask(port, "POST", "/wait")
        assert (status, headers["retry-after"]) == (503, "1")
        assert "too many" in answer["error"]["reason"]
        assert ask(port, "GET", "/health")[0] == 200
        handlers.release.set()
        assert [each.result(10)[0] for each in held] == [200] * len(held)


def test_what_was_accepted_is_finished_before_the_server_stops() -> None:
    handlers = Handlers()
    with ThreadPoolExecutor(1) as pool:
        with served(LIMITED, handlers) as (port,):
            held = pool.submit(ask, port, "POST", "/wait")
            handlers.entered.acquire(timeout=10)
            threading.Timer(0.2, handlers.release.set).start()
            assert not held.done()
        assert held.result(10)[0] == 200


def keyed(**changed: Any) -> Serving:
    keys = (
        Key(name="old", sha256="0" * 64), Key(name="shop", sha256=HASH, scopes=("predict",)),
    )  # fmt: skip
    return Serving(keys=keys, idle_seconds=1, **changed)


def test_a_key_opens_its_scopes_and_nothing_else(handlers: Handlers) -> None:
    with served(keyed(), handlers) as (port,):
        bearer = {"Authorization": f"Bearer {KEY}"}
        assert ask(port, "POST", "/echo", b"", bearer)[0] == 200
        status, body, _ = ask(port, "GET", "/things/abc", headers=bearer)
        assert (status, body["error"]["reason"]) == (403, "the key 'shop' does not open 'read'")
        for wrong in ({}, {"Authorization": KEY}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": "Bearer "}):
            status, _, headers = ask(port, "POST", "/echo", b"", wrong)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert ask(port, "GET", "/health")[0] == 200


def test_a_guarded_port_answers_its_own_paths_without_a_key_and_no_others(handlers: Handlers) -> None:
    with served(keyed(), handlers, guarded_too=True) as (port, guarded):
        assert ask(guarded, "POST", "/echo")[0] == 200
        assert ask(port, "POST", "/echo")[0] == 401
        for path in ("/things/abc", "/docs", "/openapi.json", "/health"):
            assert ask(guarded, "GET", path)[0] == 404


def test_a_key_has_its_rate(handlers: Handlers) -> None:
    with served(keyed(requests_per_second=1), handlers) as (port,):
        bearer = {"Authorization": f"Bearer {KEY}"}
        statuses = [ask(port, "POST", "/echo", b"", bearer)[0] for _ in range(3)]
        assert statuses[0] == 200
        assert 429 in statuses


def test_each_key_has_a_rate_of_its_own() -> None:
    other, other_hash = make()
    access = Access([Key(name="a", sha256=HASH), Key(name="b", sha256=other_hash)], 1)
    access.enter(f"Bearer {KEY}".encode(), "predict")
    access.enter(f"bearer {other}".encode(), "predict")
    with pytest.raises(Refused):
        access.enter(f"Bearer {KEY}".encode(), "predict")


def test_beyond_this_machine_nothing_listens_without_keys() -> None:
    for host in ("0.0.0.0", "::", "10.1.2.3", ""):
        with pytest.raises(BadConfiguration, match="make a key"):
            check_reach(host, ())
        check_reach(host, (Key(name="shop", sha256=HASH),))
    check_reach("127.0.0.1", ())


def test_a_taken_port_is_named() -> None:
    taken = bind("127.0.0.1", 0)
    taken.listen()
    try:
        with pytest.raises(BadConfiguration, match=f"127.0.0.1:{taken.getsockname()[1]}"):
            bind("127.0.0.1", taken.getsockname()[1])
    finally:
        taken.close()
