"""The live engine: one scan over an entity's records answers every window of one row.

Counts, sums of whole millionths, extremes, numbers of different values and gaps do not depend on the order of records,
so records that come late, out of order or at one instant need no case of their own.
"""

import math

import numpy as np
from numpy.typing import NDArray

from modules.fraud_detection.src.features.windows import SCALE, Floats, Ints
from modules.fraud_detection.src.utils.compiling import compiled

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

TIME, OWNER, LENGTH, ID, VALUES = 0, 1, 2, 3, 11
"""Words of an event: its time, whose it is, its id's letters and 64 bytes, then one word for each column."""
KNOWN_AT, COUNT, SUM, FACT = 2, 3, 4, 5
"""Words of a fact about a label: the event's time, whose it is, when it was known, what it adds, and its digest."""
COUNTED, SUMMED, MEAN, LEAST, MOST, DIFFERENT, SHARE = range(7)
NUMBER, CODE = 0, 1
COPY, LOG, HOUR, WEEKDAY, WEEKEND, NIGHT, RATIO, DIFFERENCE = range(8)

HOUR_LONG = 3_600_000_000
DAY_LONG = 24 * HOUR_LONG
THURSDAY = 3
"""The weekday of the first of January 1970."""
LAST_HOUR_OF_NIGHT = 6
NEVER = np.iinfo(np.int64).min


@compiled
def scan_events(
    words: Ints, starts: Ints, own: Ints, views: Ints, said: Ints, reach: int, gap: int, late: int, made: Floats,
    cut: Flags,
) -> bool:  # fmt: skip
    """Fill what windows over values say of rows; return False when a record is another entity's.

    `words` (records, words) holds the logs one after the other, that of row r from starts[r] on, `own` (rows, words)
    the rows' own records. A line of `views` is the word that a window is over, NUMBER or CODE, its length and its
    delay in microseconds; a line of `said` is a view, an aggregate, and the column of `made` (rows, features) that it
    goes to. `gap` is the column of the time since the entity's row before, or below 0. `cut` (rows,) is set where a
    row comes later behind the newest record than `late`.
    """
    floats, raw, own_raw = words.view(np.float64), words.view(np.uint8), own.view(np.uint8)
    count = views.shape[0]
    counts, totals = np.empty(count, np.int64), np.empty(count, np.int64)
    lows, highs = np.empty(count), np.empty(count)
    for row in range(own.shape[0]):
        counts[:], totals[:], lows[:], highs[:] = 0, 0, np.nan, np.nan
        time, last, newest = own[row, TIME], NEVER, NEVER
        for record in range(starts[row], starts[row + 1]):
            if words[record, OWNER] != own[row, OWNER]:
                return False
            at = words[record, TIME]
            newest = max(newest, at)
            if at > time:
                continue
            # Below 0 the record stands before the row, at 0 it is the row, above 0 it comes after at the same instant.
            order = -1 if at < time else _order(words[record], raw[record], own[row], own_raw[row])
            if order < 0:
                last = max(last, at)
            for view in range(count):
                delay = views[view, 3]
                if at > time - delay or at <= time - delay - views[view, 2] or (order > 0 and delay == 0):
                    continue
                word = views[view, 0]
                if views[view, 1] == CODE:
                    counts[view] += words[record, word] != 0
                    continue
                value = floats[record, word]
                if not np.isnan(value):
                    counts[view] += 1
                    totals[view] += np.int64(np.rint(value * SCALE))
                    if not value >= lows[view]:
                        lows[view] = value
                    if not value <= highs[view]:
                        highs[view] = value
        for line in range(said.shape[0]):
            view, aggregate = said[line, 0], said[line, 1]
            if aggregate == COUNTED:
                found = float(counts[view])
            elif aggregate == SUMMED:
                found = totals[view] / SCALE
            elif aggregate == MEAN:
                found = totals[view] / SCALE / counts[view] if counts[view] > 0 else np.nan
            elif aggregate == LEAST:
                found = lows[view]
            elif aggregate == MOST:
                found = highs[view]
            else:
                found = _different(words, raw, starts[row], starts[row + 1], own[row], own_raw[row], views[view])
            made[row, said[line, 2]] = found
        if gap >= 0:
            near = last != NEVER and time - last < reach
            made[row, gap] = (time - last) / 1_000_000 if near else np.nan
        cut[row] |= newest != NEVER and time < newest - late
    return True


