"""The rows on answers: how long they take, how many there are, how many fail, and what stands behind them."""

from monitoring import dashboard_style as style
from monitoring.dashboard_panels import Panels, Query, Words, series, spread

API = '{module="$module", door="http"}'


def latency() -> Panels:
    """Quantiles beside the share that is too slow; where all of them lie; and each version by itself."""
    bucket = f"sum by (le) (rate(predict_request_duration_seconds_bucket{API}[$__rate_interval]))"
    arms = 'sum by (le, arm, version) (rate(decision_duration_seconds_bucket{module="$module"}[$__rate_interval]))'
    return [
        series(
            Words("Latency of /predict", "From arrival to answer; the dashed line is the objective for p99.", "s"),
            [Query(f"histogram_quantile(0.{part}, {bucket})", f"p{part}") for part in (50, 95, 99)],
            12,
            style.QUANTILES,
            limit=0.1,
        ),
        series(
            Words("Answers over 100 ms", "The share that missed the objective; over 30 days 1 % may.", "percentunit"),
            [Query('module:predict_requests:slow_ratio_rate5m{module="$module"}', "slow")],
            12,
            {"slow": style.DARK},
            limit=0.01,
        ),
        spread(
            Words("Where the answers lie", "How many took how long; two bands are two kinds of answer.", "s"),
            Query(bucket.replace("rate(", "increase("), "{{le}}"),
            12,
        ),
        series(
            Words("Latency by version, p99", "From arrival to the journal, for each arm that decides.", "s"),
            [Query(f"histogram_quantile(0.99, {arms})", "{{arm}}, version {{version}}")],
            12,
            style.ARMS,
            limit=0.1,
        ),
    ]


def errors() -> Panels:
    """What is answered by status, the share that fails, and whose mistakes they are."""
    failed = 'sum(rate(predict_requests_total{module="$module", door="http", status=~"5.."}[$__rate_interval]))'
    answered = f"sum(rate(predict_requests_total{API}[$__rate_interval]))"
    return [
        series(
            Words("Throughput by status", "Transactions answered each second.", "reqps"),
            [Query(f"sum by (status) (rate(predict_requests_total{API}[$__rate_interval]))", "{{status}}")],
            8,
            style.STATUSES,
            stacked=True,
        ),
        series(
            Words("Error rate", "The share of /predict that are failures of ours (5xx); 0.1 % may be.", "percentunit"),
            [Query(f"{failed} / clamp_min({answered}, 1e-9)", "failed")],
            8,
            style.MISTAKES,
            limit=0.001,
        ),
        series(
            Words("Refused and failed", "All routes: refused is the caller's mistake, failed is ours.", "reqps"),
            [Query(f"sum by (kind) (rate(request_errors_total{API}[$__rate_interval]))", "{{kind}}")],
            8,
            style.MISTAKES,
        ),
    ]


def stores() -> Panels:
    """The cache, what is decided without it, and the journal."""
    hits, misses = _each("cache_hits_total"), _each("cache_misses_total")
    return [
        series(
            Words("Cache hits", "The share of transactions that had been answered before.", "percentunit"),
            [Query(f"{hits} / clamp_min({hits} + {misses}, 1e-9)", "hits")],
            6,
            {"hits": style.PRODUCTION},
            top=1,
        ),
        series(
            Words("Cache errors", "Calls of Redis that failed each second; decisions go on without it.", "cps"),
            [Query(_each("cache_errors_total"), "errors")],
            6,
            {"errors": style.WRONG},
        ),
        series(
            Words("Decided on an incomplete past", "Decisions each second that lacked what Redis remembers.", "cps"),
            [Query(_each("online_degraded_total"), "incomplete")],
            6,
            {"incomplete": style.WRONG},
        ),
        series(
            Words("Journal", "How long the oldest decision has waited for the disk; no answer comes before.", "s"),
            [Query('max(journal_seconds_behind{module="$module"})', "oldest")],
            6,
            {"oldest": style.DARK},
            limit=5,
        ),
    ]


def _each(counter: str) -> str:
    return f'sum(rate({counter}{{module="$module"}}[$__rate_interval]))'
