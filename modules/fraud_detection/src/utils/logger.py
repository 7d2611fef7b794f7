"""The module's log: JSON lines in which no entity, card number or password of a URL can be read."""

import hashlib
import logging
import re
from collections.abc import Collection
from typing import Any

from mlops import logs

NAME = "fraud_detection"
GAP = r"[ -]{1,2}"
CARD = re.compile(
    rf"(?<![\d.])(?:[2-6]\d{{12,18}}|[2-6]\d{{3}}(?:{GAP}\d{{4}}){{2}}{GAP}\d{{1,7}}|3\d{{3}}{GAP}\d{{6}}{GAP}\d{{5}})(?!\d)"
)
HASH = re.compile(r"[0-9A-Fa-f]{32,}")
PASSWORD = re.compile(r"(://[^:/@\s]*:)[^/\s]*@")


def start(entities: Collection[str] = ()) -> logging.Logger:
    """Return the module's logger; the fields named in `entities` are written as a short hash."""
    logger = logs.start(NAME)
    logger.filters = [Mask(entities)]
    return logger


def start_all(entities: Collection[str] = ()) -> None:
    """Let all that this process says be such lines: the module's own, the core's and those of libraries."""
    logs.start("", mask=Mask(entities))
    start(entities)


def stop_all() -> None:
    """Let this process say what it says as it did before."""
    logs.stop("")


class Lines:
    """What a process of this module says, as lines of its log, from its start to its stop."""

    def __init__(self, entities: Collection[str]) -> None:
        self._entities = entities

    def start(self) -> None:
        """Let all that this process says be such lines."""
        start_all(self._entities)

    def stop(self) -> None:
        """Let it say what it says as it did before."""
        stop_all()

    def masked(self, text: str) -> str:
        """What may be said to others of a text."""
        return masked(text)


class Mask(logging.Filter):
    """Replaces entities by a hash that is the same for the same entity, and blackens card numbers and passwords."""

    def __init__(self, entities: Collection[str]) -> None:
        super().__init__()
        self._entities = frozenset(entities)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage()), ()
        # What is known of the request is laid under what the caller added, so that it is masked as well.
        for name, value in {**logs.known(), **logs.extras(record)}.items():
            setattr(record, name, pseudonym(value) if name in self._entities else self._inside(value))
        if record.exc_info:
            record.exc_text = masked(logging.Formatter().formatException(record.exc_info))
        return True

    def _inside(self, value: Any) -> Any:
        """Mask texts and numbers wherever they stand in lists and mappings."""
        if isinstance(value, dict):
            return {
                key: pseudonym(inner) if key in self._entities else self._inside(inner) for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._inside(inner) for inner in value]
        if isinstance(value, str) or type(value) is int:
            text = masked(str(value))
            return value if text == str(value) else text
        return value


def pseudonym(value: object) -> str:
    """A short hash in place of an entity, so that lines about one entity still belong together."""
    return f"#{hashlib.sha256(str(value).encode()).hexdigest()[:10]}"


def masked(text: str) -> str:
    """The text without card numbers and without the passwords of URLs.

    A card number has 13 to 19 digits, plain or in the groups printed on cards, begins as cards do, and passes the Luhn
    check of its last digit (ISO/IEC 7812-1). Long hexadecimal hashes are left alone.
    """
    hashes = [found.span() for found in HASH.finditer(text)]

    def blackened(found: re.Match[str]) -> str:
        in_hash = any(start <= found.start() and found.end() <= end for start, end in hashes)
        return found[0] if in_hash or not _is_card(found[0]) else "[card]"

    return PASSWORD.sub(r"\1***@", CARD.sub(blackened, text))


def _is_card(text: str) -> bool:
    digits = [int(digit) for digit in text if digit.isdecimal()][::-1]
    doubled = [2 * digit - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0