@compiled
def scan_facts(
    words: Ints, starts: Ints, own: Ints, views: Ints, said: Ints, late: int, made: Floats, cut: Flags
) -> bool:
    """Fill what windows over the label say of rows; the arrays are those of `scan_events`."""
    count = views.shape[0]
    counts, totals = np.empty(count, np.int64), np.empty(count, np.int64)
    for row in range(own.shape[0]):
        counts[:], totals[:] = 0, 0
        time, newest = own[row, TIME], NEVER
        for record in range(starts[row], starts[row + 1]):
            if words[record, OWNER] != own[row, OWNER]:
                return False
            at = words[record, TIME]
            newest = max(newest, at)
            if words[record, KNOWN_AT] > time:
                continue
            for view in range(count):
                delay = views[view, 3]
                if at <= time - max(delay, 1) and at > time - delay - views[view, 2]:
                    counts[view] += words[record, COUNT]
                    totals[view] += words[record, SUM]
        for line in range(said.shape[0]):
            view, aggregate = said[line, 0], said[line, 1]
            if aggregate == COUNTED:
                found = float(counts[view])
            elif aggregate == SUMMED:
                found = float(totals[view])
            else:
                found = totals[view] / max(counts[view], 1)
            made[row, said[line, 2]] = found
        cut[row] |= newest != NEVER and time < newest - late
    return True


@compiled
def fill_rows(times: Ints, columns: Floats, declared: Ints, made: Floats) -> None:
    """Fill the features of rows alone and of features before them, in order.

    A line of `declared` is a kind, two sources and a column of `made`. A source is a column of `made`, or, from -1
    down, of `columns` (rows, columns), the rows' own numbers.
    """
    for row in range(made.shape[0]):
        hour = times[row] // HOUR_LONG % 24
        weekday = (times[row] // DAY_LONG + THURSDAY) % 7
        for line in range(declared.shape[0]):
            kind, of, to = declared[line, 0], declared[line, 1], declared[line, 2]
            value = made[row, of] if of >= 0 else columns[row, -1 - of]
            other = made[row, to] if to >= 0 else columns[row, -1 - to]
            if kind == LOG:
                value = math.log1p(value) if value > -1 else np.nan
            elif kind == HOUR:
                value = float(hour)
            elif kind == WEEKDAY:
                value = float(weekday)
            elif kind == WEEKEND:
                value = 1.0 if weekday >= 5 else 0.0
            elif kind == NIGHT:
                value = 1.0 if hour <= LAST_HOUR_OF_NIGHT else 0.0
            elif kind == RATIO:
                value = value / other if other != 0 else np.nan
            elif kind == DIFFERENCE:
                value = value - other
            made[row, declared[line, 3]] = value


@compiled
def _order(record: Ints, record_raw: Bytes, row: Ints, row_raw: Bytes) -> int:
    """Compare the id of a record with a row's: shorter ones first, equally long ones by their letters."""
    if record[LENGTH] != row[LENGTH]:
        return 1 if record[LENGTH] > row[LENGTH] else -1
    for place in range(8 * ID, 8 * VALUES):
        if record_raw[place] != row_raw[place]:
            return 1 if record_raw[place] > row_raw[place] else -1
    return 0


@compiled
def _different(words: Ints, raw: Bytes, start: int, end: int, own: Ints, own_raw: Bytes, view: Ints) -> float:
    codes = np.empty(end - start, np.int64)
    found, time, word, span, delay = 0, own[TIME], view[0], view[2], view[3]
    for record in range(start, end):
        at = words[record, TIME]
        if at > time - delay or at <= time - delay - span or words[record, word] == 0:
            continue
        if delay == 0 and at == time and _order(words[record], raw[record], own, own_raw) > 0:
            continue
        codes[found] = words[record, word]
        found += 1
    return float(np.unique(codes[:found]).size)
