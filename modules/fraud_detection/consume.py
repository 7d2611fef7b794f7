"""The stream worker, wired: transactions come from a stream, decisions go to the journal and, where asked, on."""

import asyncio
import contextlib
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from io import BufferedReader
from typing import cast, get_args

import msgspec

from mlops import bootstrap
from mlops.errors import MlopsError, NotFound
from mlops.journaling.ledger import wall
from mlops.serving.decider import MEMORY, Decider
from mlops.serving.deciding import answer
from mlops.serving.scoring import Decided, Watcher
from mlops.storage import objects
from mlops.streaming import dead_letters, stream
from mlops.streaming.consumer import Consumer
from mlops.streaming.dead_letters import DeadLetter, DeadLetters
from mlops.streaming.leases import Leases
from mlops.streaming.shard_reading import Handling
from mlops.streaming.stream import Stream
from mlops.streaming.stream_memory import Memory
from mlops.values import seconds
from modules.fraud_detection import decider
from modules.fraud_detection.predict import NOUNS
from modules.fraud_detection.settings import NAME, Settings
from modules.fraud_detection.src.live_predictor import LivePredictor
from modules.fraud_detection.src.predictor import Decision
from modules.fraud_detection.src.utils import logger
from monitoring.prometheus_metrics import Metrics
from monitoring.stream_metrics import StreamMetrics

PATIENCE = 60.0
"""Seconds that a version may take to wake."""
AT_ONCE = 1 << 20
"""Bytes of standard input that are read at once."""

Address = tuple[str, int]

encode = msgspec.json.Encoder().encode


def consume(settings: Settings, metrics: Address | None, tell: Callable[[str], None]) -> None:
    """Decide what a stream brings until told to stop, or until it ends; serve metrics at an address, 0 a free port.

    Raises `BadConfiguration` and `NotFound`.
    """
    logger.start_all(settings.data.entities)
    try:
        source = stream.connect(settings.streaming.source)
        # A name that is wrong is said at once, and not once every few seconds to a log.
        source.shards()
        if isinstance(source, Memory):
            lines = cast(BufferedReader, sys.stdin.buffer)
            threading.Thread(target=feed, args=(source, lines), name="lines", daemon=True).start()
        asyncio.run(_consume(settings, source, metrics, tell))
    finally:
        logger.stop_all()


async def _consume(settings: Settings, source: Stream, at: Address | None, tell: Callable[[str], None]) -> None:
    metrics = Metrics([], get_args(Decision))
    async with worker(settings, source, metrics) as consumer:
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, consumer.stop)
        if at is not None:
            host, port = at
            tell(f"http://{host}:{metrics.serve(port, host)}/metrics")
        tell(f"reading {settings.streaming.source} (Ctrl-C stops)")
        await consumer.run()


@asynccontextmanager
async def worker(settings: Settings, source: Stream, metrics: Metrics) -> AsyncIterator[Consumer]:
    """A worker on a stream, ready to run.

    Where live state is in its memory, no other may read the stream beside it, and it waits until none does: its past
    must hold what the one before it decided.
    """
    words, alone = settings.streaming, settings.platform.online == MEMORY
    results = stream.connect(words.results) if words.results else None
    async with AsyncExitStack() as stack:
        # What ends with this process leaves no place in it behind.
        at = settings.platform.journal
        if isinstance(source, Memory):
            at = f"sqlite:///{stack.enter_context(objects.scratch())}/leases.db"
        leases = Leases(at, source.name, seconds(words.lease))
        stack.callback(leases.close)
        if alone:
            since = wall() if words.start == "LATEST" else None
            while not await asyncio.to_thread(leases.take_all, source.shards(), since):
                await asyncio.sleep(random.uniform(0, 2 * words.poll))  # noqa: S311 - parts those who began together
        async with _kept(leases, seconds(words.lease) / 3):
            made = await stack.enter_async_context(deciding(settings, [metrics]))
        letters = DeadLetters(made.journal.journal, NAME)

        async def put_away(found: Sequence[DeadLetter]) -> None:
            await made.journal.keep([dead_letters.entry(NAME, letter) for letter in found])

        def publish(decided: Sequence[Decided]) -> None:
            if results is not None:
                results.put([(one.record.key, encode(answer(one, NOUNS))) for one in decided])

        told = StreamMetrics(metrics.registry, letters.count)
        handling = Handling(made.scorer.decide, put_away, publish if results else None, told, words.tries, wall)
        yield Consumer(source, leases, handling, words, alone)


@asynccontextmanager
async def deciding(settings: Settings, watchers: Sequence[Watcher]) -> AsyncIterator[Decider[LivePredictor]]:
    """What decides, with a version awake. Raises `NotFound` where none can be woken."""
    platform = bootstrap.connect(settings.platform)
    made = Decider(decider.kind(settings, platform), platform, watchers)
    await made.start()
    try:
        if not await asyncio.to_thread(made.live.wait, PATIENCE):
            raise NotFound(f"nothing can decide: {made.live.problem}")
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def _kept(leases: Leases, every: float) -> AsyncIterator[None]:
    """Keep what is held, however long a version takes to wake and to fill its past."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(every)
            with contextlib.suppress(MlopsError):
                await asyncio.to_thread(leases.renew)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


def feed(source: Memory, lines: BufferedReader) -> None:
    """Put every line into a stream when it has come, for a person who types waits for no next one; then end it."""
    rest = b""
    while some := lines.read1(AT_ONCE):
        *whole, rest = (rest + some).split(b"\n")
        source.put([("", line.strip()) for line in whole if line.strip()])
    source.put([("", rest.strip())] if rest.strip() else [])
    source.close()
