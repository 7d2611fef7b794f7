"""Answers already given, shared by every worker in Redis: each bound to its key, so that a stray one is nothing."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from mlops.storage.redis_pipe import Command, RedisPipe

SECONDS = 86_400
MARK = 16
"""Bytes of the mark that binds a value to its key."""


class SharedAnswers:
    """Journal bodies by key, for a day. `secret` is known to the workers and not to Redis."""

    def __init__(self, pipe: RedisPipe, name: str, secret: bytes) -> None:
        self._pipe, self._name, self._secret = pipe, name, secret

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what was kept under each key; what is not bound to its key is as good as nothing."""
        found = await self._pipe.run([("GET", self._place(key)) for key in keys])
        return [self._body(key, value) for key, value in zip(keys, found, strict=True)]

    async def put(self, bodies: Mapping[str, bytes]) -> None:
        """Keep bodies."""
        commands: list[Command] = [
            ("SET", self._place(key), self._mark(key, body) + body, "EX", SECONDS) for key, body in bodies.items()
        ]
        await self._pipe.run(commands)

    def _body(self, key: str, value: bytes | None) -> bytes | None:
        if value is None or not hmac.compare_digest(value[:MARK], self._mark(key, value[MARK:])):
            return None
        return value[MARK:]

    def _mark(self, key: str, body: bytes) -> bytes:
        return hashlib.blake2b(key.encode() + b"\0" + body, digest_size=MARK, key=self._secret).digest()

    def _place(self, key: str) -> str:
        return f"{self._name}:answer:{{{key}}}"
