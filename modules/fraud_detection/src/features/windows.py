"""The batch engine: sliding windows over an entity's rows in one compiled pass, linear in the number of rows.

Values are summed as whole millionths. Whole numbers add up to the same total in any order, so that this engine and one
that adds and takes away row by row agree to the last bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.fraud_detection.src.utils.compiling import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SCALE = 1_000_000


@dataclass(frozen=True)
class Past:
    """The rows of one entity column, those of one entity together, each in the order of time and id.

    `bounds` (entities + 1,) are the first rows of each entity and the end; `times` (rows,) are microseconds.
    """

    bounds: Ints
    times: Ints


def fixed(values: Floats) -> Ints:
    """Turn numbers into whole millionths; NaN becomes 0. Values lie within ±1e9, as validation demands."""
    return np.rint(np.nan_to_num(values) * SCALE).astype(np.int64)


def group(codes: Ints) -> tuple[Ints, Ints]:
    """Bring equal codes together, each group in the order it had: the bounds of the groups, and the order (rows,)."""
    bounds, order = _group(codes, int(codes.max(initial=-1)) + 1)
    return bounds, order


def gaps(past: Past, reach: int) -> Floats:
    """Return the seconds since the row before of the same entity; NaN where none is within `reach`. Shape (rows,)."""
    seconds = np.diff(past.times, prepend=0) / 1_000_000
    seconds[past.bounds[:-1][past.bounds[:-1] < past.times.size]] = np.nan
    seconds[seconds >= reach] = np.nan
    return seconds


def totals(past: Past, values: Ints, present: Flags, length: int, delay: int) -> tuple[Ints, Ints]:
    """Count and sum the present values in each row's window; `length` and `delay` are microseconds. Shapes (rows,)."""
    count, total = _totals(past.bounds, past.times, values, present, length, delay)
    return count, total


def largest(past: Past, values: Floats, present: Flags, length: int, delay: int) -> Floats:
    """Return the largest present value in each row's window, NaN where there is none. Shape (rows,)."""
    found: Floats = _largest(past.bounds, past.times, values, present, length, delay)
    return found


def distinct(past: Past, codes: Ints, length: int, delay: int) -> Ints:
    """Count the different codes in each row's window; a code below 0 is empty and not counted. Shape (rows,)."""
    counts: Ints = _distinct(past.bounds, past.times, codes, int(codes.max(initial=-1)) + 1, length, delay)
    return counts


def entering_order(past: Past, enters: Ints) -> Ints:
    """Order each entity's rows by when their label may first be counted. Shape (rows,)."""
    later = np.diff(enters, prepend=enters[:1]) >= 0
    later[past.bounds[:-1][past.bounds[:-1] < enters.size]] = True
    if later.all():
        return np.arange(enters.size)
    entity = np.repeat(np.arange(past.bounds.size - 1), np.diff(past.bounds))
    return np.lexsort((enters, entity))


def known_totals(past: Past, labels: Ints, enters: Ints, order: Ints, length: int, delay: int) -> tuple[Ints, Ints]:
    """Count and sum the labels in each row's window that are known by the row's time.

    `enters` (rows,) is when a label may be counted for the first time: it is known, the delay is over, and its own row
    is past; a label that is never known enters beyond every time. `order` is the `entering_order`.
    """
    count, total = _known_totals(past.bounds, past.times, labels, enters, order, length + delay)
    return count, total


@compiled
def _group(codes: Ints, kinds: int) -> tuple[Ints, Ints]:
    bounds = np.zeros(kinds + 1, np.int64)
    for code in codes:
        bounds[code + 1] += 1
    for kind in range(kinds):
        bounds[kind + 1] += bounds[kind]
    place, order = bounds[:-1].copy(), np.empty(codes.size, np.int64)
    for row in range(codes.size):
        order[place[codes[row]]] = row
        place[codes[row]] += 1
    return bounds, order


@compiled
def _totals(bounds: Ints, times: Ints, values: Ints, present: Flags, length: int, delay: int) -> tuple[Ints, Ints]:
    counts, totals = np.zeros(times.size, np.int64), np.zeros(times.size, np.int64)
    for entity in range(bounds.size - 1):
        start, end = bounds[entity], bounds[entity + 1]
        low = high = start
        count = total = 0
        for row in range(start, end):
            time = times[row]
            while high < end and (high <= row if delay == 0 else times[high] <= time - delay):
                if present[high]:
                    count += 1
                    total += values[high]
                high += 1
            while low < high and times[low] <= time - delay - length:
                if present[low]:
                    count -= 1
                    total -= values[low]
                low += 1
            counts[row], totals[row] = count, total
    return counts, totals


@compiled
def _largest(bounds: Ints, times: Ints, values: Floats, present: Flags, length: int, delay: int) -> Floats:
    found = np.full(times.size, np.nan)
    # Candidates for the maximum, oldest first: each is larger than all that follow it.
    candidates = np.empty(times.size, np.int64)
    for entity in range(bounds.size - 1):
        start, end = bounds[entity], bounds[entity + 1]
        high, first, last = start, 0, 0
        for row in range(start, end):
            time = times[row]
            while high < end and (high <= row if delay == 0 else times[high] <= time - delay):
                if present[high]:
                    while last > first and values[candidates[last - 1]] <= values[high]:
                        last -= 1
                    candidates[last] = high
                    last += 1
                high += 1
            while last > first and times[candidates[first]] <= time - delay - length:
                first += 1
            if last > first:
                found[row] = values[candidates[first]]
    return found


@compiled
def _distinct(bounds: Ints, times: Ints, codes: Ints, kinds: int, length: int, delay: int) -> Ints:
    different, inside = np.zeros(times.size, np.int64), np.zeros(kinds, np.int64)
    for entity in range(bounds.size - 1):
        start, end = bounds[entity], bounds[entity + 1]
        low = high = start
        count = 0
        for row in range(start, end):
            time = times[row]
            while high < end and (high <= row if delay == 0 else times[high] <= time - delay):
                code = codes[high]
                if code >= 0:
                    count += inside[code] == 0
                    inside[code] += 1
                high += 1
            while low < high and times[low] <= time - delay - length:
                code = codes[low]
                if code >= 0:
                    inside[code] -= 1
                    count -= inside[code] == 0
                low += 1
            different[row] = count
        for row in range(low, high):
            if codes[row] >= 0:
                inside[codes[row]] = 0
    return different


@compiled
def _known_totals(bounds: Ints, times: Ints, labels: Ints, enters: Ints, order: Ints, reach: int) -> tuple[Ints, Ints]:
    counts, totals = np.zeros(times.size, np.int64), np.zeros(times.size, np.int64)
    for entity in range(bounds.size - 1):
        start, end = bounds[entity], bounds[entity + 1]
        entering = leaving = start
        count = total = 0
        for row in range(start, end):
            time = times[row]
            while entering < end and enters[order[entering]] <= time:
                known = order[entering]
                # A label that becomes known only after its row has left the window is never counted.
                if enters[known] < times[known] + reach:
                    count += 1
                    total += labels[known]
                entering += 1
            while leaving < end and times[leaving] + reach <= time:
                if enters[leaving] < times[leaving] + reach:
                    count -= 1
                    total -= labels[leaving]
                leaving += 1
            counts[row], totals[row] = count, total
    return counts, totals
