"""The HTTP face of a scorer: routes, limits, keys, errors. ASGI, with a short way for the routes that decide.

FastAPI carries the routes that are not hot.
"""

import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from mlops import logs
from mlops.errors import MlopsError, NotFound, Refused, StorageFailed
from mlops.logs import RequestId
from mlops.serving.access import Access, Serving
from mlops.serving.connection import Answer, Head, Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"
FITS = re.compile(rb"[!-~]{1,128}")
"""What a caller may call a request: a text that a log and a header can hold."""
encode = msgspec.json.Encoder().encode
log = logging.getLogger("serving")


class Call(NamedTuple):
    """What a handler gets to know of a request."""

    body: bytes = b""
    query: bytes = b""
    accept: bytes = b""
    rest: str = ""
    request: RequestId = b""


class Reply(NamedTuple):
    """What a handler answers."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: Headers = ()


Handle = Callable[[Call], Awaitable[Reply]]
Begin = Callable[[Call, Callable[[Reply], None]], None]
"""Answers a call by a callback, now or later, and may raise before."""


@dataclass(frozen=True)
class Route:
    """One method of one path.

    `scope` is what a key must open; without one the route is open to all. `sheds` says that it may be refused under
    overload. `counts` says that its handler counts its own answers. `begin` is the short way of a call without a query.
    """

    method: str
    path: str
    handle: Handle
    scope: str = ""
    sheds: bool = True
    counts: bool = False
    begin: Begin | None = None


@dataclass(frozen=True)
class Guarded:
    """A port on which another guard stands before us, and the only paths that are answered there, without a key."""

    port: int
    paths: frozenset[str]


class Door:
    """The application: holds a request against the limits and lets its handler answer.

    A route with a fixed path is looked up and called at once; FastAPI carries the others, the documents and the
    unknown paths. `told` hears of every answer, path, status and seconds, before it is sent. `document` gives the
    OpenAPI document, which can change with the version that is served.

    A request is called what its `X-Request-ID` says, or gets a number. Its answer carries that, and so does every line
    of the log about it. An answer that comes the short way does not carry a number unless it tells of a failure, and
    what is refused under overload carries nothing: both have to be cheap, and no line speaks of them.
    """

    def __init__(
        self, routes: Sequence[Route], settings: Serving, title: str,
        start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]],
        told: Callable[[str, int, float], None], document: Callable[[], dict[str, Any]],
        guarded: Guarded | None = None,
    ) -> None:  # fmt: skip
        self._direct = {(route.method, route.path): route for route in routes if "{" not in route.path}
        self._prompt = {
            (route.method.encode(), route.path.encode()): (route, route.begin) for route in routes if route.begin
        }
        self._limits, self._access = settings, Access(settings.keys, settings.requests_per_second)
        self._start, self._stop, self._told, self._guarded = start, stop, told, guarded
        self._carried = self._carrying(routes, title, document)
        self._busy = 0
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = _given(scope["headers"]) or next(self._numbers)
        with logs.handling(request):
            await self._reply(scope, receive, _marking(send, request))

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._hidden(scope["server"][1], scope["path"]):
            reply = HIDDEN
        elif (route := self._direct.get((scope["method"], scope["path"]))) is not None:
            reply = await self._answer(route, "", scope, receive)
        else:
            await self._carried(scope, receive, send)
            return
        headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def takes(self, method: bytes, url: bytes, length: int) -> bool:
        """Tell whether a request may come the short way: its path alone, and no query."""
        return (method, url) in self._prompt and length <= self._limits.max_body

    def begin(self, head: Head, body: bytes, answer: Answer) -> None:
        """Answer a request that came the short way."""
        route, begin = self._prompt[head.method, head.path]
        # Under overload most calls end here: they must cost next to nothing, or they would starve the others.
        ready = OVERLOADED if self._is_full(route) else HIDDEN if self._hidden(head.port, route.path) else None
        if ready is not None:
            self._told(route.path, ready.status, 0.0)
            answer(ready.status, _lines(ready), ready.body)
            return
        began = time.perf_counter()
        request: RequestId = next(self._numbers)

        def done(reply: Reply) -> None:
            self._busy -= 1
            lines = _lines(reply)
            if reply.status >= 500 or isinstance(request, bytes):
                lines += b"%b: %b\r\n" % _mark(request)
            answer(reply.status, lines, reply.body)

        self._busy += 1
        try:
            _, accept, given = self._let_in(route, head.headers, head.port)
            request = given or request
            begin(Call(body, accept=accept, request=request), done)
        except Exception as error:
            request = _given(head.headers) or request
            with logs.handling(request):
                refused = refusal(error)
            self._told(route.path, refused.status, time.perf_counter() - began)
            done(refused)

    async def _answer(self, route: Route, rest: str, scope: Scope, receive: Receive) -> Reply:
        if self._is_full(route):
            self._told(route.path, OVERLOADED.status, 0.0)
            return OVERLOADED
        began = time.perf_counter()
        self._busy += 1
        try:
            length, accept, _ = self._let_in(route, scope["headers"], scope["server"][1])
            body = await self._body(length, receive) if route.method == "POST" else b""
            reply = await route.handle(Call(body, scope["query_string"], accept, rest))
            counted = route.counts
        except Exception as error:
            reply, counted = refusal(error), False
        finally:
            self._busy -= 1
        if not counted:
            self._told(route.path, reply.status, time.perf_counter() - began)
        return reply

    def _let_in(self, route: Route, headers: Headers, port: int) -> tuple[int, bytes, bytes | None]:
        """Hold a request's head against the limits and keys; return its length, what it accepts, and its id if any."""
        accept = authorization = b""
        length, given = 0, None
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else 0
            elif name == b"authorization":
                authorization = value
            elif name == b"accept":
                accept = value
            elif name == REQUEST_ID:
                given = value if FITS.fullmatch(value) else given
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise Refused("compressed bodies are not taken", status=415)
        if route.scope and (self._guarded is None or port != self._guarded.port):
            self._access.enter(authorization, route.scope)
        return length, accept, given

    async def _body(self, length: int, receive: Receive) -> bytes:
        parts, size, more = [], length, True
        while more and size <= self._limits.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused("the client went away", status=400)
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
            size = max(size, sum(map(len, parts)))
        if size > self._limits.max_body:
            raise Refused(f"the body has more than {self._limits.max_body} bytes", status=413)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_full(self, route: Route) -> bool:
        return route.sheds and self._busy >= self._limits.max_waiting

    def _hidden(self, port: int, path: str) -> bool:
        return self._guarded is not None and port == self._guarded.port and path not in self._guarded.paths

    def _carrying(self, routes: Sequence[Route], title: str, document: Callable[[], dict[str, Any]]) -> FastAPI:
        app = FastAPI(title=title, redoc_url=None)
        for route in routes:
            app.add_api_route(route.path, self._endpoint(route), methods=[route.method])
        app.add_exception_handler(HTTPException, _no_such_route)
        app.openapi = document  # type: ignore[method-assign]
        return app

    def _endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            rest = next(iter(request.path_params.values()), "")
            reply = await self._answer(route, rest, request.scope, request.receive)
            headers = {name.decode(): value.decode() for name, value in reply.headers}
            return Response(reply.body, reply.status, headers, reply.kind.decode())

        return endpoint

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except MlopsError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})


