"""The live engine: one scan over an entity's records answers every window of one row.

Counts, sums of whole millionths, extremes, numbers of different values and gaps do not depend on the order of records,
so records that come late, out of order or at one instant need no case of their own.
"""

import numpy as np
from numpy.typing import NDArray

from modules.fraud_detection.src.features.windows import SCALE, Floats, Ints
from modules.fraud_detection.src.utils.compiling import compiled

Bytes = NDArray[np.uint8]

TIME, OWNER, LENGTH, ID, VALUES = 0, 1, 2, 3, 11
"""Words of an event: its time, whose it is, its id's length and 64 bytes, then one word for each column."""
KNOWN_AT, COUNT, SUM, FACT = 2, 3, 4, 5
"""Words of a fact about a label: the event's time, whose it is, when it was known, what it adds, and its digest."""

WHOLE, DAMAGED = 0, 1


@compiled
def scan_events(
    words: Ints, floats: Floats, raw: Bytes, starts: Ints, owners: Ints, times: Ints, lengths_of_ids: Ints, ids: Bytes,
    columns: Ints, spans: Ints, delays: Ints, kinds: Ints, counts: Ints, totals: Ints, lows: Floats, highs: Floats,
    last: Ints, newest: Ints,
) -> int:  # fmt: skip
    """Fill, for every row and window, the count, total, smallest and largest of what the row sees of its entity's log.

    The records of row r are those from starts[r] on: `words` and `floats` (records, words) are two views of them, `raw`
    (records, bytes) a third. Window w is over word columns[w], is spans[w] microseconds long and ends delays[w] before
    the row; kinds[w] is 0 for numbers, 1 for codes, 2 for different codes (the count is theirs). `last` (rows,) becomes
    the time of the entity's row before, `newest` (rows,) that of its newest record. Returns `DAMAGED` when a record is
    another entity's.
    """
    windows = columns.size
    for row in range(times.size):
        start, end, time = starts[row], starts[row + 1], times[row]
        last[row] = newest[row] = np.iinfo(np.int64).min
        for record in range(start, end):
            if words[record, OWNER] != owners[row]:
                return DAMAGED
            at = words[record, TIME]
            newest[row] = max(newest[row], at)
            if at > time:
                continue
            # Below 0 the record stands before the row, at 0 it is the row, above 0 it comes after at the same instant.
            order = -1
            if at == time:
                order = _order(words[record, LENGTH], raw[record], lengths_of_ids[row], ids[row])
            if order < 0:
                last[row] = max(last[row], at)
            for window in range(windows):
                delay = delays[window]
                if at > time - delay or at <= time - delay - spans[window] or (order > 0 and delay == 0):
                    continue
                word = columns[window]
                if kinds[window] == 0:
                    value = floats[record, word]
                    if not np.isnan(value):
                        counts[window, row] += 1
                        totals[window, row] += np.int64(np.rint(value * SCALE))
                        if np.isnan(lows[window, row]) or value < lows[window, row]:
                            lows[window, row] = value
                        if np.isnan(highs[window, row]) or value > highs[window, row]:
                            highs[window, row] = value
                elif kinds[window] == 1 and words[record, word] != 0:
                    counts[window, row] += 1
        for window in range(windows):
            if kinds[window] == 2:
                counts[window, row] = _different(
                    words, raw, start, end, time, lengths_of_ids[row], ids[row], columns[window], spans[window],
                    delays[window],
                )  # fmt: skip
    return WHOLE


@compiled
def scan_facts(
    words: Ints, starts: Ints, owners: Ints, times: Ints, spans: Ints, delays: Ints, counts: Ints, totals: Ints
) -> int:
    """Fill, for every row and window, how many labels the row knows of its entity's past, and their sum.

    Counts and totals have shape (windows, rows). Returns `DAMAGED` when a record is another entity's.
    """
    for row in range(times.size):
        time = times[row]
        for record in range(starts[row], starts[row + 1]):
            if words[record, OWNER] != owners[row]:
                return DAMAGED
            at = words[record, TIME]
            if words[record, KNOWN_AT] > time:
                continue
            for window in range(spans.size):
                delay = delays[window]
                if at <= time - max(delay, 1) and at > time - delay - spans[window]:
                    counts[window, row] += words[record, COUNT]
                    totals[window, row] += words[record, SUM]
    return WHOLE


@compiled
def _order(length: int, record: Bytes, row_length: int, row_id: Bytes) -> int:
    """Compare the id of a record with a row's: shorter ones first, equally long ones by their letters."""
    if length != row_length:
        return 1 if length > row_length else -1
    for place in range(row_length):
        ours, theirs = record[8 * ID + place], row_id[place]
        if ours != theirs:
            return 1 if ours > theirs else -1
    return 0


@compiled
def _different(
    words: Ints, raw: Bytes, start: int, end: int, time: int, row_length: int, row_id: Bytes, word: int, span: int,
    delay: int,
) -> int:  # fmt: skip
    codes = np.empty(end - start, np.int64)
    found = 0
    for record in range(start, end):
        at = words[record, TIME]
        if at > time - delay or at <= time - delay - span or words[record, word] == 0:
            continue
        if delay == 0 and at == time and _order(words[record, LENGTH], raw[record], row_length, row_id) > 0:
            continue
        codes[found] = words[record, word]
        found += 1
    return np.unique(codes[:found]).size
