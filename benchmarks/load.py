"""A load generator: closed loop over raw connections, cheap enough to be no part of what is measured."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import uvloop


@dataclass
class Load:
    """What one run measured: answers with 200 a second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    failures: int


@dataclass
class _Tally:
    """What all connections of a run saw."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0


class _Connection(asyncio.Protocol):
    """Sends one request after the other, each when the answer before it is whole."""

    def __init__(self, following: Callable[[], bytes | None], tally: _Tally, closed: "asyncio.Future[None]") -> None:
        self._following, self._tally, self._closed = following, tally, closed
        self._received = b""

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower()
        place = lines.find(b"content-length: ")
        if len(body) < int(lines[place + 16 :].split(b"\r\n", 1)[0]):
            return
        self._tally.seconds.append(time.perf_counter() - self._began)
        self._tally.failures += self._received[9:12] != b"200"
        self._received = b""
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def _send(self) -> None:
        request = self._following()
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)


def run(port: int, path: str, body: Callable[[], bytes], connections: int, seconds: float) -> Load:
    """Ask `path` with new bodies over so many connections for so long."""
    return uvloop.run(_run(port, path.encode(), body, connections, seconds))


async def _run(port: int, path: bytes, body: Callable[[], bytes], connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    tally, end = _Tally(), time.perf_counter() + seconds
    head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    def following() -> bytes | None:
        if time.perf_counter() > end:
            return None
        data = body()
        return head % len(data) + data

    closed = [loop.create_future() for _ in range(connections)]
    for each in closed:
        await loop.create_connection(partial(_Connection, following, tally, each), "127.0.0.1", port)
    await asyncio.gather(*closed)
    times = sorted(tally.seconds)
    answered = len(times) - tally.failures
    return Load(answered / seconds, 1e3 * times[len(times) // 2], 1e3 * times[int(len(times) * 0.99)], tally.failures)
