"""Alerts: what somebody should look at, and how it is told to people and to machines, and read again."""

import numbers
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import msgspec
from msgspec.structs import replace
from pydantic import Field

from mlops.alerting.messages import Letter
from mlops.errors import BadData
from mlops.values import Group

ROOM = 100_000
"""Bytes of alerts in one message; topics and queues take 256 KiB, and what wraps a message makes it longer."""
NAMED = 10
"""Things that the first line of a gathered message names."""


class Alerting(Group):
    """Who is told, and how calm it must be."""

    sinks: tuple[str, ...] = Field(
        ("log://",),
        description="Where alerts go: any of log://, sns://TOPIC_ARN, sqs://QUEUE_NAME or ARN, cloudwatch://NAMESPACE.",
    )
    inbox: str = Field(
        "ledger://", description="Where a worker hears alerts: ledger://, sqs://QUEUE_NAME or sqs://QUEUE_ARN."
    )
    calm: int = Field(3, ge=1, description="So many looks in a row that find nothing end an alert.")
    most_per_hour: int = Field(
        20, ge=1, description="Single messages to one sink in an hour; what goes beyond is gathered into one."
    )


class Alert(msgspec.Struct, frozen=True):
    """The beginning or the end of an episode: `what` of a module is as `title` says; `at` is microseconds UTC.

    `id` (32 hexadecimal digits) is this alert's alone: who gets it twice may drop the second. `values` are the numbers
    behind it, `link` leads to a report or is empty, `version` is the model's.
    """

    name: str
    kind: str
    what: str
    state: Literal["raised", "cleared"]
    title: str
    values: Mapping[str, Any]
    link: str
    version: int | None
    episode: int
    id: str
    at: int


def _plain(value: object) -> object:
    # The numbers of arrays are numbers too, and an alert must not fail because of one.
    return float(value) if isinstance(value, numbers.Real) else str(value)


encode = msgspec.json.Encoder(enc_hook=_plain).encode
decode = msgspec.json.Decoder(Alert).decode
decode_all = msgspec.json.Decoder(list[Alert]).decode


def letter(alerts: Sequence[Alert]) -> Letter:
    """Write alerts of one module as a message: a line for people, and a JSON list of them.

    Their values are left out where there is no room for them.
    """
    first = alerts[0]
    if len(alerts) == 1:
        line = f"{first.name}: {first.kind} '{first.what}' {first.state}: {first.title}"
    else:
        states = Counter(alert.state for alert in alerts)
        line = f"{first.name}: {states['raised']} alerts raised and {states['cleared']} cleared: {_named(alerts)}"
    body = encode(alerts)
    if len(body) > ROOM:
        body = encode([_short(alert) for alert in alerts])
    fields = ("name", "kind", "state")
    attributes = {field: sorted({str(getattr(alert, field)) for alert in alerts}) for field in fields}
    return Letter(line, msgspec.json.format(body, indent=2).decode(), attributes)


def read(text: str) -> list[Alert]:
    """Read the alerts of a message again. Raises `BadData` where it is none of ours."""
    try:
        alerts = decode_all(text.partition("\n\n")[2])
        right = bool(alerts) and all(len(bytes.fromhex(alert.id)) == 16 for alert in alerts)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadData(f"this is no message of alerts: {error}") from None
    if not right:
        raise BadData("this is no message of alerts: it holds none, or one whose id is not 32 hexadecimal digits")
    return alerts


def fitting(alerts: Sequence[Alert]) -> list[Alert]:
    """As many of them, from the first on, as one message takes without their values."""
    sizes = accumulate(len(encode(_short(alert))) for alert in alerts)
    return [alert for alert, size in zip(alerts, sizes, strict=True) if size <= ROOM]


def _named(alerts: Sequence[Alert]) -> str:
    things = Counter(f"{alert.kind} '{alert.what}'" for alert in alerts)
    named = ", ".join(f"{thing} ({count})" for thing, count in things.most_common(NAMED))
    return named + (f" and {len(things) - NAMED} more" if len(things) > NAMED else "")


def _short(alert: Alert) -> Alert:
    return replace(alert, values={})
