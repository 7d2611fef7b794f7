"""Numbers, shares, times and names as a person writes them."""

import math
import re

from mlops.values import SECONDS, seconds

UNITS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def number(value: float) -> str:
    """Whole numbers as they are, others with two places, small ones with as many as say something."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def times(value: float) -> str:
    """How many times as much: with one place, without where it is much, with more where it is little."""
    if abs(value) >= 99.95:
        return f"{value:,.0f} times"
    return f"{value:.1f} times" if abs(value) >= 0.95 else f"{value:.2g} times"


def apart(value: float) -> str:
    """How far above or below."""
    return f"{number(abs(value))} {'above' if value > 0 else 'below'}" if value else "equal to"


def percent(value: float) -> str:
    """A share: whole per cents, below 10 with two digits."""
    return f"{100 * value:.0f}%" if abs(value) >= 0.0995 else f"{100 * value:.2g}%"


def count(value: float, noun: str) -> str:
    """So many of something: `no transactions`, `1 transaction`, `12 transactions`."""
    return f"{number(value) if value else 'no'} {noun if value == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a regular noun; what follows after ` of ` stays."""
    head, of, rest = noun.partition(" of ")
    if re.search("[^aeiou]y$", head):
        head = f"{head[:-1]}ies"
    else:
        head += "es" if re.search("(s|x|z|ch|sh)$", head) else "s"
    return head + of + rest


def span(value: float) -> str:
    """Seconds as a length of time, in the largest unit of which there are at least two."""
    unit = next((unit for unit in UNITS if value >= 2 * SECONDS[unit]), "s")
    return count(math.floor(value / SECONDS[unit]), UNITS[unit])


def length(text: str) -> str:
    """A length of time as configured, in words: `30 days`."""
    return count(int(text[:-1]), UNITS[text[-1]])


def adjective(text: str) -> str:
    """The same before a noun: `30-day`."""
    return f"{int(text[:-1])}-{UNITS[text[-1]]}"


def until(delay: str) -> str:
    """Where a window with a delay ends: ` until 7 days ago`; nothing without one."""
    return f" until {length(delay)} ago" if seconds(delay) else ""


def when(text: str, delay: str) -> str:
    """Where a window lies: `in the last 30 days`, `in the 30 days until 7 days ago`."""
    said = length(text).removeprefix("1 ")
    return f"in the {said}{until(delay)}" if seconds(delay) else f"in the last {said}"


def name(column: str) -> str:
    """A column's name as words: `billing_country` and `billingCountry` are the billing country."""
    apart = re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", column.replace("_", " ").replace("-", " "))
    return " ".join(apart.split()).lower() or column


def text(value: str) -> str:
    """A category's value, without what cannot be seen."""
    return "".join(one for one in value if one.isprintable()).strip() or "empty"
