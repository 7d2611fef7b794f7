"""Sockets and worker processes: uvicorn with our connections."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

from mlops.errors import BadConfiguration
from mlops.serving.connection import Connection

BACKLOG = 2_048
IMPORTING = 60
"""Seconds that a worker may be silent before it is replaced: while it imports it answers nothing, and on a busy machine
that takes longer than uvicorn would wait."""


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
    config = configured(factory, workers, idle_seconds)
    if workers > 1:
        Multiprocess(config, list(sockets)).run()
    else:
        Server(config).run(list(sockets))


def configured(factory: Callable[[], Any], workers: int, idle_seconds: int) -> Config:
    """Uvicorn, set as we use it: nothing stands between a connection and the application."""
    return Config(
        factory, factory=True, workers=workers, http=Connection, ws="none", loop="uvloop", lifespan="on",
        timeout_keep_alive=idle_seconds, log_level="warning", access_log=False, server_header=False,
        backlog=BACKLOG, proxy_headers=False, timeout_worker_healthcheck=IMPORTING,
    )  # fmt: skip
