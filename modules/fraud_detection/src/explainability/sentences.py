"""The sentences that features are said in: each function here makes one of a feature's value and all values by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from modules.fraud_detection.src.explainability.phrases import count, number, percent, plural, span, text

Value = float | str | None
Values = Mapping[str, Value]
Say = Callable[[Value, Values], str]
Form = Callable[[float], str]

OUTCOME = "transaction of known outcome"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def amount(noun: str, usual: float | None = None, unfold: Callable[[float], float] = float) -> Say:
    """`The amount is 312.40 (overall average 53.10)`; `unfold` turns the feature into what it was made of."""

    def say(value: Value, _: Values) -> str:
        if _empty(value):
            return f"{noun} is not known"
        if isinstance(value, str):
            return f"{noun} is {text(value)}"
        return f"{noun} is {number(unfold(_float(value)))}" + _in_brackets(_average(usual, number))

    return say


def counted(who: str, thing: str, when: str, usual: float | None) -> Say:
    """`This customer had 12 transactions in the last 7 days (overall average 18.66)`."""

    def say(value: Value, _: Values) -> str:
        if _empty(value):
            return f"the number of {who}'s {plural(thing)} {when} is not known"
        return f"{who} had {count(_float(value), thing)} {when}" + _in_brackets(_average(usual, number))

    return say


def share(who: str, when: str, of: str, usual: float | None) -> Say:
    """`This terminal had 3 known frauds among 12 transactions of known outcome`; `of` is the feature that counts."""
    average = _average(usual, percent)

    def say(value: Value, values: Values) -> str:
        known = values.get(of)
        if known == 0:
            return f"{who} had {count(0, OUTCOME)} {when}"
        among = "" if _empty(known) else f" among {count(_float(known), OUTCOME)}"
        if _empty(value) or value == 0:
            # Without the number of outcomes, none known and none fraudulent look the same.
            return f"{who} had no known fraud{among} {when}" + _in_brackets(average)
        if not among:
            return f"of {who}'s {plural(OUTCOME)} {when} {percent(_float(value))} were fraud" + _in_brackets(average)
        frauds = count(round(_float(value) * _float(known)), "known fraud")
        return f"{who} had {frauds}{among} {when}" + _in_brackets(percent(_float(value)), average)

    return say


def gap(who: str, furthest: int) -> Say:
    """`This transaction came 12 minutes after this customer's previous one`; `furthest` seconds are looked back."""

    def say(value: Value, _: Values) -> str:
        if _empty(value):
            return f"{who} had no other transaction in the {span(furthest)} before"
        after = f"{span(_float(value))} after" if _float(value) >= 1 else "within a second of"
        return f"this transaction came {after} {who}'s previous one"

    return say


def moment(kind: str) -> Say:
    """`The transaction took place at night`, and what else its time says."""
    did: Mapping[str, Callable[[float], str]] = {
        "hour": lambda value: f"took place between {value:.0f}:00 and {value:.0f}:59",
        "weekday": lambda value: f"took place on a {WEEKDAYS[int(value)]}",
        "weekend": lambda value: "took place at the weekend" if value else "did not take place at the weekend",
        "night": lambda value: "took place at night" if value else "did not take place at night",
    }

    def say(value: Value, _: Values) -> str:
        return (
            "the time of the transaction is not known"
            if _empty(value)
            else f"the transaction {did[kind](_float(value))}"
        )

    return say


def compared(first: str, second: str, of: str, to: str, form: Form) -> Say:
    """`The amount, 312.40, is 5.2 times this customer's 30-day average`; `of` and `to` are the features compared."""

    def say(value: Value, values: Values) -> str:
        given, other = values.get(of), values.get(to)
        if _empty(value):
            if of in values and _empty(given):
                return f"{first} is not known"
            return f"{first} cannot be compared with {second}, which is {'0' if other == 0 else 'not known'}"
        named = first if _empty(given) else _with_value(first, number(_float(given)))
        return f"{named} is {form(_float(value))} {second}"

    return say


def _with_value(noun: str, value: str) -> str:
    """`amount 312.40`, but `this customer's largest amount in the last 7 days, 312.40,`."""
    return f"{noun.removeprefix('the ')} {value}" if noun.startswith("the ") else f"{noun}, {value},"


def _average(usual: float | None, form: Form) -> str:
    return "" if usual is None else f"overall average {form(usual)}"


def _in_brackets(*parts: str) -> str:
    said = ", ".join(part for part in parts if part)
    return f" ({said})" if said else ""


def _empty(value: Value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _float(value: Any) -> float:
    return float(value)
