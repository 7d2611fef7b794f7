"""The one connection to Redis: commands that are given at one moment go out in one round trip, from one thread."""

import hashlib
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from mlops.errors import BadConfiguration, MlopsError, OutOfSpace, StorageFailed, Unreachable
from mlops.together import Together

TIMEOUT = 0.02
"""Seconds for a round trip. The library's own 5 seconds and 10 retries would stop every answer when Redis stops."""
FIRST_TIMEOUT = 1.0
MOST = 2_048

Command = tuple[Any, ...]


class Script:
    """A program that Redis runs as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis names scripts so

    def on(self, key: str, *arguments: bytes | int) -> Command:
        """The command that runs it on one key."""
        return ("EVALSHA", self.sha, 1, key, *arguments)


class RedisPipe:
    """Sends commands from one thread. No command is ever cancelled, so a reply always belongs to its command."""

    def __init__(self, url: str, scripts: Sequence[Script]) -> None:
        self._scripts = {script.sha: script for script in scripts}
        self._url = url
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0),
                single_connection_client=False,
            )  # fmt: skip
        except ValueError:
            raise BadConfiguration("platform.online is no URL of Redis; write redis://HOST:PORT/NUMBER") from None
        self._together: Together[Command, Any] = Together("pipe to Redis", self._run, MOST)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in order and return their replies. Raises `Unreachable`, or `OutOfSpace` where Redis is full."""
        replies = await self._together.do(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise _translated(reply)
        return replies

    def check(self) -> None:
        """Refuse a server that would drop keys to make room. Raises `BadConfiguration`; a silent server is let pass."""
        try:
            with redis.Redis.from_url(self._url, socket_timeout=FIRST_TIMEOUT) as client:
                policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
        except RedisError:
            return
        if policy != "noeviction":
            raise BadConfiguration(
                f"Redis drops keys when it is full (maxmemory-policy {policy}), and features would lose their past "
                "without a word; set it: CONFIG SET maxmemory-policy noeviction"
            )

    def close(self) -> None:
        """Finish what was given and let go of the connection."""
        self._together.close()
        self._client.close()

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        try:
            replies = self._send(commands)
            missing = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:
                self._send([("SCRIPT", "LOAD", script.text) for script in self._scripts.values()])
                again = self._send([commands[place] for place in missing])
                for place, reply in zip(missing, again, strict=True):
                    replies[place] = reply
            return replies
        except RedisError as error:
            self._client.connection_pool.disconnect()
            raise _translated(error) from None

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies


def _translated(error: Exception) -> MlopsError:
    if isinstance(error, OutOfMemoryError) or "OOM" in str(error):
        return OutOfSpace("Redis is full; give it more memory")
    if isinstance(error, ResponseError):
        return StorageFailed(f"Redis refused a command: {error}")
    return Unreachable(f"Redis does not answer: {type(error).__name__}")
