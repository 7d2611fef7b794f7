"""Secrets by name: from the environment or from AWS Secrets Manager, kept for a while, and shown to nobody.

Settings hold a name: `secret://NAME`, or `secret://NAME#FIELD` for a field of one that is JSON. Whoever connects asks
what it stands for at that moment, so that what is logged, hashed and kept of the settings is the name.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import cache
from threading import Lock
from typing import NamedTuple, TypeVar

import msgspec

from mlops import aws
from mlops.errors import BadConfiguration, StorageFailed

SCHEME = "secret://"
KEPT = 300.0
"""Seconds for which a secret is kept."""
PAUSE = 2.0
"""Seconds between two readings of a secret that is refused, or that cannot be read."""

T = TypeVar("T")

log = logging.getLogger("secrets")


class Held(NamedTuple):
    """A secret as it was read, and until when it counts."""

    text: str
    read: float
    until: float

    def __repr__(self) -> str:
        return "Held(...)"


class Secrets:
    """Reads secrets, and keeps each for a while; `environ` stands above Secrets Manager.

    Where one cannot be read again, what it was goes on to count.
    """

    def __init__(self, environ: Mapping[str, str], now: Callable[[], float] = time.monotonic) -> None:
        self._environ, self._now = environ, now
        self._held: dict[str, Held] = {}
        self._shown: dict[str, str] = {}
        self._lock = Lock()

    def get(self, name: str) -> str:
        """Return a secret. Raises `NotFound`, `BadConfiguration` for an empty one, `StorageFailed`, `Unreachable`."""
        if found := self._environ.get(variable(name), "").strip():
            return found
        held = self._held.get(name)
        if held is None or held.until <= self._now():
            with self._lock:
                held = self._renewed(name)
        return held.text

    def refused(self, name: str) -> None:
        """Hear that a secret is not accepted any more: it is read again, unless it was just read."""
        with self._lock:
            held = self._held.get(name)
            if held is not None and held.read + PAUSE <= self._now():
                self._held[name] = held._replace(until=held.read)

    def resolve(self, url: str) -> str:
        """Return what a URL stands for: itself, or the secret that it names. Raises what `get` raises."""
        if not is_secret(url):
            return url
        name, _, field = url.removeprefix(SCHEME).partition("#")
        if not re.fullmatch(r"[\w/+=.@:-]+", name, re.ASCII):
            raise BadConfiguration(f"'{url}' names no secret; write {SCHEME}NAME or {SCHEME}NAME#FIELD")
        text = self.get(name)
        found = _field(name, text, field) if field else text
        self._shown |= {text: f"{SCHEME}{name}", found: url}
        return found

    def hidden(self, text: str) -> str:
        """Put the name of each secret that was resolved in the place of its value."""
        for value in sorted(self._shown, key=len, reverse=True):
            text = text.replace(value, self._shown[value])
        return text

    def _renewed(self, name: str) -> Held:
        held, now = self._held.get(name), self._now()
        if held is not None and held.until > now:
            return held
        try:
            found = Held(_read(name), now, now + KEPT)
        except StorageFailed as error:
            if held is None:
                raise
            log.warning("a secret could not be read again", extra={"secret": name, "reason": str(error)})
            found = held._replace(until=now + PAUSE)
        self._held[name] = found
        return found


def resolve(url: str) -> str:
    """Return what a URL stands for, in this process: itself, or the secret that it names. Raises what `get` raises."""
    return _ours().resolve(url) if is_secret(url) else url


def refused(url: str) -> None:
    """Hear that what a URL stands for is not accepted any more."""
    if is_secret(url):
        _ours().refused(url.removeprefix(SCHEME).partition("#")[0])


def connected(url: str, connect: Callable[[str], T], refusal: type[Exception]) -> T:
    """Connect with what a URL stands for; where that is refused, once more with what the secret holds by then."""
    value = resolve(url)
    try:
        return connect(value)
    except refusal:
        refused(url)
        if (fresh := resolve(url)) == value:
            raise
        return connect(fresh)


def hidden(text: str) -> str:
    """Put the name of each secret that this process has resolved in the place of its value."""
    return _ours().hidden(text)


def is_secret(url: str) -> bool:
    """Tell whether a URL names a secret."""
    return url.startswith(SCHEME)


def variable(name: str) -> str:
    """Name the environment variable that stands above a secret: `SECRET_MLOPS_REDIS_URL` for `mlops/redis-url`.

    It does not begin like the variables of settings, so that no setting can be mistaken for one.
    """
    return "SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


@cache
def _ours() -> Secrets:
    """The secrets of this process, which all its connections share."""
    return Secrets(os.environ)


def _read(name: str) -> str:
    place, way = f"secret '{name}'", f"--secret-string VALUE, or set {variable(name)}"
    make, fill = (
        f"aws secretsmanager create-secret --name {name}",
        f"aws secretsmanager put-secret-value --secret-id {name}",
    )
    gone = {"ResourceNotFoundException": f"there is no {place}; put it: {make} {way}"}
    # It is asked for every few minutes, and until then the credentials and the place of the service may change.
    manager = aws.client("secretsmanager", place)
    with aws.translated(place, gone):
        answer = manager.get_secret_value(SecretId=name)
    text = str(answer.get("SecretString", "")).strip()
    if not text:
        raise BadConfiguration(f"{place} holds no text; put it: {fill} {way}")
    return text


def _field(name: str, text: str, field: str) -> str:
    try:
        found = msgspec.json.decode(text, type=dict[str, object]).get(field)
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if not isinstance(found, str) or not found:
        raise BadConfiguration(f"secret '{name}' is no JSON object with a text in '{field}'; correct it or the setting")
    return found
