"""The journal as dated files in `monitoring/`: each day once, whoever is first, and days that were missed."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from mlops.alerting.turns import Turns
from mlops.errors import Damaged
from mlops.journaling import journal_export
from mlops.journaling.journal import Journal
from mlops.storage.objects import Objects

WORK = "export before "
DAY = timedelta(days=1)
MISSED = 7
"""Days up to the last whole one that are made up for."""
LATE = timedelta(hours=1)
"""A day is whole so long after its end: what was decided at midnight is written down a moment later."""


class DailyExport:
    """Writes what a journal holds of each day that is over, as one of any number who are asked to."""

    def __init__(self, turns: Turns, journal: Journal, place: Objects) -> None:
        self._turns, self._journal, self._place = turns, journal, place

    def write_if_due(self, slot: datetime, now: datetime) -> list[str] | None:
        """Write the days before the daily work at `slot`, and return their keys; nothing where that was done.

        Raises what the journal and the place raise; then it is due again, and at the latest a day later.
        """
        until = min(slot, now - LATE).date()
        turn = self._turns.take(f"{WORK}{until}")
        if turn is None:
            return None
        try:
            with turn.kept():
                keys = self._write(self._missing(until))
        except BaseException as error:
            turn.failed(str(error))
            raise
        turn.done({"until": until.isoformat(), "keys": keys})
        return keys

    def _missing(self, until: date) -> Sequence[date]:
        """The days before `until` that nobody has written, as far back as is made up for."""
        last = self._turns.last(WORK)
        since = until - MISSED * DAY
        if last is not None:
            since = max(since, date.fromisoformat(last.result["until"]))
        return [since + number * DAY for number in range((until - since).days)]

    def _write(self, days: Sequence[date]) -> list[str]:
        keys, damage = [], None
        for day in days:
            try:
                key = journal_export.write(self._journal, self._place, day)
            except Damaged as error:
                # It stays damaged, and must not hold back the days after it.
                damage = damage or error
            else:
                keys += [key] if key is not None else []
        if damage is not None:
            raise damage
        return keys
