"""Labels of decisions: dated facts in the journal, and the way in which a past is told all of them again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from mlops.contract import Fact, Labelled, Record
from mlops.journaling.journal import Journal, Row

DECISION, LABEL = "decision", "label"

Restore = Callable[[Sequence[Mapping[str, Any]], Sequence[Labelled]], Awaitable[None]]

encode = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
decode_fact = msgspec.json.Decoder(Fact).decode


async def facts(journal: Journal, about: bytes) -> list[Fact]:
    """All that is known about a decision, in the order of the journal."""
    rows = await asyncio.to_thread(journal.about, [about])
    return [decode_fact(row.entry.body) for row in rows if row.entry.kind == LABEL]


async def replay(journal: Journal, name: str, restore: Restore, after: int) -> int:
    """Hand what the journal holds of a model after a sequence number to `restore`; return how far the journal goes."""
    while rows := await asyncio.to_thread(journal.page, after):
        records = [decode_record(row.entry.body) for row in rows if row.entry.kind == DECISION]
        decided = [record.row for record in records if record.model.name == name]
        await restore(decided, await asyncio.to_thread(labelled, journal, name, rows))
        after = rows[-1].sequence
    return after


def labelled(journal: Journal, name: str, rows: Sequence[Row]) -> list[Labelled]:
    """All that is known by the end of some rows about the decisions of a model that labels among them speak of."""
    about = {row.entry.about for row in rows if row.entry.kind == LABEL and row.entry.about is not None}
    if not about:
        return []
    known: dict[bytes, list[tuple[int, int]]] = {}
    for row in journal.about(about):
        if row.sequence <= rows[-1].sequence:
            fact = decode_fact(row.entry.body)
            known.setdefault(row.entry.about or b"", []).append((fact.known_at, fact.label))
    decisions = ((row.entry.id, decode_record(row.entry.body)) for row in journal.find_all(about))
    return [Labelled(record.row, known[id_]) for id_, record in decisions if record.model.name == name]
