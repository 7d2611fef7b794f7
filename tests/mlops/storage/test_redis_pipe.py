"""The pipe to a Redis that a secret names: the password is changed under it, and nobody waits for the new one."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis

from mlops.errors import BadConfiguration, NotFound, StorageFailed
from mlops.storage import redis_pipe
from mlops.storage.redis_pipe import RedisPipe
from tests.between import Asked, Between, Forward
from tests.mlops.test_secrets import put
from tests.redis_server import RedisServer


@pytest.fixture
def secret(between: Between, bucket: str) -> str:
    """The name of a secret of the test's own."""
    return f"mlops/{bucket}"


def url(server: RedisServer, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{server.port}/0?socket_timeout=5"


def lock(server: RedisServer, before: str, password: str) -> None:
    """Change the password, and let go of everybody who came in with the one before."""
    with redis.Redis(port=server.port, password=before or None) as client:
        client.config_set("requirepass", password)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + 20
    while not await done():
        assert time.monotonic() < deadline, "it did not happen"


@asynccontextmanager
async def piped(name: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Ask through a pipe to the Redis of a secret; the answer is whether it answers."""
    pipe = RedisPipe(f"secret://{name}", [])

    async def answers() -> bool:
        try:
            return await pipe.run([("PING",)]) == [b"PONG"]
        except StorageFailed as error:
            assert "hunter" not in str(error)
            return False

    yield answers
    pipe.close()


class TestRotation:
    def test_a_new_password_is_found(self, redis_server: RedisServer, secret: str) -> None:
        async def scenario() -> None:
            lock(redis_server, "", "hunter-1")
            put(secret, url(redis_server, "hunter-1"))
            async with piped(secret) as answers:
                assert await answers()
                lock(redis_server, "hunter-1", "hunter-2")
                assert not await answers()
                put(secret, url(redis_server, "hunter-2"))
                await until(answers)

        asyncio.run(scenario())

    @pytest.mark.parametrize("protocol", [2, 3])
    def test_a_first_password_is_found(self, redis_server: RedisServer, secret: str, protocol: int) -> None:
        async def scenario() -> None:
            put(secret, f"{redis_server.patient_url}&protocol={protocol}")
            async with piped(secret) as answers:
                assert await answers()
                lock(redis_server, "", "hunter-1")
                assert not await answers()
                put(secret, url(redis_server, "hunter-1"))
                await until(answers)

        asyncio.run(scenario())

    def test_another_server_is_found(self, redis_servers: Callable[..., RedisServer], secret: str) -> None:
        async def scenario() -> None:
            before, after = redis_servers(), redis_servers()
            put(secret, before.patient_url)
            async with piped(secret) as answers:
                assert await answers()
                before.kill()
                put(secret, after.patient_url)
                await until(answers)

        asyncio.run(scenario())

    @pytest.mark.parametrize("text", ["hunter-2", "http://hunter-2", "redis://h:hunter-2/0"])
    def test_a_new_one_that_is_no_url_is_told_and_the_old_one_goes_on(
        self, redis_server: RedisServer, secret: str, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario() -> None:
            put(secret, redis_server.patient_url)
            async with piped(secret) as answers:

                async def told() -> bool:
                    return not await answers() and "Redis is reached as before" in caplog.text

                assert await answers()
                put(secret, text)
                redis_server.kill()
                await until(told)
                redis_server.start()
                await until(answers)

        asyncio.run(scenario())
        assert "hunter" not in caplog.text

    def test_nobody_waits_for_secrets_manager(
        self, redis_server: RedisServer, secret: str, between: Between, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It hangs for as long as the test lasts, and Redis that came back is used all the same."""
        asleep = threading.Event()

        def hanging(_: Asked, __: Forward) -> None:
            asleep.wait(60)

        async def scenario() -> None:
            put(secret, redis_server.patient_url)
            async with piped(secret) as answers:
                assert await answers()
                between.passed.clear()
                between.plan("POST", hanging, times=99)
                redis_server.kill()

                async def asked() -> bool:
                    return not await answers() and bool(between.passed)

                await until(asked)
                redis_server.start()
                await until(answers)
                # The question was neither answered nor given up meanwhile.
                assert "a secret could not be read again" not in caplog.text

        asyncio.run(scenario())
        asleep.set()


def test_a_secret_that_is_not_there_is_told_at_the_start(secret: str) -> None:
    with pytest.raises(NotFound, match=f"there is no secret '{secret}'; put it"):
        RedisPipe(f"secret://{secret}", [])
    put(secret, "hunter-2")
    with pytest.raises(BadConfiguration, match="platform.online is no URL of Redis") as caught:
        RedisPipe(f"secret://{secret}", [])
    assert "hunter" not in str(caught.value)


def test_the_server_of_a_secret_is_checked(redis_server: RedisServer, secret: str) -> None:
    put(secret, redis_server.url)
    redis_pipe.check(f"secret://{secret}")
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(BadConfiguration, match="drops keys when it is full"):
        redis_pipe.check(f"secret://{secret}")
