"""The rows on the model: what it decides, whether data drift from what it learned, and who is on trial beside it."""

from monitoring import dashboard_style as style
from monitoring.dashboard_panels import LONG, Panels, Query, Words, ranking, rows, series, states


def predictions() -> Panels:
    """Volumes by decision, version and arm; how often each decided what; and how strict it is."""
    rate = 'rate(decisions_total{module="$module"}[$__rate_interval])'
    increase = 'increase(decisions_total{module="$module"}[$__range])'
    return [
        series(
            Words("Predictions by decision", "New decisions each second, through every door.", "cps"),
            [Query(f"sum by (decision) ({rate})", "{{decision}}")],
            8,
            style.DECISIONS,
            stacked=True,
        ),
        series(
            Words("Predictions by version", "Which model version made them.", "cps"),
            [Query(f"sum by (version) ({rate})", "version {{version}}")],
            8,
            stacked=True,
        ),
        series(
            Words("Predictions by arm", "Production, and the candidate where one answers.", "cps"),
            [Query(f"sum by (arm) ({rate})", "{{arm}}")],
            8,
            style.ARMS,
            stacked=True,
        ),
        rows(
            Words("Predictions in the chosen time", "How often each version decided what.", "short"),
            Query(f"sum by (arm, version, decision) ({increase})"),
            12,
            ("arm", "version", "decision"),
            "Predictions",
        ),
        series(
            Words("Share of each decision", "A jump is a change in the world, or in the model.", "percentunit"),
            [Query(f"sum by (decision) ({rate}) / on () group_left () clamp_min(sum({rate}), 1e-9)", "{{decision}}")],
            12,
            style.DECISIONS,
            stacked=True,
            top=1,
        ),
    ]


def drift() -> Panels:
    """Each feature over time and now; whether checks are made; what the model is worth; what was told."""
    psi = 'max by (column) (drift_psi{module="$module"})'
    return [
        series(
            Words(
                "Drift of each feature",
                "Population stability index against training; from 0.2 on it is drift.",
                "short",
            ),
            [Query(psi, "{{column}}")],
            16,
            limit=0.2,
        ).height(LONG),
        ranking(
            Words("Latest drift", "The same of the latest check, the largest first.", "short"),
            Query(f"sort_desc({psi})", "{{column}}"),
            8,
            style.rising(0.1, 0.2),
        ),
        series(
            Words("Age over time", "It falls every day when a check is made, and goes on rising where none is.", "s"),
            [Query('module:drift_check:age_seconds{module="$module"}', "age")],
            8,
            {"age": style.DARK},
            limit=26 * 3600,
        ),
        series(
            Words("Average precision", "Estimated without labels, and measured on labels that have matured.", "short"),
            [
                Query('max(estimated_average_precision{module="$module"})', "estimated"),
                Query('max(realised_average_precision{module="$module"})', "measured"),
            ],
            8,
            {"estimated": style.MIDDLE, "measured": style.DARK},
            top=1,
        ),
        states(
            Words("Alarms of the platform", "What the scheduler has found and told, by kind.", "none"),
            Query('max by (kind) (alerts_open{module="$module"})', "{{kind}}"),
            8,
            style.ALARMS,
        ),
    ]


def canary() -> Panels:
    """The share of each arm, how strict it is, and whether the candidate fails."""
    decided = 'sum by (arm) (rate(decisions_total{module="$module"}[$__rate_interval]))'
    flagged = 'sum by (arm) (rate(decisions_total{module="$module", decision!="approve"}[$__rate_interval]))'
    return [
        series(
            Words("Weight of each arm", "The share of entities that it is to answer.", "percentunit"),
            [Query('max by (arm) (traffic_weight{module="$module"})', "{{arm}}")],
            8,
            style.ARMS,
            stacked=True,
            top=1,
        ),
        series(
            Words(
                "Flagged by arm", "The share that is declined or reviewed; a good candidate stays near.", "percentunit"
            ),
            [Query(f"({flagged} or 0 * {decided}) / clamp_min({decided}, 1e-9)", "{{arm}}")],
            8,
            style.ARMS,
        ),
        series(
            Words(
                "Failures of the candidate",
                "The share that production had to decide; 1 % ends the trial.",
                "percentunit",
            ),
            [Query('module:candidate_decisions:failed_ratio_rate5m{module="$module"}', "failed")],
            8,
            style.MISTAKES,
            limit=0.01,
        ),
    ]
