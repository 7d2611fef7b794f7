"""python -m monitoring.dashboards: write Grafana's dashboards as they are built, or check that they are (--check)."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as parts

from monitoring import dashboard_answers as answers
from monitoring import dashboard_explanations as explanations
from monitoring import dashboard_machinery as machinery
from monitoring import dashboard_model as model
from monitoring import dashboard_summary as summary
from monitoring.dashboard_panels import SOURCE, Panels

FOLDER = Path(__file__).parent / "grafana_dashboards"
TAG = "mlops"


def build() -> Mapping[str, bytes]:
    """Every dashboard as JSON, by the name of its file; the same bytes each time."""
    days = {
        "Latency": answers.latency(), "Throughput and errors": answers.errors(), "Predictions": model.predictions(),
        "Drift": model.drift(), "Canary": model.canary(), "Cache and journal": answers.stores(),
        "Stream": machinery.stream(), "The machine": machinery.node(),
    }  # fmt: skip
    return {
        "latency_drift_dashboard.json": _dashboard(
            "Latency, drift and predictions",
            "mlops-latency-drift",
            "How fast and how well a module answers, what it decides, and whether its data drift.",
            summary.numbers(),
            days,
        ),
        "explainability_latency_panel.json": _dashboard(
            "Explanations",
            "mlops-explainability",
            "How long /explain takes, and how often it fails.",
            explanations.numbers(),
            {"Explanations": explanations.charts()},
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them; return 0, or 1 where one differs."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    checks = parser.parse_args(arguments).check
    for name, made in build().items():
        path = FOLDER / name
        if checks and (not path.exists() or path.read_bytes() != made):
            print(f"error: {path.name} is not what is built; run: python -m monitoring.dashboards", file=sys.stderr)
            return 1
        if not checks:
            path.write_bytes(made)
    return 0


def _dashboard(title: str, uid: str, says: str, top: Panels, rows: Mapping[str, Panels]) -> bytes:
    board = Dashboard(title).uid(uid).description(says).tags([TAG]).timezone("browser").time("now-6h", "now")
    board = board.refresh("30s").tooltip(parts.DashboardCursorSync.CROSSHAIR).readonly()
    board = board.with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    module = QueryVariable("module").label("Module").datasource(SOURCE).query('label_values(up{module!=""}, module)')
    module = module.refresh(parts.VariableRefresh.ON_DASHBOARD_LOAD).sort(parts.VariableSort.ALPHABETICAL_ASC)
    others = DashboardLink("Other dashboards").type(parts.DashboardLinkType.DASHBOARDS).tags([TAG])
    board = board.with_variable(module).link(others.include_vars(True).keep_time(True))
    for panel in top:
        board = board.with_panel(panel)
    for name, panels in rows.items():
        board = board.with_row(Row(name))
        for panel in panels:
            board = board.with_panel(panel)
    return (json.dumps(_numbered(board), indent=2, ensure_ascii=False) + "\n").encode()


def _numbered(board: Dashboard) -> dict[str, Any]:
    """As plain JSON, with an id for each panel, so that a link to one survives that Grafana loads the file anew."""
    found: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for number, panel in enumerate(found["panels"], start=1):
        panel["id"] = number
    return found


if __name__ == "__main__":
    sys.exit(main())
