"""Whether policies allow a call, as IAM decides it: a denial counts first, and what nobody allows is denied."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Statement = Mapping[str, Any]


def statements(policies: Iterable[str]) -> list[Statement]:
    """The statements of policies as they are rendered."""
    return [one for text in policies for one in _list(json.loads(text)["Statement"])]


def allows(granted: Iterable[Statement], action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Tell whether a call is allowed; `context` is what IAM is told about it, by condition key."""
    fitting = [one["Effect"] for one in granted if _fits(one, action, resource, context or {})]
    return "Allow" in fitting and "Deny" not in fitting


def actions(granted: Iterable[Statement]) -> set[str]:
    """Every action that some statement allows."""
    return {action for one in granted if one["Effect"] == "Allow" for action in _list(one["Action"])}


def _fits(one: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in _list(one["Action"]))
        and any(_like(pattern, resource) for pattern in _list(one["Resource"]))
        and all(_met(test, wanted, context) for test, wanted in one.get("Condition", {}).items())
    )


def _met(test: str, wanted: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    for name, values in wanted.items():
        given = context.get(name)
        if test in ("StringEquals", "Bool", "ArnEquals"):
            met = given in _list(values)
        elif test == "ArnLike":
            met = given is not None and any(_like(pattern, given) for pattern in _list(values))
        else:
            raise AssertionError(f"what is {test}?")
        if not met:
            return False
    return True


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
