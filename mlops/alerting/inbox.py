"""The inbox: where a worker hears what was raised, from the ledger (ledger://) or from a queue (sqs://)."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import msgspec

from mlops.alerting import alerts
from mlops.alerting.alarms import KINDS
from mlops.alerting.alerts import Alert
from mlops.alerting.messages import Queue, Received
from mlops.errors import BadConfiguration, BadData, MlopsError
from mlops.journaling.journal import Entry, Journal
from mlops.journaling.ledger import Ledger, identify, wall

HANDLED = "alert handled"
PATIENCE = 60_000_000
"""Microseconds after which an alert of the ledger that was given and is not done is given again."""
POLL = 0.5
"""Seconds between two looks into the ledger."""

log = logging.getLogger("alerts")


class Inbox(Protocol):
    """What was raised in one module and nobody has handled.

    An alert is given again and again until it is done, and never after, however often it was sent. Two workers may
    hear the same one at a time: what must be done once is guarded by a turn.
    """

    def receive(self, wait_seconds: float) -> list[Alert]:
        """Give what there is, or wait for it so long, at a queue at most 20 seconds. Raises `StorageFailed`."""

    def done(self, alert: Alert) -> None:
        """Write down that it is handled."""


def connect(url: str, ledger: Ledger, name: str, now: Callable[[], int] = wall) -> Inbox:
    """Open the inbox of a module: `ledger://`, `sqs://QUEUE_NAME` or `sqs://QUEUE_ARN`. Raises `BadConfiguration`."""
    handled = Handled(ledger.journal, name, now)
    if url == "ledger://":
        return LedgerInbox(ledger.journal, name, handled, now)
    if url.startswith("sqs://"):
        return QueueInbox(Queue(url), name, handled)
    raise BadConfiguration(f"'{url}' is no inbox; write ledger://, sqs://QUEUE_NAME or sqs://QUEUE_ARN")


class Handled:
    """Which alerts a module has handled."""

    def __init__(self, journal: Journal, name: str, now: Callable[[], int]) -> None:
        self._journal, self._name, self._now = journal, name, now

    def among(self, ids: Collection[str]) -> set[str]:
        """The ids of those that are handled."""
        entries = {self._id(id_): id_ for id_ in ids}
        return {entries[row.entry.id] for row in self._journal.find_all(entries)}

    def add(self, alert: Alert) -> None:
        """Write down that one is."""
        body = msgspec.json.encode({"name": self._name, "alert": alert.id})
        self._journal.append([Entry(HANDLED, self._id(alert.id), body, self._now(), bytes.fromhex(alert.id))])

    def _id(self, id_: str) -> bytes:
        return identify(self._name, f"{HANDLED} {id_}")


class LedgerInbox:
    """Hears what was raised from the ledger itself."""

    def __init__(self, journal: Journal, name: str, handled: Handled, now: Callable[[], int]) -> None:
        self._journal, self._name, self._handled, self._now = journal, name, handled, now
        self._read_to = 0
        self._raised: dict[str, Alert] = {}
        self._given: dict[str, int] = {}

    def receive(self, wait_seconds: float) -> list[Alert]:
        end = time.monotonic() + wait_seconds
        while not (due := self._due()) and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL))
        return due

    def done(self, alert: Alert) -> None:
        self._handled.add(alert)

    def _due(self) -> list[Alert]:
        self._read()
        now = self._now()
        due = [alert for id_, alert in self._raised.items() if now - self._given.get(id_, now - PATIENCE) >= PATIENCE]
        self._given |= {alert.id: now for alert in due}
        return due

    def _read(self) -> None:
        for row in self._journal.since(self._read_to):
            if row.entry.kind == KINDS[Alert]:
                alert = alerts.decode(row.entry.body)
                if (alert.name, alert.state) == (self._name, "raised"):
                    self._raised[alert.id] = alert
            self._read_to = row.sequence
        for id_ in self._handled.among(self._raised):
            del self._raised[id_]
            self._given.pop(id_, None)


class Held(NamedTuple):
    """A message that a queue gave: what deleting it takes, and which of its alerts are not handled yet."""

    receipt: str
    waiting: set[str]


class QueueInbox:
    """Hears what was raised from a queue, which messages reach from an alarm or through a topic.

    What cannot be read, or is for another module, is told and left: the queue gives it again, and moves it to its
    dead-letter queue when it was given as often as its redrive policy allows. A queue should hide what it gave for
    longer than handling takes.
    """

    def __init__(self, queue: Queue, name: str, handled: Handled) -> None:
        self._queue, self._name, self._handled = queue, name, handled
        self._held: dict[str, Held] = {}
        self._giver: dict[str, str] = {}

    def receive(self, wait_seconds: float) -> list[Alert]:
        return [alert for received in self._queue.receive(wait_seconds) for alert in self._open(received)]

    def done(self, alert: Alert) -> None:
        self._handled.add(alert)
        self._giver.pop(alert.id, None)
        for id_, held in list(self._held.items()):
            held.waiting.discard(alert.id)
            if not held.waiting:
                del self._held[id_]
                self._delete(held.receipt)

    def _open(self, received: Received) -> list[Alert]:
        """What is in a message and is neither handled nor in another message that was given before."""
        try:
            found = _read(received.body, self._name)
        except BadData as error:
            said = {"queue": self._queue.url, "message_id": received.id, "times": received.times, "reason": str(error)}
            log.warning("a message was left in the queue", extra=said)
            return []
        raised = {alert.id: alert for alert in found if alert.state == "raised"}
        waiting = raised.keys() - self._handled.among(raised)
        if not waiting:
            self._delete(received.receipt)
            return []
        self._held[received.id] = Held(received.receipt, waiting)
        givers = {id_: self._giver.setdefault(id_, received.id) for id_ in waiting}
        return [alert for id_, alert in raised.items() if givers.get(id_) == received.id]

    def _delete(self, receipt: str) -> None:
        try:
            self._queue.delete(receipt)
        except MlopsError as error:
            # It comes again, and then it is handled already.
            log.warning("a message could not be deleted", extra={"queue": self._queue.url, "reason": str(error)})


class Envelope(msgspec.Struct, frozen=True):
    """What a topic wraps around a message for a queue."""

    Type: str
    Message: str


def _read(body: str, name: str) -> Sequence[Alert]:
    if body.startswith("{"):
        try:
            body = msgspec.json.decode(body, type=Envelope).Message
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadData(f"this is no notification of a topic: {error}") from None
    found = alerts.read(body)
    others = {alert.name for alert in found} - {name}
    if others:
        way_out = "let the queue's subscription filter by the attribute 'name'"
        raise BadData(f"this is for {', '.join(sorted(others))} and not for {name}; {way_out}")
    return found
