"""The metrics of what is served, for Prometheus: right with several workers, bounded in every label.

Several workers count in files of one folder; `prepare` makes it, before anything imports the Prometheus client.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlops.errors import Refused
from mlops.serving.scoring import Decided, Outcome
from mlops.traffic import PRODUCTION

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.04, 0.06, 0.1, 0.25, 1, 5,
)  # fmt: skip
STATUSES = frozenset({200, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503})
OTHER = "other"


def prepare(folder: Path) -> None:
    """Begin to count anew in `folder`; every worker that is started from here on counts there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[FOLDER] = str(folder.resolve())


class Metrics:
    """Counts answers. Every family is there with 0 before the first request."""

    def __init__(self, routes: Iterable[str], decisions: Iterable[str]) -> None:
        # The client decides when it is imported whether it counts in the folder, so it is imported after `prepare`.
        from prometheus_client import CollectorRegistry, Gauge, Histogram
        from prometheus_client import Counter as Total

        _forget_the_dead()
        self.registry = registry = CollectorRegistry()
        self._routes, self._decisions = frozenset(routes), frozenset(decisions)
        self._predictions = Total("predict_requests", "Transactions answered.", ["status"], registry=registry)
        self._predict_seconds = Histogram(
            "predict_request_duration_seconds", "From arrival to answer.", buckets=BUCKETS, registry=registry
        )
        self._explanations = Total("explain_requests", "Explanations answered.", ["status"], registry=registry)
        self._explain_seconds = Histogram(
            "explain_request_duration_seconds", "From arrival to answer.", buckets=BUCKETS, registry=registry
        )
        self._others = Total("http_requests", "Answers of all other routes.", ["route", "status"], registry=registry)
        self._errors = Total("request_errors", "Answers that are no success.", ["kind"], registry=registry)
        self._hits = Total("cache_hits", "Answers that had been given before.", registry=registry)
        self._misses = Total("cache_misses", "Transactions that were new.", registry=registry)
        self._cache_errors = Total("cache_errors", "Failures of the store behind the cache.", registry=registry)
        self._decided = Total(
            "decisions", "Decisions made, each once.", ["arm", "version", "decision"], registry=registry
        )
        self._decision_seconds = Histogram(
            "decision_duration_seconds", "From arrival to the journal.", ["arm", "version"], buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._failed = Total(
            "candidate_failures", "Decisions that production made instead.", ["version"], registry=registry
        )
        self._degraded = Total("online_degraded", "Decisions on an incomplete past.", registry=registry)
        self._labels = Total("labels", "Labels recorded.", registry=registry)
        self._journal_waiting = Gauge(
            "journal_waiting_entries", "Entries not on disk yet.", registry=registry, multiprocess_mode="livesum"
        )
        self._journal_behind = Gauge(
            "journal_seconds_behind", "Age of the oldest.", registry=registry, multiprocess_mode="livemax"
        )
        self._model = Gauge(
            "model_info", "1 for what is served.", ["name", "version", "hash"], registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self._served: tuple[str, str, str] | None = None
        for family in (self._predictions, self._explanations):
            for status in ("200", "422", "500", "503"):
                family.labels(status)
        for kind in ("refused", "failed"):
            self._errors.labels(kind)

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        """Count a batch of a scorer, whichever door it came through."""
        decided = [one for one in outcomes if isinstance(one, Decided)]
        fresh = [one.record for one in decided if not one.replayed]
        took: dict[tuple[str, int, str], list[float]] = {}
        for record in fresh:
            key = record.model.arm, record.model.version, record.said["decision"]
            took.setdefault(key, []).append(record.took / 1e6)
        self.predicted(
            [one.status if isinstance(one, Refused) else 200 for one in outcomes],
            seconds,
            len(decided) - len(fresh),
            sum(record.degraded for record in fresh),
            took,
            Counter(record.instead_of for record in fresh if record.instead_of is not None),
        )

    def predicted(
        self, statuses: Sequence[int], seconds: Sequence[float], replayed: int, degraded: int,
        decided: Mapping[tuple[str, int, str], Sequence[float]], failed: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        """Count a batch of answers: the status and seconds of each.

        `decided` has the seconds up to the journal of the new ones, by arm, version and decision; `failed` how often a
        candidate's version failed.
        """
        for status, count in Counter(statuses).items():
            self._predictions.labels(_known(status)).inc(count)
            if status != 200:
                self._errors.labels(_kind(status)).inc(count)
        for each in seconds:
            self._predict_seconds.observe(each)
        if replayed:
            self._hits.inc(replayed)
        for (arm, version, decision), took in decided.items():
            known = decision if decision in self._decisions else OTHER
            self._decided.labels(arm, str(version), known).inc(len(took))
            self._misses.inc(len(took))
            if arm != PRODUCTION:
                # It is there with 0 before the candidate fails, so that the first failure is a rise.
                self._failed.labels(str(version))
            observe = self._decision_seconds.labels(arm, str(version)).observe
            for each in took:
                observe(each)
        for number, count in (failed or {}).items():
            self._failed.labels(str(number)).inc(count)
        if degraded:
            self._degraded.inc(degraded)

    def replied(self, route: str, status: int, seconds: float) -> None:
        """Count one answer of a route, other than of those that decide and are counted by `answered`."""
        if route == "/explain":
            self._explanations.labels(_known(status)).inc()
            self._explain_seconds.observe(seconds)
        elif route.startswith("/predict") or route == "/invocations":
            self._predictions.labels(_known(status)).inc()
        else:
            self._others.labels(route if route in self._routes else OTHER, _known(status)).inc()
        if route == "/feedback" and status == 200:
            self._labels.inc()
        if status >= 400:
            self._errors.labels(_kind(status)).inc()

    def cache_failed(self) -> None:
        """Count a failure of the store behind the cache."""
        self._cache_errors.inc()

    def journal(self, waiting: int, seconds_behind: float) -> None:
        """Say how far the journal is behind."""
        self._journal_waiting.set(waiting)
        self._journal_behind.set(seconds_behind)

    def serves(self, name: str, version: int, hash_: str) -> None:
        """Say what is served from now on."""
        served = name, str(version), hash_[:16]
        if served != self._served:
            if self._served is not None:
                self._model.labels(*self._served).set(0)
            self._model.labels(*served).set(1)
            self._served = served

    def serve(self, port: int, host: str = "127.0.0.1") -> int:
        """Serve what one process counts at a port of this machine, 0 for a free one, and return which it is."""
        from prometheus_client import start_http_server

        return int(start_http_server(port, host, self.registry)[0].server_port)

    def exposition(self) -> bytes:
        """Everything counted so far, in all workers, as Prometheus reads it."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together: CollectorRegistry = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _known(status: int) -> str:
    return str(status) if status in STATUSES else OTHER


def _kind(status: int) -> str:
    return "failed" if status >= 500 else "refused"


def _forget_the_dead() -> None:
    """Drop what workers that are gone said of the present; what they counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    if FOLDER in os.environ:
        for path in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
            pid = path.stem.rsplit("_", 1)[-1]
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
