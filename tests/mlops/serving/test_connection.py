"""The short way: the same answers as by ASGI, in order, whatever comes before, between and after."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from mlops.errors import Refused
from mlops.serving.access import Serving
from mlops.serving.app import Call, Reply, Route
from mlops.serving.connection import REST
from tests.mlops.serving.test_app import KEY, LIMITED, Handlers, ask, keyed, raw, served
from tests.mlops.test_logs import written


class Prompt(Handlers):
    """Two more routes that answer by a callback: at once, and when they are released. Both tell which way was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Callable[[], None], asyncio.AbstractEventLoop]] = []

    def at_once(self, call: Call, done: Callable[[Reply], None]) -> None:
        if call.body == b"bug":
            raise ZeroDivisionError("secret")
        if call.body == b"refused":
            raise Refused("is wrong", "amount")
        done(said("short", call))

    def later(self, call: Call, done: Callable[[Reply], None]) -> None:
        self.held.append((partial(done, said("short", call)), asyncio.get_running_loop()))
        self.entered.release()

    async def long_way(self, call: Call) -> Reply:
        return said("long", call)

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            Route("POST", "/now", self.long_way, "predict", begin=self.at_once),
            Route("POST", "/later", self.long_way, begin=self.later),
        ]

    def let_go(self) -> None:
        for done, loop in self.held:
            loop.call_soon_threadsafe(done)
        self.held.clear()


def said(way: str, call: Call) -> Reply:
    return Reply(json.dumps({"way": way, "body": call.body.decode(), "query": call.query.decode()}).encode())


@pytest.fixture
def prompt() -> Prompt:
    return Prompt()


