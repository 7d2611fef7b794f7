"""The word `replay-dlq`: dead letters are listed, written out to be mended, decided again, or thrown away."""

import asyncio
import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mlops import bootstrap
from mlops.errors import BadInput, StorageFailed
from mlops.journaling import journal
from mlops.journaling.ledger import wall
from mlops.serving.scoring import Decided
from mlops.streaming.dead_letters import DeadLetter, DeadLetters, Settled
from mlops.streaming.shard_reading import OURS
from modules.fraud_detection.consume import deciding
from modules.fraud_detection.settings import NAME, Settings

AT_ONCE = 100
"""Letters that are decided at once."""


class Replayed(NamedTuple):
    """How many letters were decided now, how many had been decided before, and why others are still refused."""

    decided: int
    repeated: int
    refused: Counter[str]


class Line(msgspec.Struct, omit_defaults=True):
    """A letter as a line of JSON: `record` is what is to be mended; what is no text stands in `base64` instead."""

    id: str
    reason: str = ""
    field: str | None = None
    record: Raw | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class Replay:
    """The dead letters of the module, with what other doors have left among the files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._journal = journal.connect(settings.platform.journal)
        self._letters = DeadLetters(self._journal, NAME)
        self._letters.take_in(bootstrap.connect(settings.platform).objects)

    def waiting(self) -> Iterator[tuple[bytes, DeadLetter]]:
        """Every letter that waits, with its id."""
        return self._letters.waiting()

    def write(self, file: Path) -> int:
        """Write every letter that waits as a line of JSON, and tell how many. Raises `BadInput`."""
        count = 0
        try:
            with file.open("wb") as lines:
                for id_, letter in self.waiting():
                    lines.write(msgspec.json.encode(_line(id_, letter)) + b"\n")
                    count += 1
        except OSError as error:
            raise BadInput(f"cannot write {file}: {error.strerror}") from None
        return count

    def as_they_are(self) -> Replayed:
        """Decide every letter that waits once more."""
        return asyncio.run(self._again((id_, letter.data) for id_, letter in self.waiting()))

    def mended(self, file: Path) -> Replayed:
        """Decide what stands in the lines of a file. Raises `BadInput` and `NotFound`, and then nothing is decided."""
        try:
            text = file.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {file}: {error.strerror}") from None
        found = [_mended(line, f"line {place} of {file}") for place, line in enumerate(text.splitlines(), 1) if line]
        for id_, _ in found:
            self._letters.find(id_)
        return asyncio.run(self._again(found))

    def drop(self, id_: str, who: str, why: str) -> None:
        """Throw a letter away; it stays in the journal with who did it and why. Raises `BadInput` and `NotFound`."""
        if not why:
            raise BadInput("a letter that is thrown away needs a reason: --why TEXT")
        found = _id(id_)
        self._letters.find(found)
        self._letters.settle(found, Settled(who=who, why=why), wall())

    async def _again(self, letters: Iterable[tuple[bytes, bytes]]) -> Replayed:
        decided, refused = Counter[bool](), Counter[str]()
        async with deciding(self._settings, []) as decider:
            for some in _parts(letters):
                outcomes = await decider.scorer.decide([data for _, data in some])
                for (id_, _), outcome in zip(some, outcomes, strict=True):
                    if isinstance(outcome, Decided):
                        self._letters.settle(id_, Settled(decision=outcome.id.hex()), wall())
                        decided[outcome.replayed] += 1
                    elif outcome.status >= OURS:
                        raise StorageFailed(f"letter {id_.hex()} cannot be decided now: {outcome.reason}; try again")
                    else:
                        refused[str(outcome)] += 1
        return Replayed(decided[False], decided[True], refused)


def _line(id_: bytes, letter: DeadLetter) -> Line:
    line = Line(id_.hex(), letter.reason, letter.field)
    try:
        msgspec.json.decode(letter.data)
        line.record = Raw(letter.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            line.record = Raw(msgspec.json.encode(letter.data.decode()))
        except UnicodeDecodeError:
            line.base64 = base64.b64encode(letter.data).decode()
    return line


def _mended(text: bytes, where: str) -> tuple[bytes, bytes]:
    """The id and the record of a line."""
    try:
        line = msgspec.json.decode(text, type=Line)
        if line.base64 is not UNSET:
            return _id(line.id), base64.b64decode(line.base64, validate=True)
        if line.record is UNSET:
            raise BadInput(f"{where} has no 'record'; write what is to be decided there")
        record = bytes(line.record)
        return _id(line.id), msgspec.json.decode(record).encode() if record.startswith(b'"') else record
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"{where} is no dead letter: {error}") from None


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BadInput(f"'{text}' is no id of a dead letter; list them: replay-dlq --list") from None


def _parts(letters: Iterable[tuple[bytes, bytes]]) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    some: list[tuple[bytes, bytes]] = []
    for letter in letters:
        some.append(letter)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some
