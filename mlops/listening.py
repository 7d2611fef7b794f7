"""Sockets and worker processes: uvicorn, with a deadline for every request and a limit for its head."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from mlops.errors import BadConfiguration

MOST_HEAD = 65_536
BACKLOG = 2_048


class Deadlined(HttpToolsProtocol):
    """Closes a connection whose request has not arrived as a whole in time, or whose head is too long.

    The time is that of an idle connection: uvicorn has none of its own for requests that never end.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: int | None = 0
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MOST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._deadline.cancel()
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._late)
        self._head = 0

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._deadline.cancel()
        super().on_message_complete()

    def _late(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request took too long to arrive.")


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 takes a free one. Raises `BadConfiguration` where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise BadConfiguration(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    bound.set_inheritable(True)
    return bound


def serve(factory: Callable[[], Any], sockets: Sequence[socket.socket], workers: int, idle_seconds: int) -> None:
    """Serve the application that `factory` makes, in this process or in `workers` of them, until told to stop.

    `factory` goes to the processes by pickle, so it is a function of a module, or a partial of one. A worker that dies
    is replaced. SIGTERM and SIGINT let every worker finish what it accepted.
    """
    config = Config(
        factory, factory=True, workers=workers, http=Deadlined, ws="none", loop="uvloop", lifespan="on",
        timeout_keep_alive=idle_seconds, log_level="warning", access_log=False, server_header=False,
        backlog=BACKLOG, proxy_headers=False,
    )  # fmt: skip
    if workers > 1:
        Multiprocess(config, list(sockets)).run()
    else:
        Server(config).run(list(sockets))
