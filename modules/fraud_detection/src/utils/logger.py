"""The module's log: JSON lines in which no entity, card number or password of a URL can be read."""

import hashlib
import logging
import re
from collections.abc import Collection

from mlops import logs

NAME = "fraud_detection"
CARD = re.compile(r"(?<![0-9A-Fa-f.])(?:\d[ -]?){12,18}\d(?![0-9A-Fa-f.])")
PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")


def start(entities: Collection[str] = ()) -> logging.Logger:
    """Return the module's logger; the fields named in `entities` are written as a short hash."""
    logger = logs.start(NAME)
    logger.filters = [Mask(entities)]
    return logger


class Mask(logging.Filter):
    """Replaces entities by a hash that is the same for the same entity, and blackens card numbers and passwords."""

    def __init__(self, entities: Collection[str]) -> None:
        super().__init__()
        self._entities = frozenset(entities)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage()), ()
        for name, value in logs.extras(record).items():
            if name in self._entities:
                setattr(record, name, pseudonym(value))
            elif isinstance(value, str):
                setattr(record, name, masked(value))
        return True


def pseudonym(value: object) -> str:
    """A short hash in place of an entity, so that lines about one entity still belong together."""
    return f"#{hashlib.sha256(str(value).encode()).hexdigest()[:10]}"


def masked(text: str) -> str:
    """The text without card numbers (13 to 19 digits) and without the passwords of URLs."""
    return PASSWORD.sub(r"\1***@", CARD.sub("[card]", text))
