"""Alarms: what is found is told once when it begins and once when it has ended, and reaches every sink."""

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from mlops.alerting import messages
from mlops.alerting.alerts import Alert, Alerting, encode, fitting, letter
from mlops.alerting.messages import Sink
from mlops.errors import BadInput, MlopsError, StorageFailed
from mlops.journaling.journal import Entry, Row
from mlops.journaling.ledger import Ledger, identify, wall

HOUR = 3_600_000_000
TRIES = 100
LONGEST = 200
"""Characters of the longest name of a thing."""
LINE = 500
"""Characters of the longest title or link."""

log = logging.getLogger("alerts")


class Calm(msgspec.Struct, frozen=True):
    """What else a look at an open alert found: so many looks in a row were calm, 0 where this one was not."""

    name: str
    kind: str
    what: str
    looks: int


class Opened(msgspec.Struct, frozen=True):
    """A sink of a module: what is raised later goes there."""

    name: str
    sink: str


class Sent(msgspec.Struct, frozen=True):
    """An alert that a sink has, by itself or gathered with others."""

    name: str
    sink: str
    alert: str
    gathered: bool


class Story(NamedTuple):
    """What is known of one thing: how many entries, the latest alert, how many looks in a row were calm since."""

    entries: int = 0
    latest: Alert | None = None
    calm: int = 0

    @property
    def open(self) -> Alert | None:
        """The alert that was raised and is not cleared yet."""
        return self.latest if self.latest is not None and self.latest.state == "raised" else None

    def after(self, look: Alert, calm: int) -> Alert | Calm | None:
        """What a look adds to it: the next alert, or how calm it is by now, or nothing."""
        episode, firing = self.latest.episode if self.latest else 0, look.state == "raised"
        if firing and not self.open:
            return replace(look, episode=episode + 1)
        if self.open and not firing and self.calm + 1 >= calm:
            return replace(look, episode=episode)
        if self.open and (self.calm or not firing):
            return Calm(look.name, look.kind, look.what, 0 if firing else self.calm + 1)
        return None


class Delivery(NamedTuple):
    """When an alert went to a sink: its row in the ledger, the time, and whether it was gathered."""

    sequence: int
    at: int
    gathered: bool


Said = Alert | Calm | Opened | Sent
KINDS: dict[type[Said], str] = {Alert: "alert", Calm: "alert calm", Opened: "alert sink", Sent: "alert sent"}
DECODE: dict[str, Callable[[bytes], Said]] = {kind: msgspec.json.Decoder(type_).decode for type_, kind in KINDS.items()}


