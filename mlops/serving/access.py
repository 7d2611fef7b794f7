"""Who may ask what, and how much: API keys, hashed at rest, several at once, with scopes and a rate; limits."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mlops.errors import BadConfiguration, Refused
from mlops.values import Group

Scope = Literal["predict", "explain", "feedback", "read"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BEARER = b"bearer "


class Key(Group):
    """One API key. The key itself is never stored: `sha256` is the hash of its text."""

    name: str = Field(description="Whose key it is; said when it is refused.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the key, in hexadecimal.")
    scopes: tuple[Scope, ...] = Field(("predict", "explain", "feedback", "read"), description="What it opens.")


class Serving(Group):
    """Who may ask, and how much."""

    keys: tuple[Key, ...] = Field((), description="API keys; none is allowed on this machine's own address only.")
    requests_per_second: float | None = Field(None, gt=0, description="For each key, in each worker; empty: no limit.")
    max_body: int = Field(262_144, gt=0, description="Bytes that a request may have.")
    max_batch: int = Field(100, gt=0, description="Transactions that one call may carry.")
    max_waiting: int = Field(512, gt=0, description="Calls in work at once in a worker; more are told to come again.")
    idle_seconds: int = Field(5, gt=0, description="How long a request may take to arrive, or a connection idle.")


def make() -> tuple[str, str]:
    """Make a new key; return its text, to be handed over once, and its hash, to be configured."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def check_reach(host: str, keys: Sequence[Key]) -> None:
    """Refuse to listen beyond this machine without keys. Raises `BadConfiguration`."""
    if host not in LOOPBACK and not keys:
        raise BadConfiguration(
            f"host is {host}, which others can reach, and serving.keys is empty; make a key with the word 'key', or "
            "listen on 127.0.0.1"
        )


class Access:
    """Lets a call in by the key in its `Authorization: Bearer` header; without any key configured, everybody."""

    def __init__(self, keys: Sequence[Key], per_second: float | None) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.name, frozenset(key.scopes)) for key in keys]
        self._per_second = per_second
        self._left: dict[str, tuple[float, float]] = {}

    def enter(self, authorization: bytes, scope: str) -> None:
        """Let the call in, or raise `Refused`: 401 without a known key, 403 without the scope, 429 over the rate."""
        name = self._name(authorization, scope) if self._keys else ""
        if self._per_second is not None:
            self._spend(name, self._per_second)

    def _name(self, authorization: bytes, scope: str) -> str:
        given = hashlib.sha256(authorization[len(BEARER) :]).digest()
        found = None
        for hash_, name, scopes in self._keys:
            # Every key is compared, in constant time, so that the time taken tells nothing.
            if hmac.compare_digest(hash_, given):
                found = name, scopes
        if found is None or authorization[: len(BEARER)].lower() != BEARER:
            raise Refused("a valid API key is needed: Authorization: Bearer KEY", status=401)
        if scope not in found[1]:
            raise Refused(f"the key '{found[0]}' does not open '{scope}'", status=403)
        return found[0]

    def _spend(self, name: str, rate: float) -> None:
        """Take one from the bucket of a key, which fills at its rate up to one second's worth."""
        now = time.monotonic()
        left, since = self._left.get(name, (max(rate, 1.0), now))
        left = min(max(rate, 1.0), left + (now - since) * rate)
        if left < 1:
            self._left[name] = left, now
            raise Refused("too many requests" + (f" for the key '{name}'" if name else ""), status=429)
        self._left[name] = left - 1, now