def refusal(error: Exception) -> Reply:
    """Say what is wrong: the field and the rule, never the value, never the inside of an error of ours."""
    field, headers = None, ()
    if isinstance(error, Refused):
        status, field, reason = error.status, error.field, error.reason
    elif isinstance(error, NotFound):
        status, reason = 404, str(error)
    elif isinstance(error, StorageFailed):
        log.error("a store failed", extra={"reason": str(error)})
        status, reason = 503, "a store does not answer; ask again soon"
    else:
        log.error("a request failed", exc_info=error)
        status, reason = 500, "an error of ours; it was logged"
    return Reply(encode({"error": {"field": field, "reason": reason}}), status, JSON, EXTRA.get(status, headers))


EXTRA: Mapping[int, Headers] = {
    401: [(b"www-authenticate", b"Bearer")],
    429: [(b"retry-after", b"1")],
    503: [(b"retry-after", b"1")],
}


def _given(headers: Headers) -> bytes | None:
    """What the caller calls the request, where that fits."""
    fitting = [value for name, value in headers if name == REQUEST_ID and FITS.fullmatch(value)]
    return fitting[-1] if fitting else None


def _mark(request: RequestId) -> tuple[bytes, bytes]:
    return REQUEST_ID, logs.named(request).encode()


def _marking(send: Send, request: RequestId) -> Send:
    """Let an answer carry the id of its request."""

    async def marking(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], _mark(request)]}
        await send(message)

    return marking


def _lines(reply: Reply) -> bytes:
    """The lines of an answer's head."""
    lines = b"content-type: %b\r\ncontent-length: %d\r\n" % (reply.kind, len(reply.body))
    return lines + b"".join([b"%b: %b\r\n" % header for header in reply.headers]) if reply.headers else lines


# Made once: an error that is raised again and again would keep the frames of every call that met it.
OVERLOADED = refusal(Refused("too many requests are in work; ask again soon", status=503))
HIDDEN = refusal(NotFound("there is nothing here on this port"))


async def _no_such_route(_: Request, error: Any) -> Response:
    body = encode({"error": {"field": None, "reason": f"{error.detail}; /docs lists what there is"}})
    return Response(body, error.status_code, error.headers, JSON.decode())
