"""What a request may hold: one transaction as JSON, read against the same limits and steps as a row of a table."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mlops.errors import Refused
from mlops.serving import bodies
from mlops.serving.bodies import LONGEST, NAME, NUMBERED, moment, since_origin
from mlops.values import seconds
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.validation.limits import LARGEST, Limit, Validation, may_be_null
from modules.fraud_detection.src.validation.transform import VALUE_STEPS, Step

Row = dict[str, Any]

CATEGORY = Annotated[str, Meta(max_length=LONGEST)]


class Requests:
    """Reads transactions of one data set."""

    def __init__(self, dataset: DataSet, rules: Validation, steps: Sequence[Step]) -> None:
        self._dataset, self._rules = dataset, rules
        self._names = [name for name in [dataset.id_column, *dataset.columns] if name not in _label_columns(dataset)]
        self._names = list(dict.fromkeys(self._names))
        self.type = msgspec.defstruct(
            "Transaction",
            [self._field(place, name) for place, name in enumerate(self._names)],
            rename={f"f{place}": name for place, name in enumerate(self._names)},
            forbid_unknown_fields=True,
        )
        self._decode = msgspec.json.Decoder(self.type).decode
        self._finish = [(name, self._finisher(name, steps)) for name in self._names]
        self._skew = seconds(rules.clock_skew) * 1_000_000

    def read(self, body: bytes | msgspec.Raw, now: int) -> Row:
        """Read one transaction: a value for each column, ids and entities as text, the time in microseconds since 1970.

        `now` is microseconds since 1970. Raises `Refused`, which names the field and the rule and never the value.
        """
        given = bodies.read(self._decode, body, self._names)
        values = msgspec.structs.astuple(given)
        row = {name: finish(value) for (name, finish), value in zip(self._finish, values, strict=True)}
        if row[self._dataset.time.column] > now + self._skew:
            raise Refused("lies in the future", self._dataset.time.column)
        return row

    def _field(self, place: int, name: str) -> tuple[str, Any, Any] | tuple[str, Any]:
        kind: Any = self._kind(name)
        if may_be_null(name, self._dataset, self._rules) and name != self._dataset.id_column:
            return f"f{place}", kind | None, None
        return f"f{place}", kind

    def _kind(self, name: str) -> Any:
        limit = self._rules.limits.get(name, Limit())
        if name == self._dataset.time.column:
            return float if self._dataset.time.unit is not None else str
        if name in self._dataset.numbers:
            low, high = -LARGEST if limit.min is None else limit.min, LARGEST if limit.max is None else limit.max
            return Annotated[float, Meta(ge=low, le=high)]
        if name in self._dataset.categorical:
            return CATEGORY | NUMBERED
        return NAME | NUMBERED

    def _finisher(self, name: str, steps: Sequence[Step]) -> Callable[[Any], Any]:
        if name == self._dataset.time.column:
            return self._time
        number = name in self._dataset.numbers
        fitting = [VALUE_STEPS[step.do] for step in steps if not step.columns or name in step.columns]
        chosen = [run for for_number, run in fitting if for_number == number]
        limit = self._rules.limits.get(name, Limit())
        allowed = None if number or limit.values is None else frozenset(limit.values)

        def text(value: str | int | None) -> str | None:
            if value is None:
                return None
            cleaned: str | None = str(value)
            if allowed is not None and cleaned not in allowed:
                raise Refused("is not one of the allowed values", name)
            for run in chosen:
                cleaned = None if cleaned is None else run(cleaned)
            return cleaned

        def cleaned_number(value: float | None) -> float | None:
            for run in chosen:
                value = None if value is None else run(value)
            return value

        if number:
            return cleaned_number if chosen else _same
        return text

    def _time(self, value: str | float) -> int:
        name, time = self._dataset.time.column, self._dataset.time
        if isinstance(value, str):
            return moment(value, name)
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1}[time.unit or "us"]
        try:
            return since_origin(time.origin + timedelta(microseconds=round(value * scale)), name)
        except OverflowError:
            raise Refused("is out of range", name) from None


def _same(value: Any) -> Any:
    return value


def _label_columns(dataset: DataSet) -> set[str | None]:
    return {dataset.label.column, dataset.label.known_at}
