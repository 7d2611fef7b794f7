"""A door between the clients of AWS and their server, at which a test answers, holds, spoils or loses what passes."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """An answer as it goes back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Forward = Callable[[Asked], Answer]
Deed = Callable[[Asked, Forward], Answer | None]


class Between:
    """Passes everything on, but for what a test has planned."""

    def __init__(self, target: str) -> None:
        self._target, self._plans = urlsplit(target), list[list[object]]()
        self.passed: list[str] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = between.answer(Asked(self.command, self.path, dict(self.headers), body))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, pattern: str, deed: Deed, times: int = 1) -> None:
        """Let `deed` answer the next requests whose "METHOD PATH" begins as the pattern says."""
        self._plans.append([re.compile(pattern), deed, times])

    def answer(self, asked: Asked) -> Answer | None:
        """Answer as it is planned; nothing is a connection that breaks off."""
        line = f"{asked.method} {asked.path}"
        self.passed.append(line)
        for plan in self._plans:
            pattern, deed, times = plan
            if times and pattern.match(line):  # type: ignore[attr-defined]
                plan[2] = times - 1  # type: ignore[operator]
                answer: Answer | None = deed(asked, self.forward)  # type: ignore[operator]
                return answer
        return self.forward(asked)

    def forward(self, asked: Asked) -> Answer:
        """Ask the server itself."""
        connection = http.client.HTTPConnection(self._target.netloc, timeout=30)
        connection.request(asked.method, asked.path, asked.body, dict(asked.headers))
        response = connection.getresponse()
        body = response.read()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in ("date", "server")}
        connection.close()
        return Answer(response.status, headers, body)

    @contextmanager
    def open(self) -> Iterator["Between"]:
        """Serve until the block ends."""
        with running(self._server):
            yield self


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refusing(status: int, code: str) -> Deed:
    """Answer as S3 complains."""
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return lambda _, __: Answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)


def losing(asked: Asked, forward: Forward) -> None:
    """Let it be done, and lose the answer."""
    forward(asked)


def spoiling(asked: Asked, forward: Forward) -> Answer:
    """Turn one bit of the answer."""
    answer = forward(asked)
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    return answer._replace(body=bytes(body))


def cutting(asked: Asked, forward: Forward) -> Answer:
    """Send half of the answer, and then nothing more."""
    answer = forward(asked)
    return answer._replace(body=answer.body[: len(answer.body) // 2], headers={**answer.headers, "Connection": "close"})


@pytest.fixture
def between(aws: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """A door that every request to AWS passes."""
    with Between(aws).open() as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL", door.url)
        yield door
