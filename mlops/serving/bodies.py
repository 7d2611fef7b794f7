"""What stands in the body of a request, read strictly; what is wrong is said by field and rule, and never by value."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from mlops.errors import Refused

LONGEST = 64
EARLIEST = datetime(1900, 1, 1)
NAME = Annotated[
    str,
    Meta(
        pattern=r"^[!-~]([ -~]{0,62}[!-~])?\Z",
        description=f"Printable ASCII, at most {LONGEST} characters, no space at either end.",
    ),
]
NUMBERED = Annotated[int, Meta(ge=0, le=2**63 - 1)]
NO_OBJECT = "the body is not one JSON object in UTF-8"
TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.(?:\d{3}|\d{6}))?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII
).fullmatch
WHERE = re.compile(r"`\$\.?([^`]*)`$")
MISSING = re.compile(r"required field `([^`]*)`")
NO_TIME = "is not a time such as 2026-01-31T12:00:00Z"
ORIGIN = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)


T = TypeVar("T")


def read(decode: Callable[[bytes | msgspec.Raw], T], body: bytes | msgspec.Raw, names: Sequence[str]) -> T:
    """Decode a body whose fields have these names. Raises `Refused`, which names the field."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise refused(str(error), names) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refused(NO_OBJECT, status=400) from None


def moment(text: str, field: str) -> int:
    """Read an ISO time as microseconds since 1970, in UTC unless it says otherwise. Raises `Refused`."""
    if TIME(text) is None:
        raise Refused(NO_TIME, field)
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise Refused(NO_TIME, field) from None
    return since_origin(at, field)


def since_origin(at: datetime, field: str) -> int:
    """A time without a zone as microseconds since 1970. Raises `Refused` where it is too early to be one."""
    if at < EARLIEST:
        raise Refused("lies before 1900", field)
    return (at - ORIGIN) // MICROSECOND


def refused(message: str, names: Sequence[str]) -> Refused:
    """Turn msgspec's message, which names a field or quotes an unknown one, into ours, which quotes nothing given."""
    if "unknown field" in message:
        return Refused(f"has a field that is not known; known are: {', '.join(names)}")
    if (missing := MISSING.search(message)) is not None:
        return Refused("is missing", missing[1])
    rule, _, _ = message.partition(" - at `$")
    where = WHERE.search(message)
    if where is None or where[1] not in names:
        return Refused("the body is not one JSON object")
    return Refused(_rule(rule), where[1])


def _rule(rule: str) -> str:
    if "matching regex" in rule:
        return f"is not printable ASCII of 1 to {LONGEST} characters"
    if rule == "Number out of range":
        return "is not a number in range"
    return rule[0].lower() + rule[1:].replace("`", "")
