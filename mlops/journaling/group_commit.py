"""Group commit: what is to be written goes to a process beside this one, which writes all that waits at once."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlops import errors
from mlops.errors import MlopsError, StorageFailed, Unreachable
from mlops.journaling import journal
from mlops.journaling.frames import Frames, framed
from mlops.journaling.journal import Entry, Kept, Row
from mlops.journaling.journal_process import Place, Start, Write, Written

PATIENCE = 10
"""Seconds that the process has to write what it was sent, when it is to end."""

PAUSE = 1
"""Seconds between two starts of a process that dies."""
GONE = "the process that writes the journal is gone"
ROOT = str(Path(__file__).parents[2])

decode = msgspec.msgpack.Decoder(Written).decode


class _Sent(NamedTuple):
    entries: Sequence[Entry]
    since: float
    future: "asyncio.Future[list[Kept]]"


class GroupCommit:
    """Writes to a journal from one event loop, and reads it through `journal`."""

    def __init__(self, url: str) -> None:
        self.journal = journal.connect(url)
        self.failures = 0
        self._url = url
        self._sent: deque[_Sent] = deque()
        self._line: _Line | None = None
        self._starting, self._not_before = asyncio.Lock(), 0.0
        self._closed = False

    async def open(self) -> None:
        """Start the writing process, so that the first to write does not wait for it. Raises `Unreachable`."""
        async with self._starting:
            if self._line is None:
                if time.monotonic() < self._not_before:
                    raise Unreachable(GONE)
                self._not_before = time.monotonic() + PAUSE
                line = _Line(self)
                await line.open(framed(Start(self._url, self.failures)))
                self._line = line

    async def keep(self, entries: Sequence[Entry], failures: int | None = None) -> list[Kept]:
        """Return when the entries are on disk: the row of each, and whether it is new. Raises what `append` raises.

        Entries that count on others before them say how many `failures` there were when they were made: where there
        were more since, they are not written. Raises `Unreachable` where the writing process is gone; then nobody knows
        yet whether they were written, and whoever gives them again finds out.
        """
        if self._closed:
            raise StorageFailed("the journal is closed")
        if self._line is None:
            await self.open()
        if self._line is None:
            raise Unreachable(GONE)
        if failures is not None and failures != self.failures:
            raise StorageFailed("what came before it could not be written")
        sent = _Sent(entries, time.monotonic(), asyncio.get_running_loop().create_future())
        self._sent.append(sent)
        self._line.send(framed(Write(list(entries), self.failures)))
        return await sent.future

    @property
    def waiting(self) -> int:
        """Entries that are not on disk yet."""
        return sum(len(sent.entries) for sent in self._sent)

    @property
    def seconds_behind(self) -> float:
        """How long the oldest entry has been waiting."""
        return time.monotonic() - self._sent[0].since if self._sent else 0.0

    async def close(self) -> None:
        """Write what was accepted, then let go of the journal."""
        self._closed = True
        await asyncio.gather(*[sent.future for sent in self._sent], return_exceptions=True)
        if self._line is not None:
            await self._line.close()
        self.journal.close()

    def written(self, said: Written) -> None:
        """Hear the answer to the oldest entries."""
        sent = self._sent.popleft()
        if said.error is not None:
            self.failures += 1
            self._fail(sent, _error(*said.error))
        elif not sent.future.done():
            pairs = zip(sent.entries, said.places, strict=True)
            sent.future.set_result([_kept(entry, place) for entry, place in pairs])

    def lost(self) -> None:
        """Hear that the writing process is gone."""
        self._line = None
        # Whoever counted on what was under way must not go on with a new process.
        self.failures += 1
        while self._sent:
            self._fail(self._sent.popleft(), Unreachable(GONE))

    def _fail(self, sent: _Sent, error: MlopsError) -> None:
        if not sent.future.done():
            sent.future.set_exception(error)


class _Line(asyncio.Protocol):
    """The socket to the writing process."""

    def __init__(self, group: GroupCommit) -> None:
        self._group, self._frames = group, Frames()

    async def open(self, start: bytes) -> None:
        """Start the process, and send it its first message."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "mlops.journaling.journal_process", str(theirs.fileno())]
            path = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}
            self._process = subprocess.Popen(
                command, env=path, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        self.send(start)

    def send(self, data: bytes) -> None:
        """Send a message."""
        self._transport.write(data)

    async def close(self) -> None:
        """Let the process end, and wait until it has."""
        self._transport.close()
        try:
            await asyncio.to_thread(self._process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            self._group.written(decode(message))

    def connection_lost(self, _: Exception | None) -> None:
        self._group.lost()
        self._ended = asyncio.get_running_loop().run_in_executor(None, self._process.wait)


def _kept(entry: Entry, place: Place) -> Kept:
    if place.before is not None:
        return Kept(place.before, False)
    return Kept(Row(entry, place.sequence, place.hash), True)


def _error(kind: str, text: str) -> MlopsError:
    found: type[MlopsError] = getattr(errors, kind, StorageFailed)
    return found(text)
