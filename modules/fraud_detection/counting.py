"""What is counted of decisions, whichever door they came through."""

from collections import Counter
from collections.abc import Sequence

from mlops.errors import Refused
from mlops.serving.scoring import Decided, Outcome
from monitoring.prometheus_metrics import Metrics


class Counting:
    """Counts the batches of a scorer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        """Count a batch of answers."""
        decided = [one for one in outcomes if isinstance(one, Decided)]
        fresh = [one.record for one in decided if not one.replayed]
        took: dict[tuple[str, int, str], list[float]] = {}
        for record in fresh:
            key = record.model.arm, record.model.version, record.said["decision"]
            took.setdefault(key, []).append(record.took / 1e6)
        self._metrics.predicted(
            [one.status if isinstance(one, Refused) else 200 for one in outcomes],
            seconds,
            len(decided) - len(fresh),
            sum(record.degraded for record in fresh),
            took,
            Counter(record.instead_of for record in fresh if record.instead_of is not None),
        )

    def cache_failed(self) -> None:
        """Count a failure of the store behind the answers."""
        self._metrics.cache_failed()
