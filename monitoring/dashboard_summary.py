"""The top of the dashboard of a module's days: twelve numbers that say whether anybody has to look further."""

from monitoring import dashboard_style as style
from monitoring.dashboard_panels import Panels, Query, Words, name, number

MODULE = '{module="$module"}'


def numbers() -> Panels:
    """How it answers and what is left of its objectives; then its model, its stream, and what is on trial."""
    return [*_answers(), *_watched()]


def _answers() -> Panels:
    return [
        name(
            Words("Version in production", "The model version that the API has awake.", "none"),
            Query('max by (version) (model_info{module="$module"}) == 1', "version {{version}}"),
        ),
        number(
            Words("Answers", "Transactions that the API answers each second.", "reqps"),
            Query('module:predict_requests:rate5m{module="$module"}'),
            [(None, style.PRODUCTION)],
        ),
        number(
            Words("Latency, p99", "99 of 100 answers come within this; the objective is 100 ms.", "s"),
            Query('module:predict_request_duration_seconds:p99_rate5m{module="$module"}'),
            style.rising(0.08, 0.1),
        ),
        number(
            Words("Failed answers", "The share that were failures of ours (5xx) in the last 5 minutes.", "percentunit"),
            Query('module:predict_requests:failed_ratio_rate5m{module="$module"}'),
            style.rising(0.001, 0.05),
            decimals=2,
        ),
        number(
            Words("Error budget left", "Of the 0.1 % of 30 days' answers that may fail (5xx).", "percentunit"),
            Query('1 - module:predict_requests:failed_ratio_rate30d{module="$module"} / 0.001'),
            style.BUDGET,
            decimals=0,
        ),
        number(
            Words("Latency budget left", "Of the 1 % of 30 days' answers that may take over 100 ms.", "percentunit"),
            Query('1 - module:predict_requests:slow_ratio_rate30d{module="$module"} / 0.01'),
            style.BUDGET,
            decimals=0,
        ),
    ]


def _watched() -> Panels:
    return [
        number(
            Words("Alerts", "Alerts of this module, and of the machines, that fire now.", "none"),
            Query('count(ALERTS{alertstate="firing", module=~"$module|"}) or vector(0)'),
            style.NONE_IS_GOOD,
        ),
        number(
            Words("Drift", "What the latest daily check found.", "none"),
            Query(
                f"module:drift_detected:last2d{MODULE} + max by (module) (last_over_time(drift_judged{MODULE}[2d])) - 1"
            ),
            style.NONE_IS_GOOD,
            texts=style.DRIFT,
        ),
        number(
            Words("Age of the drift check", "One is due every day; an older one says nothing of today.", "s"),
            Query('module:drift_check:age_seconds{module="$module"}'),
            style.rising(25 * 3600, 26 * 3600),
        ),
        number(
            Words("Behind the stream", "How much older than the newest record what is decided now is.", "s"),
            Query('module:stream_seconds_behind:max{module="$module"}'),
            style.rising(10, 60),
        ),
        number(
            Words("Dead letters", "Records that could not be decided and wait for somebody.", "none"),
            Query('module:dead_letters_waiting:max{module="$module"}'),
            style.NONE_IS_GOOD,
        ),
        number(
            Words("Canary", "The share of entities that a candidate answers.", "percentunit"),
            Query('max(traffic_weight{module="$module", arm="candidate"})'),
            [(None, style.QUIET), (0.0001, style.CANDIDATE)],
            decimals=0,
        ),
    ]
