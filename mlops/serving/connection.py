"""One connection of a client: deadlines, a limit for the head, and a short way for the routes that decide.

Uvicorn makes a scope, a task and three awaits of every request, which cost more than a decision. A request that came
whole, and whose route the application answers by a callback, takes the short way past them; all others go as ASGI.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

Headers = Sequence[tuple[bytes, bytes]]
Answer = Callable[[int, bytes, bytes], None]
"""Is called once, on the loop, with the status, the lines of the head, each with its end, and the body."""

MOST_HEAD = 65_536
UNAVAILABLE = 503
REST = 0.25
"""Seconds in which a connection is not read after it was told to come again."""


class Head(NamedTuple):
    """The head of a request, and the port that it came to."""

    method: bytes
    path: bytes
    headers: Headers
    port: int


class Prompt(Protocol):
    """An application that answers some routes by a callback."""

    def takes(self, method: bytes, url: bytes, length: int) -> bool:
        """Tell whether a request with a body of `length` bytes may come the short way. A query belongs to the URL."""

    def begin(self, head: Head, body: bytes, answer: Answer) -> None:
        """Answer a request, now or later; never raise."""


class _Pending:
    """A request on the short way, as uvicorn's protocol sees it: its cycle, on which requests after it wait."""

    __slots__ = ("body", "disconnected", "head", "keep_alive", "response_complete")

    def __init__(self, head: Head, keep_alive: bool) -> None:
        self.head, self.keep_alive, self.body = head, keep_alive, b""
        self.response_complete = self.disconnected = False

    @property
    def message_event(self) -> "_Pending":
        """Uvicorn tells of news by an event; nobody waits for it here."""
        return self

    def set(self) -> None:
        """Do nothing."""


class _Outbox:
    """Answers on their way out: those of one batch leave back to back.

    Each write wakes a client that sleeps, which costs the writer more than the write; and a client that is awake, or
    many behind one socket, takes the others meanwhile.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes, bool]] = []

    def put(self, transport: asyncio.Transport, data: bytes, last: bool) -> None:
        """Send data in the loop's next round; after the last, close."""
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append((transport, data, last))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, data, last in waiting:
            if not transport.is_closing():
                transport.write(data)
                if last:
                    transport.close()


OUTBOXES: WeakKeyDictionary[ServerState, _Outbox] = WeakKeyDictionary()


class Connection(HttpToolsProtocol):
    """Closes when a request has not arrived as a whole in time, when none comes, or when a head is too long.

    The time is that of an idle connection: uvicorn has none of its own for requests that never end.
    """

    cycle: Any
    app: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: int | None = 0
        self._takes = getattr(self.app, "takes", _takes_nothing)
        self._outbox = OUTBOXES.setdefault(self.server_state, _Outbox(self.loop))
        self._idle = False
        self._since: float | None = self.loop.time()
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MOST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._since, self._idle, self._head = self.loop.time(), False, 0
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self._head = None
        if not self._took_short_way():
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._since = None
        pending = self.cycle
        if type(pending) is not _Pending:
            super().on_message_complete()
        elif not pending.response_complete:
            self.app.begin(pending.head, pending.body, partial(self._answer, pending))

    def _took_short_way(self) -> bool:
        """Take a request with a plain body the short way, if nothing before it is still in work."""
        parser, before = self.parser, self.cycle
        method = parser.get_method()
        length = _length(self.headers)
        if (
            length is None
            or not self._takes(method, self.url, length)
            or (before is not None and not before.response_complete)
            or self.expect_100_continue
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
        ):
            return False
        port = 0 if self.server is None else self.server[1] or 0
        self.cycle = _Pending(Head(method, self.url, self.headers, port), parser.should_keep_alive())
        return True

    def _answer(self, pending: _Pending, status: int, lines: bytes, body: bytes) -> None:
        if pending.disconnected or self.transport.is_closing():
            return
        usual = _usual_lines(self.server_state.default_headers)
        closing = b"" if pending.keep_alive else b"connection: close\r\n"
        data = b"".join((STATUS_LINE[status], usual, lines, closing, b"\r\n", body))
        self._outbox.put(self.transport, data, not pending.keep_alive)
        pending.response_complete = True
        if self.pipeline and pending.keep_alive:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if pending.keep_alive:
            self._since, self._idle = self.loop.time(), True
            if status == UNAVAILABLE:
                # Who asks again at once, however often, must not starve those who are being answered.
                self.flow.pause_reading()
                self.loop.call_later(REST, self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _look(self) -> None:
        """Once in the time that a client has: close if it has passed. A timer for each request would cost too much."""
        if self.transport.is_closing():
            return
        left = self.timeout_keep_alive - (0.0 if self._since is None else self.loop.time() - self._since)
        if left > 0:
            self._timer = self.loop.call_later(left if self._since is not None else self.timeout_keep_alive, self._look)
        elif self._idle:
            self.transport.close()
        else:
            self.send_400_response("The request took too long to arrive.")


def _takes_nothing(_method: bytes, _url: bytes, _length: int) -> bool:
    return False


def _usual_lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _length(headers: Headers) -> int | None:
    """The length that a request's head gives, if it does."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
