"""Dead letters: records that nothing could be decided about, whole, with the reason, until somebody sends them again.

They stand in the journal. What a door without a journal could not decide lies among the files until it is taken in.
"""

from base64 import b64decode
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from mlops.errors import Damaged, NotFound
from mlops.journaling.journal import Entry, Journal
from mlops.journaling.ledger import identify
from mlops.storage.objects import MONITORING, Objects, read

LETTER, SETTLED = "dead letter", "dead letter settled"
FOLDER = f"{MONITORING}/dead_letters"
GIVEN_UP = "aws/lambda"
"""Where Lambda leaves what it gave up, whole batches of it, in a bucket that is the destination of failures."""
UNAVAILABLE = 503
AT_ONCE = 100
"""Letters that are read at once: each may have a megabyte."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record as it came, where it stood, and why it was refused: the field if one is to blame, and an HTTP status.

    `at` is when that happened, in microseconds since 1970. In JSON `data` is base64.
    """

    stream: str
    shard: str
    sequence: str
    data: bytes
    field: str | None
    reason: str
    status: int
    at: int


class Waiting(NamedTuple):
    """A letter that is not settled, and its id."""

    id: bytes
    letter: DeadLetter


class Settled(msgspec.Struct, frozen=True):
    """What became of a letter: the id of the decision that was made, or who threw it away and why."""

    decision: str | None = None
    who: str | None = None
    why: str | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(DeadLetter).decode


def entry(name: str, letter: DeadLetter) -> Entry:
    """The journal's entry of a letter of a module; a record that is read again gives the same id."""
    place = f"{LETTER} {letter.stream} {letter.shard} {letter.sequence}"
    return Entry(LETTER, identify(name, place), encode(letter), letter.at, identify(name, LETTER))


class DeadLetters:
    """The dead letters of a module."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._name = journal, name
        self._box, self._settled = identify(name, LETTER), identify(name, SETTLED)

    def count(self) -> int:
        """How many wait."""
        return self._journal.count(self._box) - self._journal.count(self._settled)

    def waiting(self) -> Iterator[Waiting]:
        """Every letter that waits, in order. Raises `StorageFailed`."""
        after = 0
        while rows := self._journal.about_page(self._box, after, AT_ONCE):
            marks = {self._mark(row.entry.id): row.entry.id for row in rows}
            settled = {marks[row.entry.id] for row in self._journal.find_all(marks)}
            for row in rows:
                if row.entry.id not in settled:
                    yield Waiting(row.entry.id, decode(row.entry.body))
            after = rows[-1].sequence

    def find(self, id_: bytes) -> DeadLetter:
        """The letter of an id, waiting or settled. Raises `NotFound`."""
        row = self._journal.find(id_)
        if row is None or row.entry.kind != LETTER:
            raise NotFound(f"there is no dead letter {id_.hex()}; list them: replay-dlq --list")
        return decode(row.entry.body)

    def settle(self, id_: bytes, how: Settled, at: int) -> None:
        """Write down what became of a letter; the first who does is right."""
        self._journal.append([Entry(SETTLED, self._mark(id_), encode(how), at, self._settled)])

    def take_in(self, store: Objects) -> int:
        """Take over what other doors have left among the files, and tell how many. Raises `Damaged`, naming the file.

        A file goes once its letters are in the journal.
        """
        taken = 0
        for folder, opened in ((FOLDER, _one), (GIVEN_UP, _given_up)):
            for key in store.list(folder):
                try:
                    letters = opened(read(store, key))
                except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
                    raise Damaged(f"{store.url(key)} is no dead letter; move it away") from None
                self._journal.append([entry(self._name, letter) for letter in letters])
                store.delete(key)
                taken += len(letters)
        return taken

    def _mark(self, id_: bytes) -> bytes:
        return identify(self._name, f"{SETTLED} {id_.hex()}")


def _one(body: bytes) -> Sequence[DeadLetter]:
    return [decode(body)]


def _given_up(body: bytes) -> Sequence[DeadLetter]:
    """The records of an invocation that Lambda gave up, as its developer guide describes what goes to a bucket."""
    said = msgspec.json.decode(body)
    batch, reason = said["KinesisBatchInfo"], f"Lambda gave up: {said['requestContext']['condition']}"
    at = int(datetime.fromisoformat(said["timestamp"]).timestamp() * 1e6)
    stream = batch["streamArn"].partition(":stream/")[2]
    return [
        DeadLetter(
            stream, batch["shardId"], one["sequenceNumber"], b64decode(one["data"]), None, reason, UNAVAILABLE, at
        )
        for one in _records(said["payload"])
    ]


def _records(payload: Any) -> Sequence[dict[str, str]]:
    event = msgspec.json.decode(payload) if isinstance(payload, str) else payload
    return [record["kinesis"] for record in event["Records"]]
