"""What a module gives so that its decisions can be served: a predictor that reads, decides, explains and learns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from mlops.traffic import Traffic

Json = Mapping[str, Any]


class Request(NamedTuple):
    """One thing to decide: its key, the digest of all that was asked, and the cleaned values by name."""

    key: str
    digest: str
    row: Mapping[str, Any]


class Answer(NamedTuple):
    """What is said of a request, the numbers that the model saw in their order, and whether its past was incomplete."""

    said: Json
    seen: Sequence[float | str | None]
    degraded: bool


class Stamp(msgspec.Struct, frozen=True):
    """Which version of which model decided, on which arm, and under which configuration."""

    name: str
    version: int
    arm: str
    hash: str
    configuration: str


class Record(msgspec.Struct, frozen=True):
    """A decision as the journal keeps it: enough to say it again, and to explain it, without anything else.

    `took` is microseconds from the arrival of the request to the entry; `instead_of` is the version that was to decide
    and failed.
    """

    key: str
    digest: str
    row: Json
    seen: Sequence[float | str | None]
    said: Json
    model: Stamp
    took: int
    degraded: bool
    instead_of: int | None = None


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A label as the journal keeps it: what the truth about a decision turned out to be, known from `known_at` on.

    `label` is 1 for what the model warns of, else 0; `truth` is all of it in a module's own words, where the label is
    not. `known_at` is microseconds since 1970.
    """

    key: str
    label: int
    known_at: int
    truth: str | None = None


class Told(NamedTuple):
    """The truth about a decision as somebody tells it; where no time is given it is known from now on.

    A `label` that depends on what was decided is a function of the record.
    """

    key: str
    label: int | Callable[[Record], int]
    known_at: int | None
    truth: str | None = None


class Explanation(msgspec.Struct, frozen=True):
    """Why a score is what it is: base value and contributions add up to the margin, in log odds."""

    base_value: float
    contributions: list[dict[str, Any]]
    margin: float


@dataclass(frozen=True)
class Labelled:
    """A decision's row and the labels that became known of it, in the order of the journal: (known at, label)."""

    row: Mapping[str, Any]
    facts: Sequence[tuple[int, int]]


class Router(Protocol):
    """Tells which arm of the traffic decides a row: one of `mlops.traffic`'s, the same for the same row and traffic."""

    def arm(self, traffic: Traffic, row: Mapping[str, Any]) -> str: ...


class Predictor(Protocol):
    """A version of a model, awake."""

    @property
    def past(self) -> str:
        """Name the past that is remembered; predictors of one name share it."""

    @property
    def names(self) -> Sequence[str]:
        """Name what the model sees, in order."""

    def read(self, body: bytes | msgspec.Raw, now: int) -> Request:
        """Read a request. Raises `Refused`, which names the field."""

    async def predict(self, requests: Sequence[Request], keep: bool = True) -> list[Answer]:
        """Decide requests in order, each with the ones before it in its past; without `keep` they leave no trace."""

    async def forget(self, requests: Sequence[Request]) -> None:
        """Take requests out of the past again, because they were not decided after all."""

    async def learn(self, labelled: Labelled) -> None:
        """Count the last of the facts from when it was known."""

    async def restore(self, decided: Sequence[Mapping[str, Any]]) -> None:
        """Make sure that decided rows are in the past."""

    async def catch_up(self) -> None:
        """Take into the past what the journal got while another past was used."""

    def happened(self, row: Mapping[str, Any]) -> int:
        """When that which a row tells of happened, in microseconds since 1970."""

    def explain(self, seen: Sequence[float | str | None], top: int | None = None) -> Explanation:
        """Explain what was seen; the strongest `top` contributions, or all."""
