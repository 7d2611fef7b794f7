"""Reasons in plain words: what a feature says of a transaction, and whether that raises or lowers the risk."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops.values import SECONDS
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features.declaration import Declaration, Row, Window, gap_name

Value = float | str | None
Say = Callable[[Value, Mapping[str, Value]], str]

UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


@dataclass(frozen=True)
class Reason:
    """One feature's part in one score: its value, what it adds to the log odds, and a sentence."""

    feature: str
    value: Value
    contribution: float
    text: str


class Words:
    """Knows how to say each feature of a declaration. `usual` gives the average of a feature over the training rows."""

    def __init__(self, declaration: Declaration, dataset: DataSet, usual: Mapping[str, float]) -> None:
        self._dataset, self._usual = dataset, usual
        self._nouns: dict[str, str] = {}
        self._say: dict[str, Say] = {}
        for window in declaration.windows:
            for length in window.lengths:
                for aggregate in window.aggregates:
                    self._name_window(window, aggregate, length)
        for entity in declaration.gaps:
            noun = f"the time since the last transaction of this {self._plain(entity)}"
            self._nouns[gap_name(entity)] = noun
            self._say[gap_name(entity)] = _say_amount(noun, _span)
        for row in declaration.rows:
            self._name_row(row)

    def reason(self, feature: str, values: Mapping[str, Value], contribution: float) -> Reason:
        """Say what a feature says, given the values of all features by name."""
        value = values[feature]
        said = self._say[feature](value, values)
        direction = "raises" if contribution > 0 else "lowers" if contribution < 0 else "does not change"
        return Reason(feature, value, contribution, f"{said[0].upper()}{said[1:]}: {direction} the risk")

    def _name_window(self, window: Window, aggregate: str, length: str) -> None:
        name, whose = window.name(aggregate, length), f"this {self._plain(window.entity)}"
        when = f"in {_length(length)}"
        if window.delay[:-1].strip("0"):
            when = f"in the {_length(length)} that ended {_length(window.delay)} ago"
        if window.of == self._dataset.label.column:
            noun = {
                "count": f"the number of transactions of {whose} {when} whose outcome is known",
                "sum": f"the number of known frauds of {whose} {when}",
                "share": f"the share of fraud among the known transactions of {whose} {when}",
            }[aggregate]
        else:
            noun = {
                "count": f"the number of transactions of {whose} {when}",
                "sum": f"the total {self._plain(window.of)} of {whose} {when}",
                "mean": f"the average {self._plain(window.of)} of {whose} {when}",
                "min": f"the smallest {self._plain(window.of)} of {whose} {when}",
                "max": f"the largest {self._plain(window.of)} of {whose} {when}",
                "distinct": f"the number of different {self._plain(window.of)}s of {whose} {when}",
            }[aggregate]
        self._nouns[name] = noun
        self._say[name] = self._compared(name, noun, _percent if aggregate == "share" else _number)

    def _name_row(self, row: Row) -> None:
        first = self._nouns.get(row.of, f"the {self._plain(row.of)}")
        second = self._nouns.get(row.to or "", f"the {self._plain(row.to or '')}")
        self._nouns[row.name] = first if row.kind == "column" else f"the {row.name.replace('_', ' ').lower()}"
        self._say[row.name] = {
            "column": self._compared(row.name, first, _number),
            "log": _say_log(first),
            "hour": _say_amount("the hour of the day", _number),
            "weekday": lambda value, _: f"the day is a {_weekday(value)}",
            "weekend": _say_flag("it took place at the weekend", "it did not take place at the weekend"),
            "night": _say_flag("it took place at night", "it did not take place at night"),
            "ratio": self._ratio(row, first, second),
            "difference": _say_difference(first, second),
        }[row.kind]

    def _compared(self, name: str, noun: str, form: Callable[[float], str]) -> Say:
        def say(value: Value, _: Mapping[str, Value]) -> str:
            if _empty(value):
                return f"{noun} is not known"
            if isinstance(value, str):
                return f"{noun} is {value}"
            usual = self._usual.get(name)
            return f"{noun} is {form(_float(value))}" + (f", on average {form(usual)}" if usual is not None else "")

        return say

    def _ratio(self, row: Row, first: str, second: str) -> Say:
        def say(value: Value, values: Mapping[str, Value]) -> str:
            if _empty(value):
                return f"{first} cannot be compared with {second}, which is not known"
            given = values.get(row.of)
            named = f"{first} {_number(given)}" if isinstance(given, float) and not _empty(given) else first
            return f"{named} is {_number(_float(value))} times {second}"

        return say

    def _plain(self, column: str) -> str:
        """A column in plain words: the amount and the label by the part they play, an entity without its `id`."""
        if column == self._dataset.amount:
            return "amount"
        words = column.replace("_", " ").lower().split()
        if column in self._dataset.entities and len(words) > 1 and words[-1] == "id":
            words = words[:-1]
        return " ".join(words)


def strongest(contributions: Sequence[float], top: int) -> list[int]:
    """The places of the `top` contributions that move the score most, strongest first."""
    return sorted(range(len(contributions)), key=lambda place: -abs(contributions[place]))[:top]


def _say_amount(noun: str, form: Callable[[float], str]) -> Say:
    return lambda value, _: f"{noun} is not known" if _empty(value) else f"{noun} is {form(_float(value))}"


def _say_log(noun: str) -> Say:
    return lambda value, _: (
        f"{noun} is not known" if _empty(value) else f"{noun} is {_number(math.expm1(_float(value)))}"
    )


def _say_flag(yes: str, no: str) -> Say:
    return lambda value, _: yes if value == 1 else no


def _say_difference(first: str, second: str) -> Say:
    def say(value: Value, _: Mapping[str, Value]) -> str:
        if _empty(value):
            return f"{first} cannot be compared with {second}, which is not known"
        where = "above" if _float(value) >= 0 else "below"
        return f"{first} is {_number(abs(_float(value)))} {where} {second}"

    return say


def _empty(value: Value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _float(value: Any) -> float:
    return float(value)


def _number(value: float) -> str:
    """Whole numbers as they are, amounts with two places, small ones with as many as say something."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _span(value: float) -> str:
    for unit in ("d", "h", "m"):
        if value >= 2 * SECONDS[unit]:
            return f"{value / SECONDS[unit]:,.0f} {UNITS[unit]}s"
    return f"{value:,.0f} seconds"


def _length(length: str) -> str:
    number, unit = int(length[:-1]), UNITS[length[-1]]
    return f"{number} {unit}" + ("s" if number != 1 else "")


def _weekday(value: Value) -> str:
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[int(_float(value))]
