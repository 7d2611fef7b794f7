"""The connections to Redis: commands that are given at one moment go out in one round trip, on the loop that decides.

The library connects (passwords, TLS, databases); what goes over the connection then is packed and read here, because
its own pipeline costs more than all that Redis does for a decision.
"""

import asyncio
import hashlib
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from mlops import secrets
from mlops.errors import BadConfiguration, Damaged, MlopsError, OutOfSpace, StorageFailed, Unreachable

TIMEOUT = 0.02
"""Seconds for a round trip. The library's own 5 seconds and 10 retries would stop every answer when Redis stops."""
PATIENCE = 2.0
"""Seconds for a round trip that nobody waits for with an answer."""
PAUSE = 0.1
"""Seconds after a failure in which Redis is not asked: each question would cost another time-out."""
CHUNK = 1 << 18
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Command = tuple[Any, ...]

log = logging.getLogger("redis")


class Script:
    """A program that Redis runs as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis names scripts so

    def on(self, key: str, *arguments: bytes | int) -> Command:
        """The command that runs it on one key."""
        return ("EVALSHA", self.sha, 1, key, *arguments)


class RedisPipe:
    """Sends commands from one event loop. No command is ever cancelled, so a reply always belongs to its command.

    What nobody waits for goes over a connection of its own, so that it holds up no answer.
    """

    def __init__(self, url: str, scripts: Sequence[Script]) -> None:
        self._scripts, self._closed = scripts, False
        server = _Server(url)
        asked: float | None = server.pool.connection_kwargs.get("socket_timeout")
        self._prompt = _Wire(server, TIMEOUT if asked is None else asked)
        self._patient = _Wire(server, PATIENCE if asked is None else max(asked, PATIENCE))

    async def run(self, commands: Sequence[Command], patient: bool = False) -> list[Any]:
        """Run commands in order and return their replies. Raises `Unreachable`; `OutOfSpace` where Redis is full.

        Raises `Damaged` where a key holds something of another kind than the commands are for.
        """
        if self._closed:
            raise StorageFailed("the pipe to Redis is closed")
        wire = self._patient if patient else self._prompt
        replies = await wire.ask(commands)
        missing = [place for place, reply in enumerate(replies) if _is_missing_script(reply)]
        if missing:
            loads = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
            again = (await wire.ask([*loads, *[commands[place] for place in missing]]))[len(loads) :]
            for place, reply in zip(missing, again, strict=True):
                replies[place] = reply
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise _translated(str(reply))
        return replies

    def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        self._prompt.close("closed")
        self._patient.close("closed")


def check(url: str) -> None:
    """Refuse a server that would drop keys to make room. Raises `BadConfiguration`; a silent server is let pass."""
    try:
        with redis.Redis(connection_pool=_pool(url, 1.0)) as client:
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
    except RedisError:
        return
    if policy != "noeviction":
        raise BadConfiguration(
            f"Redis drops keys when it is full (maxmemory-policy {policy}), and features would lose their past "
            "without a word; set it: CONFIG SET maxmemory-policy noeviction"
        )


@dataclass
class _Trip:
    """Commands on their way, and the replies that have come."""

    wanted: int
    future: "asyncio.Future[list[Any]]"
    timer: asyncio.TimerHandle
    replies: list[Any] = field(default_factory=list)


class _Server:
    """How the server is reached. Where a secret says it, the secret is asked again once the server lets nobody in."""

    def __init__(self, url: str) -> None:
        self._url, self._renewing = url, threading.Lock()
        self.pool = _pool(url, TIMEOUT)

    def failed(self) -> None:
        """Ask the secret again, beside what is going on, so that no decision waits for it."""
        if secrets.is_secret(self._url) and self._renewing.acquire(blocking=False):
            threading.Thread(target=self._renew, name="redis secret", daemon=True).start()

    def _renew(self) -> None:
        try:
            secrets.refused(self._url)
            self.pool = _pool(self._url, TIMEOUT)
        except MlopsError as error:
            log.warning("Redis is reached as before", extra={"reason": str(error)})
        finally:
            self._renewing.release()


class _Wire:
    """One connection: opened when it is needed, closed when it fails, and let alone for a while then."""

    def __init__(self, server: _Server, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._trips: deque[_Trip] = deque()
        self._outgoing = bytearray()
        self._connection: Any = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._not_before = 0.0

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands and return the reply to each, errors among them. Raises `Unreachable`."""
        if not commands:
            return []
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move(loop)
        if self._socket is None:
            await self._open(loop)
        timer = loop.call_later(self._seconds, self.close, "no reply in time")
        trip = _Trip(len(commands), loop.create_future(), timer)
        self._trips.append(trip)
        if not self._outgoing:
            # What is asked in the same round of the loop goes out in one piece.
            loop.call_soon(self._send)
        for command in commands:
            self._outgoing += hiredis.pack_command(command)
        return await trip.future

    def close(self, why: str) -> None:
        """Let go of the connection; what was on its way fails, and for a while all that is asked."""
        trips, self._trips = self._trips, deque()
        ended = self._loop is None or self._loop.is_closed()
        for trip in () if ended else trips:
            trip.timer.cancel()
            if not trip.future.done():
                trip.future.set_exception(Unreachable(f"Redis does not answer: {why}"))
        self._outgoing.clear()
        if self._socket is not None:
            self._not_before = time.monotonic() + PAUSE
            if self._loop is not None and not ended:
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
            self._connection.disconnect()
            self._socket = self._connection = None

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on with another loop, once the one before has ended."""
        if self._trips:
            self.close("its loop has ended")
        self._loop, self._opening = loop, asyncio.Lock()
        if self._socket is not None:
            loop.add_reader(self._socket, self._receive)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        async with self._opening:
            if self._socket is not None:
                return
            if time.monotonic() < self._not_before:
                raise Unreachable("Redis did not answer a moment ago")
            pool = self._server.pool
            connection: Any = pool.connection_class(**pool.connection_kwargs)
            try:
                await asyncio.to_thread(connection.connect)
            except RedisError as error:
                self._not_before = time.monotonic() + PAUSE
                self._server.failed()
                raise Unreachable(f"Redis does not answer: {type(error).__name__}") from None
            opened: socket.socket = connection._sock
            opened.setblocking(False)
            self._connection, self._socket, self._reader = connection, opened, hiredis.Reader()
            loop.add_reader(opened, self._receive)

    def _send(self) -> None:
        if self._socket is None or self._loop is None or not self._outgoing:
            return
        try:
            del self._outgoing[: self._socket.send(self._outgoing)]
        except LATER:
            pass
        except OSError as error:
            self.close(type(error).__name__)
            return
        if self._outgoing:
            self._loop.add_writer(self._socket, self._send)
        else:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(CHUNK)
            while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                data += self._socket.recv(CHUNK)
        except LATER:
            return
        except OSError as error:
            self.close(type(error).__name__)
            return
        if not data:
            self.close("it closed the connection")
            return
        try:
            self._reader.feed(data)
            self._hand_out()
        except hiredis.ProtocolError as error:
            self.close(f"what came is no reply of Redis: {error}")

    def _hand_out(self) -> None:
        while self._trips and (reply := self._reader.gets()) is not False:
            trip = self._trips[0]
            trip.replies.append(reply)
            if len(trip.replies) == trip.wanted:
                self._trips.popleft()
                trip.timer.cancel()
                if not trip.future.done():
                    trip.future.set_result(trip.replies)


def _pool(url: str, seconds: float) -> redis.ConnectionPool:
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
    try:
        return redis.ConnectionPool.from_url(secrets.resolve(url), **limits)
    except ValueError:
        raise BadConfiguration("platform.online is no URL of Redis; write redis://HOST:PORT/NUMBER") from None


def _is_missing_script(reply: object) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def _translated(text: str) -> MlopsError:
    if "WRONGTYPE" in text:
        return Damaged("what Redis holds under a key is no log")
    if "OOM" in text:
        return OutOfSpace("Redis is full; give it more memory")
    return StorageFailed(f"Redis refused a command: {text}")
