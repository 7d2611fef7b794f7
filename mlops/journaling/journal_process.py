"""The process that writes the journal for another one: what is sent meanwhile goes into its next transaction.

It has an interpreter of its own, so that a commit and its fsync cost the one that decides nothing but two messages. It
ends when the other side of its socket closes, after writing all that was sent.
"""

import contextlib
import itertools
import signal
import socket
import sys
from collections.abc import Sequence

import msgspec

from mlops.errors import MlopsError, StorageFailed
from mlops.journaling import journal
from mlops.journaling.frames import Frames, framed
from mlops.journaling.journal import Entry, Journal, Kept, Row

MOST = 512
"""Entries of one transaction."""
CHUNK = 1 << 20


class Start(msgspec.Struct, array_like=True):
    """The first message: where the journal is, and how many failures there were before."""

    url: str
    failures: int


class Write(msgspec.Struct, array_like=True):
    """Entries to be written, and how many failures their sender knew of when it made them."""

    entries: list[Entry]
    failures: int


class Place(msgspec.Struct, array_like=True):
    """Where an entry stands now; for one that is not new, the row that was there before."""

    sequence: int
    hash: bytes
    before: Row | None = None


class Written(msgspec.Struct, array_like=True):
    """The answer to a `Write`: the places, or the kind and text of the error."""

    places: list[Place]
    error: tuple[str, str] | None = None


LATE = Written([], (StorageFailed.__name__, "what came before it could not be written"))

decode = msgspec.msgpack.Decoder(Write).decode
decode_start = msgspec.msgpack.Decoder(Start).decode


class Writer:
    """Writes groups down, and refuses those that were made before their sender knew of a failure before them.

    What is decided while another group is on its way counts that group as written. `failures` is how many there were.
    """

    def __init__(self, url: str, failures: int) -> None:
        self._url, self._failures = url, failures
        self._journal: Journal | None = None

    def write(self, groups: Sequence[Write]) -> list[Written]:
        """Write groups, those that count on each other in one transaction; give one answer for each."""
        said: list[Written] = []
        while len(said) < len(groups):
            rest = groups[len(said) :]
            together = list(itertools.takewhile(lambda group: group.failures == self._failures, rest))
            said += self._write(together) if together else [LATE]
            self._failures += 0 if said[-1].error is None else max(1, len(together))
        return said

    def _write(self, groups: Sequence[Write]) -> list[Written]:
        try:
            kept = iter(self._append([entry for group in groups for entry in group.entries]))
        except MlopsError as error:
            return [Written([], (type(error).__name__, str(error)))] * len(groups)
        except Exception as error:
            return [Written([], (StorageFailed.__name__, f"the journal failed: {error}"))] * len(groups)
        return [Written([_place(next(kept)) for _ in group.entries]) for group in groups]

    def _append(self, entries: Sequence[Entry]) -> Sequence[Kept]:
        if self._journal is None:
            self._journal = journal.connect(self._url)
        return self._journal.append(entries)


def main() -> None:
    """Write what comes over the socket that is inherited under the number in the arguments."""
    # Who asks to stop asks the process that decides; what it has accepted is still to be written.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as line, contextlib.suppress(ConnectionError):
        frames, waiting = Frames(), []
        writer: Writer | None = None
        while data := line.recv(CHUNK):
            for message in frames.feed(data):
                if writer is None:
                    start = decode_start(message)
                    writer = Writer(start.url, start.failures)
                else:
                    waiting.append(decode(message))
            while writer is not None and waiting:
                group, waiting = _next(waiting)
                line.sendall(b"".join(map(framed, writer.write(group))))


def _next(waiting: list[Write]) -> tuple[list[Write], list[Write]]:
    """The groups whose entries fit into one transaction, at least one, and the rest."""
    size = taken = 0
    while taken < len(waiting) and (taken == 0 or size + len(waiting[taken].entries) <= MOST):
        size += len(waiting[taken].entries)
        taken += 1
    return waiting[:taken], waiting[taken:]


def _place(kept: Kept) -> Place:
    return Place(kept.row.sequence, kept.row.hash, None if kept.fresh else kept.row)


if __name__ == "__main__":
    main()
