"""The dashboard of /explain: how long explanations take, and how often they fail."""

from monitoring import dashboard_style as style
from monitoring.dashboard_panels import Panels, Query, Words, number, series, spread

BUCKET = 'sum by (le) (rate(explain_request_duration_seconds_bucket{module="$module"}[$__rate_interval]))'


def numbers() -> Panels:
    """How many there are, how fast, and how many fail."""
    found = [
        number(
            Words("Explanations", "Asked for each second.", "reqps"),
            Query('sum(rate(explain_request_duration_seconds_count{module="$module"}[5m]))'),
            [(None, style.PRODUCTION)],
        ),
        number(
            Words("Latency, p99", "99 of 100 explanations come within this; a second is expected at most.", "s"),
            Query('module:explain_request_duration_seconds:p99_rate5m{module="$module"}'),
            style.rising(0.5, 1),
        ),
        number(
            Words("Failed", "The share that were failures of ours (5xx) in the last 5 minutes.", "percentunit"),
            Query('module:explain_requests:failed_ratio_rate5m{module="$module"}'),
            style.rising(0.01, 0.05),
            decimals=2,
        ),
        number(
            Words("Failed in the chosen time", "How many explanations were failures of ours (5xx).", "short"),
            Query('sum(increase(explain_requests_total{module="$module", status=~"5.."}[$__range]))'),
            style.NONE_IS_GOOD,
            decimals=0,
        ),
    ]
    return [each.span(6) for each in found]


def charts() -> Panels:
    """Latency beside errors, and below each where it comes from."""
    return [
        series(
            Words(
                "Model Explainability Latency", "From arrival to answer of /explain; over the dashed line is slow.", "s"
            ),
            [Query(f"histogram_quantile(0.{part}, {BUCKET})", f"p{part}") for part in (50, 95, 99)],
            12,
            style.QUANTILES,
            limit=1,
        ),
        series(
            Words("/explain error rate", "Failed is our mistake (5xx), refused is the caller's (4xx).", "percentunit"),
            [Query(_share("5.."), "failed"), Query(_share("4.."), "refused")],
            12,
            style.MISTAKES,
            limit=0.05,
        ),
        spread(
            Words("Where the explanations lie", "How many took how long; waking an older version takes longer.", "s"),
            Query(BUCKET.replace("rate(", "increase("), "{{le}}"),
            12,
        ),
        series(
            Words("Explanations by status", "Answers of /explain each second.", "reqps"),
            [Query('sum by (status) (rate(explain_requests_total{module="$module"}[$__rate_interval]))', "{{status}}")],
            12,
            style.STATUSES,
            stacked=True,
        ),
    ]


def _share(status: str) -> str:
    """The share of answers with a status, which is 0 where there are none."""
    part = f'sum(rate(explain_requests_total{{module="$module", status=~"{status}"}}[$__rate_interval]))'
    return f'{part} / clamp_min(sum(rate(explain_requests_total{{module="$module"}}[$__rate_interval])), 1e-9)'
