"""Group commit: what many requests have to write at one moment goes to the journal in one transaction."""

from collections.abc import Sequence

from mlops.journal import Entry, Journal, Kept
from mlops.together import Together

MOST = 512
"""Entries of one transaction."""


class GroupCommit:
    """Writes to a journal from one thread."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._together: Together[Entry, Kept] = Together("journal", journal.append, MOST)

    async def keep(self, entries: Sequence[Entry]) -> list[Kept]:
        """Return when the entries are on disk: the row of each, and whether it is new. Raises what `append` raises."""
        return await self._together.do(entries)

    @property
    def waiting(self) -> int:
        """Entries that are not on disk yet."""
        return self._together.waiting

    @property
    def seconds_behind(self) -> float:
        """How long the oldest entry has been waiting."""
        return self._together.seconds_behind

    def close(self) -> None:
        """Write what was accepted, then let go of the journal."""
        self._together.close()
        self.journal.close()
