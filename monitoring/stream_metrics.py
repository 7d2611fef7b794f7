"""The metrics of a stream worker, for Prometheus: what it read, what it put away, and how far it is behind."""

from collections.abc import Callable, Sequence
from typing import Any

from mlops.errors import Refused
from mlops.serving.scoring import Decided, Outcome

BATCHES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000)
DECIDED, REPEATED, PUT_AWAY = "decided", "repeated", "put away"


class StreamMetrics:
    """What one worker knows of its stream; `dead_letters` counts those that wait, at each scrape."""

    def __init__(self, registry: Any, dead_letters: Callable[[], int]) -> None:
        # The client decides when it is imported how it counts; see `prometheus_metrics`.
        from prometheus_client import Counter, Gauge, Histogram

        self._records = Counter(
            "stream_records", "Records read, by what became of them.", ["outcome"], registry=registry
        )
        for outcome in (DECIDED, REPEATED, PUT_AWAY):
            self._records.labels(outcome)
        self._batches = Histogram("stream_batch_records", "Records read at once.", buckets=BATCHES, registry=registry)
        self._behind = Gauge(
            "stream_seconds_behind", "How far the newest record is ahead of the last that was decided.", ["shard"],
            registry=registry,
        )  # fmt: skip
        self._troubles = Counter("stream_troubles", "Shards that had to be tried again.", registry=registry)
        self._shards = Gauge("stream_shards", "Shards that this worker reads.", registry=registry)
        waiting = Gauge("dead_letters_waiting", "Records put away that nobody has settled.", registry=registry)
        waiting.set_function(dead_letters)
        self._held: frozenset[str] = frozenset()

    def read(self, shard: str, outcomes: Sequence[Outcome], behind: float) -> None:
        """Some records were decided or put away; the newest is so many seconds ahead of the last of them."""
        put_away = sum(isinstance(outcome, Refused) for outcome in outcomes)
        repeated = sum(isinstance(outcome, Decided) and outcome.replayed for outcome in outcomes)
        for outcome, count in (
            (PUT_AWAY, put_away), (REPEATED, repeated), (DECIDED, len(outcomes) - put_away - repeated),
        ):  # fmt: skip
            self._records.labels(outcome).inc(count)
        self._batches.observe(len(outcomes))
        self._behind.labels(shard).set(behind)

    def holds(self, shards: Sequence[str]) -> None:
        """These shards are read here, and no others."""
        for shard in self._held.difference(shards):
            self._behind.remove(shard)
        self._held = frozenset(shards)
        for shard in shards:
            self._behind.labels(shard)
        self._shards.set(len(shards))

    def troubled(self, shard: str) -> None:  # noqa: ARG002 - a label for each shard would outlive it
        """A shard is in trouble, and is tried again."""
        self._troubles.inc()
