"""Work that is done once, whoever begins it: one holder at a time, and another one where a holder died."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Lock, Thread
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from mlops.errors import MlopsError, StorageFailed
from mlops.journaling.journal import Entry
from mlops.journaling.ledger import Ledger, identify, wall

KIND = "turn"
TRIES = 100
State = Literal["taken", "failed", "given up", "done"]


class Work(msgspec.Struct, frozen=True):
    """Where a piece of work stands: who holds it until when (microseconds UTC), or how it ended.

    `failed` may be tried again, `given up` was tried as often as it may be. `attempt` counts from 1 on.
    """

    name: str
    what: str
    state: State
    attempt: int
    holder: str
    until: int
    at: int
    result: Mapping[str, Any] = {}
    reason: str = ""

    def living(self, now: int) -> bool:
        """Tell whether somebody holds it."""
        return self.state == "taken" and now < self.until


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Work).decode


class Turns:
    """The work of one module. Any number of processes on any number of hosts may ask for the same; one gets it.

    Who holds a turn must renew it within `lease_seconds`, or another gets it; so the clocks of all hosts must agree to
    within a small part of that. Work that ended `attempts` times without being done is given up.
    """

    def __init__(
        self, ledger: Ledger, name: str, now: Callable[[], int] = wall,
        lease_seconds: float = 300, attempts: int = 3,
    ) -> None:  # fmt: skip
        self.name, self.now, self.lease, self.attempts = name, now, int(lease_seconds * 1e6), attempts
        self._journal = ledger.journal
        self._lock, self._read_to = Lock(), 0
        self._works: dict[str, tuple[int, Work]] = {}

    def take(self, what: str) -> "Turn | None":
        """Begin a piece of work, or begin it again; nothing where it is done, given up or in living hands."""
        holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        for _ in range(TRIES):
            steps, before = self._look(what)
            now = self.now()
            if before is not None and (before.state in ("done", "given up") or before.living(now)):
                return None
            attempt = before.attempt + 1 if before is not None else 1
            if attempt <= self.attempts:
                work = Work(self.name, what, "taken", attempt, holder, now + self.lease, now)
            else:
                reason = f"none of {self.attempts} attempts came to an end"
                work = Work(self.name, what, "given up", attempt - 1, holder, now, now, reason=reason)
            if self.write(work, steps + 1).holder == holder:
                return Turn(self, work, steps + 1) if work.state == "taken" else None
        raise StorageFailed(f"the ledger of {self.name} was never free for '{what}'; try again")

    def known(self, prefix: str = "") -> list[Work]:
        """Every piece of work whose name begins so, the one that moved last at the end."""
        with self._lock:
            self._read()
            return [work for _, work in self._works.values() if work.what.startswith(prefix)]

    def last(self, prefix: str = "") -> Work | None:
        """The work that was done last, of those whose name begins so."""
        return next((work for work in reversed(self.known(prefix)) if work.state == "done"), None)

    def write(self, work: Work, step: int) -> Work:
        """Write a step of some work down, and return what stands in its place: of several at once the first."""
        id_ = identify(self.name, encode([KIND, work.what, step]).decode())
        return decode(self._journal.append([Entry(KIND, id_, encode(work), work.at)])[0].row.entry.body)

    def _look(self, what: str) -> tuple[int, Work | None]:
        with self._lock:
            self._read()
            return self._works.get(what, (0, None))

    def _read(self) -> None:
        for row in self._journal.since(self._read_to):
            if row.entry.kind == KIND:
                work = decode(row.entry.body)
                if work.name == self.name:
                    steps, _ = self._works.pop(work.what, (0, None))
                    self._works[work.what] = steps + 1, work
            self._read_to = row.sequence


class Turn:
    """A piece of work in somebody's hands.

    The answer to what it is told is false where the turn has ended, or where another has it because it was not renewed
    in time: then stop, and let nothing of the work count. After an error of the journal it can be told again.
    """

    def __init__(self, turns: Turns, work: Work, step: int) -> None:
        self._turns, self._work, self._step = turns, work, step
        self._lock = Lock()

    @property
    def what(self) -> str:
        """Which work it is."""
        return self._work.what

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1 on: the holders before failed or died."""
        return self._work.attempt

    def renew(self) -> bool:
        """Hold it for another lease from now on."""
        return self._go_on("taken")

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it from a thread while the block runs, however long that takes."""
        ended = Event()
        thread = Thread(target=self._keep, args=[ended], name="turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def done(self, result: Mapping[str, Any] | None = None) -> bool:
        """It is done and never given again; `result` is what others should know of it."""
        return self._go_on("done", result=dict(result or {}))

    def failed(self, reason: str) -> bool:
        """It failed: whoever asks next tries it again, unless this was the last attempt."""
        return self._go_on("failed" if self.attempt < self._turns.attempts else "given up", reason=reason)

    def _keep(self, ended: Event) -> None:
        while not ended.wait(self._turns.lease / 3e6):
            with contextlib.suppress(MlopsError):
                self.renew()

    def _go_on(self, state: State, **said: Any) -> bool:
        with self._lock:
            while self._work.state == "taken":
                now = self._turns.now()
                until = now + self._turns.lease if state == "taken" else now
                wanted = replace(self._work, state=state, until=until, at=now, **said)
                stands = self._turns.write(wanted, self._step + 1)
                if stands.holder != self._work.holder:
                    return False
                # What stands is ours: this, or what was told before an error hid that it had been written.
                self._work, self._step = stands, self._step + 1
                if stands == wanted:
                    return True
            return self._work.state == state