class Alarms:
    """The alerts of one module. All that it knows stands in the ledger, so any number of processes can share the work.

    An episode begins with a look that fires and ends after `calm` looks in a row that do not. A sink hears of what is
    raised after it was first named by anybody who raises or delivers. It gets at most `most` single messages in an
    hour; what is left then is gathered, once in an hour.
    """

    def __init__(
        self, ledger: Ledger, name: str, sinks: Sequence[Sink], now: Callable[[], int] = wall, calm: int = 3,
        most: int = 20,
    ) -> None:  # fmt: skip
        self.name, self._journal, self._now = name, ledger.journal, now
        self._sinks = {sink.url: sink for sink in sinks}
        self._calm, self._most = calm, most
        self._lock, self._read_to = Lock(), 0
        self._stories: dict[tuple[str, str], Story] = {}
        self._pending: dict[str, dict[str, Alert]] = {}
        self._sent: dict[str, list[Delivery]] = {url: [] for url in self._sinks}

    def say(
        self, kind: str, what: str, firing: bool, title: str, values: Mapping[str, Any] | None = None, link: str = "",
        version: int | None = None,
    ) -> Alert | None:  # fmt: skip
        """Tell what a look found; the alert is returned where this look begins an episode or ends one.

        `kind` says what sort of alert it is and `what` which thing it is about. Raises `BadInput` where one of them is
        empty or cannot be shown, and what the journal raises.
        """
        for word in (kind, what):
            if not (word.isprintable() and 0 < len(word) <= LONGEST):
                raise BadInput(f"an alert cannot be of {word!r}; write 1 to {LONGEST} characters that can be shown")
        state: Literal["raised", "cleared"] = "raised" if firing else "cleared"
        look = Alert(self.name, kind, what, state, _line(title), dict(values or {}), _line(link), version, 0, "", 0)
        with self._lock:
            for _ in range(TRIES):
                self._catch_up()
                story, now = self._stories.get((kind, what), Story()), self._now()
                said, id_ = story.after(look, self._calm), _id(self.name, "alert", kind, what, story.entries + 1)
                if said is None:
                    return None
                if isinstance(said, Alert):
                    said = replace(said, id=id_.hex(), at=now)
                entry = Entry(KINDS[type(said)], id_, encode(said), now)
                # The place in the story makes the id, and an id is given once: who comes second looks again.
                if self._journal.append([entry])[0].row.entry == entry:
                    return said if isinstance(said, Alert) else None
        raise StorageFailed(f"the ledger of {self.name} was never free for an alert; try again")

    def deliver(self) -> dict[str, str]:
        """Send what each sink has not got yet, in order; return what is wrong with each sink that did not take it.

        What a sink does not take stays for the next time. What was sent by a process that was killed before it could
        write that down is sent again.
        """
        problems = {}
        for url, sink in self._sinks.items():
            with self._lock:
                self._catch_up()
                began = self._read_to
            while (chosen := self._choose(url, began))[0]:
                try:
                    sink.send(letter(chosen[0]))
                except Exception as error:
                    # A sink may be broken in any way, and the others shall have theirs.
                    unknown = not isinstance(error, MlopsError)
                    log.warning("alerts wait", extra={"sink": url, "reason": str(error)}, exc_info=unknown)
                    problems[url] = str(error)
                    break
                self._mark(url, *chosen)
        return problems

    def open(self) -> list[Alert]:
        """The alerts that were raised and have not been cleared, oldest first."""
        with self._lock:
            self._read()
            return sorted(filter(None, (story.open for story in self._stories.values())), key=lambda alert: alert.at)

    def _choose(self, url: str, began: int) -> tuple[list[Alert], bool]:
        """What goes to a sink next, in a delivery that began after that row, and whether it is gathered."""
        with self._lock:
            self._catch_up()
            pending, hour = list(self._pending[url].values()), self._now() - HOUR
            self._sent[url] = lately = [one for one in self._sent[url] if one.at > hour]
        if sum(not one.gathered for one in lately) < self._most:
            return pending[:1], False
        # A gathering may need several messages, all in one delivery; the next is due in an hour.
        early = any(one.gathered and one.sequence <= began for one in lately)
        return [] if early else fitting(pending), True

    def _mark(self, url: str, alerts: Sequence[Alert], gathered: bool) -> None:
        now, entries = self._now(), []
        for alert in alerts:
            sent, about = Sent(self.name, url, alert.id, gathered), bytes.fromhex(alert.id)
            entries.append(Entry(KINDS[Sent], _id(self.name, KINDS[Sent], url, alert.id), encode(sent), now, about))
        self._journal.append(entries)

    def _catch_up(self) -> None:
        """Read what is new, and let sinks that are new hear of what comes after."""
        self._read()
        opened = [Opened(self.name, url) for url in self._sinks if url not in self._pending]
        if opened:
            now = self._now()
            self._journal.append(
                [Entry(KINDS[Opened], _id(self.name, KINDS[Opened], one.sink), encode(one), now) for one in opened]
            )
            self._read()

    def _read(self) -> None:
        for row in self._journal.since(self._read_to):
            if row.entry.kind in DECODE:
                said = DECODE[row.entry.kind](row.entry.body)
                if said.name == self.name:
                    self._take(said, row)
            self._read_to = row.sequence

    def _take(self, said: Said, row: Row) -> None:
        match said:
            case Alert():
                story = self._stories.get((said.kind, said.what), Story())
                self._stories[said.kind, said.what] = Story(story.entries + 1, said)
                for pending in self._pending.values():
                    pending[said.id] = said
            case Calm():
                story = self._stories[said.kind, said.what]
                self._stories[said.kind, said.what] = Story(story.entries + 1, story.latest, said.looks)
            case Opened() if said.sink in self._sinks:
                self._pending[said.sink] = {}
            case Sent() if said.sink in self._sinks:
                self._pending[said.sink].pop(said.alert, None)
                self._sent[said.sink].append(Delivery(row.sequence, row.entry.at, said.gathered))


def connect(settings: Alerting, ledger: Ledger, name: str, now: Callable[[], int] = wall) -> Alarms:
    """Connect the alarms of a module with the sinks of its settings. Raises `BadConfiguration`."""
    sinks = [messages.connect(url) for url in settings.sinks]
    return Alarms(ledger, name, sinks, now, settings.calm, settings.most_per_hour)


def _line(text: str) -> str:
    """One line of what can be shown."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:LINE]


def _id(name: str, *what: str | int) -> bytes:
    return identify(name, encode(what).decode())
