"""The metrics of the watching side, for Prometheus: the latest check of each module, its open alarms, its traffic."""

from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING

from mlops.alerting.alerts import Alert
from mlops.traffic import Traffic
from monitoring.drift_report import DRIFTED, TOO_FEW, DriftReport

if TYPE_CHECKING:
    from prometheus_client import Gauge


class DriftMetrics:
    """What the scheduler of any number of modules knows, served over HTTP."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        # The client decides when it is imported how it counts; a scheduler counts for itself.
        from prometheus_client import CollectorRegistry, Gauge, start_http_server

        registry = CollectorRegistry()
        self._psi = Gauge("drift_psi", "Of each column, in the latest check.", ["module", "column"], registry=registry)
        self._drifted = Gauge("drift_detected", "1 where the latest check found drift.", ["module"], registry=registry)
        self._judged = Gauge("drift_judged", "0 where it had too few rows to tell.", ["module"], registry=registry)
        self._checked = Gauge(
            "drift_check_timestamp_seconds", "When the latest check was due.", ["module"], registry=registry
        )
        self._estimated = Gauge(
            "estimated_average_precision", "Without labels, in the latest check.", ["module"], registry=registry
        )
        self._realised = Gauge(
            "realised_average_precision", "On matured labels, in the latest check.", ["module"], registry=registry
        )
        self._alerts = Gauge("alerts_open", "Alarms that go on.", ["module", "kind"], registry=registry)
        self._weight = Gauge("traffic_weight", "The share of each arm.", ["module", "arm"], registry=registry)
        self._server = start_http_server(port, host, registry)[0]
        self._columns: dict[str, set[str]] = {}

    @property
    def port(self) -> int:
        """Where they are served."""
        return int(self._server.server_port)

    def checked(self, report: DriftReport) -> None:
        """Take over what a check found."""
        name = report.name
        columns = [*report.columns, *([report.prediction] if report.prediction is not None else [])]
        # A column that could not be judged is not one without drift.
        judged = {column.name: column.psi for column in columns if column.verdict != TOO_FEW}
        for column in self._columns.get(name, set()) | judged.keys():
            _show(self._psi, judged.get(column), name, column)
        self._columns[name] = set(judged)
        self._drifted.labels(name).set(report.verdict == DRIFTED)
        self._judged.labels(name).set(report.verdict != TOO_FEW)
        # It is UTC without saying so, and a host may keep another time.
        self._checked.labels(name).set(report.until.replace(tzinfo=UTC).timestamp())
        expected = None if report.estimated is None else report.estimated.expected
        for gauge, found in ((self._estimated, expected), (self._realised, report.realised)):
            _show(gauge, None if found is None else found.average_precision, name)

    def stands(self, name: str, kinds: Iterable[str], alerts: Iterable[Alert], traffic: Traffic | None) -> None:
        """Take over which alarms go on, of all kinds that there are, and who answers."""
        going_on = [alert.kind for alert in alerts]
        for kind in kinds:
            self._alerts.labels(name, kind).set(going_on.count(kind))
        if traffic is not None:
            share = traffic.weight if traffic.answering is not None else 0.0
            self._weight.labels(name, "candidate").set(share)
            self._weight.labels(name, "production").set(1 - share)

    def close(self) -> None:
        """Serve them no longer."""
        self._server.shutdown()
        self._server.server_close()


def _show(gauge: "Gauge", value: float | None, *labels: str) -> None:
    """Set a series, or take it away where there is nothing to tell."""
    if value is None:
        gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)