@pytest.fixture
def port(prompt: Prompt) -> Iterator[int]:
    with served(LIMITED, prompt) as ports:
        yield ports[0]
        prompt.let_go()


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answers(received: bytes) -> list[Any]:
    """The bodies of the answers on one connection, in their order."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        received = rest[length:]
    return found


def test_a_plain_request_takes_the_short_way_with_the_usual_headers(port: int) -> None:
    status, answer, headers = ask(port, "POST", "/now", b"hello")
    assert (status, answer) == (200, {"way": "short", "body": "hello", "query": ""})
    assert headers["content-type"] == "application/json"
    assert "date" in headers
    assert ask(port, "POST", "/now", b"")[1]["way"] == "short"
    assert ask(port, "POST", "/now?a=b", b"x")[1] == {"way": "long", "body": "x", "query": "a=b"}


@pytest.mark.parametrize(
    "data",
    [
        b"POST /now HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /now HTTP/1.0\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    ],
    ids=["chunked", "old HTTP"],
)
def test_what_is_not_plain_takes_the_long_way(port: int, data: bytes) -> None:
    assert b'"way": "long", "body": "hello"' in raw(port, data)


def test_a_client_that_waits_for_leave_to_send_gets_it(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"hello")
        assert b'"body": "hello"' in client.recv(1_000)


def test_a_body_over_the_limit_is_refused(port: int) -> None:
    assert ask(port, "POST", "/now", b"x" * 1_001)[0] == 413
    assert ask(port, "POST", "/now", b"x" * 1_000)[0] == 200


def test_requests_one_after_the_other_are_answered_on_one_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for number in range(50):
        connection.request("POST", "/echo" if number % 3 == 2 else "/now", b"x" * number)
        found = json.loads(connection.getresponse().read())
        assert found == {"size": number, "rest": ""} if number % 3 == 2 else found["body"] == "x" * number
    connection.close()


def test_requests_sent_ahead_are_answered_in_their_order(port: int, prompt: Prompt) -> None:
    """Short after short, long after short and short after long, while the first is still in work."""
    with ThreadPoolExecutor(1) as pool:
        sent = [
            post("/later", b"1"),
            post("/now", b"2"),
            post("/echo", b"333"),
            post("/now", b"4", b"connection: close"),
        ]
        received = pool.submit(raw, port, b"".join(sent))
        prompt.entered.acquire(timeout=10)
        prompt.let_go()
        one, two, three, four = answers(received.result(10))
    assert [one["body"], two["body"], three["size"], four["body"]] == ["1", "2", 3, "4"]


def test_a_request_in_pieces_is_put_together(port: int) -> None:
    data = post("/now", b"in pieces", b"connection: close")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(data)):
            client.sendall(data[place : place + 1])
        assert b'"body": "in pieces"' in client.recv(1_000)


@pytest.mark.parametrize(("body", "status"), [(b"bug", 500), (b"refused", 422)])
def test_what_goes_wrong_is_said_and_told(port: int, prompt: Prompt, body: bytes, status: int) -> None:
    found, answer, _ = ask(port, "POST", "/now", body)
    assert found == status
    assert "secret" not in str(answer)
    assert prompt.told == [("/now", status)]
    assert ask(port, "POST", "/now", b"next")[0] == 200


def test_an_answer_carries_what_its_caller_calls_the_request(port: int) -> None:
    for way, path in (("short", "/now"), ("long", "/now?a=b")):
        _, answer, headers = ask(port, "POST", path, b"x", {"X-Request-ID": "shop-1"})
        assert (answer["way"], headers["x-request-id"]) == (way, "shop-1")
    assert "x-request-id" not in ask(port, "POST", "/now", b"x")[2]
    assert "two words" not in str(ask(port, "POST", "/now", b"x", {"X-Request-ID": "two words"})[2])


def test_a_failure_and_its_line_in_the_log_have_one_id(port: int) -> None:
    with written("serving") as lines:
        given = [{"X-Request-ID": "shop-1"}, {}, {"X-Request-ID": "two words"}]
        ids = [ask(port, "POST", "/now", b"bug", sent)[2]["x-request-id"] for sent in given]
        assert [line["request_id"] for line in lines()] == ids
    assert (ids[0], len({*ids, "two words"})) == ("shop-1", 4)


def test_a_request_that_a_key_does_not_open_is_called_what_its_caller_calls_it(prompt: Prompt) -> None:
    with served(keyed(), prompt) as (port,):
        status, _, headers = ask(port, "POST", "/now", b"x", {"X-Request-ID": "shop-1"})
        assert (status, headers["x-request-id"]) == (401, "shop-1")


def test_a_client_that_went_away_harms_nobody(port: int, prompt: Prompt) -> None:
    gone = socket.create_connection(("127.0.0.1", port))
    gone.sendall(post("/later", b"x"))
    prompt.entered.acquire(timeout=10)
    gone.close()
    assert ask(port, "POST", "/now", b"x")[0] == 200
    prompt.let_go()
    assert ask(port, "POST", "/now", b"x")[0] == 200


def test_keys_are_asked_for(prompt: Prompt) -> None:
    with served(keyed(), prompt) as (port,):
        assert ask(port, "POST", "/now", b"x")[0] == 401
        assert ask(port, "POST", "/now", b"x", {"Authorization": f"Bearer {KEY}"})[1]["way"] == "short"


def test_a_guarded_port_hides_the_short_way_too(prompt: Prompt) -> None:
    with served(keyed(), prompt, guarded_too=True) as (_, guarded):
        assert ask(guarded, "POST", "/now", b"x")[0] == 404


def test_who_is_told_to_come_again_is_not_heard_for_a_while(port: int, prompt: Prompt) -> None:
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(ask, port, "POST", "/later", b"x") for _ in range(LIMITED.max_waiting)]
        for _ in held:
            prompt.entered.acquire(timeout=10)
        hasty = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        began = time.monotonic()
        for _ in range(3):
            hasty.request("POST", "/now", b"x")
            refused = hasty.getresponse()
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "too many" in json.loads(refused.read())["error"]["reason"]
        assert time.monotonic() - began >= 2 * REST
        prompt.let_go()
        assert [each.result(10)[0] for each in held] == [200] * len(held)
        hasty.request("POST", "/now", b"x")
        assert hasty.getresponse().status == 200
        hasty.close()
    assert prompt.told.count(("/now", 503)) == 3


def test_what_was_accepted_is_finished_before_the_server_stops(prompt: Prompt) -> None:
    with ThreadPoolExecutor(1) as pool:
        with served(LIMITED, prompt) as (port,):
            held = pool.submit(ask, port, "POST", "/later", b"x")
            prompt.entered.acquire(timeout=10)
            threading.Timer(0.2, prompt.let_go).start()
        assert held.result(10)[0] == 200


def test_an_idle_connection_is_closed_and_one_in_use_is_not() -> None:
    prompt = Prompt()
    with served(Serving(idle_seconds=1), prompt) as (port,):
        used = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            used.request("POST", "/now", b"x")
            assert used.getresponse().read()
            time.sleep(0.3)
        used.request("POST", "/later", b"slow")
        prompt.entered.acquire(timeout=10)
        time.sleep(1.5)
        prompt.let_go()
        assert used.getresponse().status == 200
        assert used.sock is not None
        used.sock.settimeout(5)
        assert used.sock.recv(10) == b""
        used.close()
