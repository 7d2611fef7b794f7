"""Every error that the platform raises on purpose, as one tree.

MlopsError
├── BadInput            what the caller gave cannot be used; it says what and how to mend it
│   ├── BadConfiguration    a setting is missing, unknown or out of its range
│   ├── BadData             a table, column or row is not what its description says
│   └── Refused             a request cannot be answered; it names the field and never the value
├── NotFound            the thing asked for does not exist
├── Damaged             stored bytes are not the bytes that were written
└── StorageFailed       bytes could not be read or written
    ├── OutOfSpace          the disk is full
    └── Unreachable         the store does not answer
"""


class MlopsError(Exception):
    """A failure with one line for the person who has to act on it."""


class BadInput(MlopsError):
    """What the caller gave cannot be used."""


class BadConfiguration(BadInput):
    """A setting is missing, unknown or out of its range."""


class BadData(BadInput):
    """A table, column or row is not what its description says."""


class Refused(BadInput):
    """A request cannot be answered: what is wrong with it, in which field, and the HTTP status that says so."""

    def __init__(self, reason: str, field: str | None = None, status: int = 422) -> None:
        super().__init__(f"'{field}': {reason}" if field else reason)
        self.reason, self.field, self.status = reason, field, status


class NotFound(MlopsError):
    """The thing asked for does not exist."""


class Damaged(MlopsError):
    """Stored bytes are not the bytes that were written."""


class StorageFailed(MlopsError):
    """Bytes could not be read or written."""


class OutOfSpace(StorageFailed):
    """The disk is full."""


class Unreachable(StorageFailed):
    """The store does not answer."""
