"""The rows on what carries the rest: the stream, and the machine."""

from monitoring import dashboard_style as style
from monitoring.dashboard_panels import Panels, Query, Words, series


def stream() -> Panels:
    """What becomes of records, how late they are decided, and what waits for somebody."""
    return [
        series(
            Words("Records by outcome", "Put away could not be decided; repeated had been decided before.", "cps"),
            [Query('sum by (outcome) (rate(stream_records_total{module="$module"}[$__rate_interval]))', "{{outcome}}")],
            8,
            style.OUTCOMES,
            stacked=True,
        ),
        series(
            Words("Behind by shard", "How much older than the newest record what is decided now is.", "s"),
            [Query('max by (shard) (stream_seconds_behind{module="$module"})', "{{shard}}")],
            8,
            limit=60,
        ),
        series(
            Words(
                "Waiting dead letters", "Records that wait for somebody: replay-dlq shows and decides them.", "short"
            ),
            [Query('max(dead_letters_waiting{module="$module"})', "waiting")],
            4,
            {"waiting": style.WRONG},
        ),
        series(
            Words("Shards tried again", "How often reading had to begin anew in 5 minutes.", "short"),
            [Query('sum(increase(stream_troubles_total{module="$module"}[5m]))', "tries")],
            4,
            {"tries": style.WARNING},
        ),
    ]


def node() -> Panels:
    """How much of each machine is used."""
    return [
        series(
            Words("Processors", "The share of their time that is used.", "percentunit"),
            [Query("instance:node_cpu:used_ratio_rate5m", "{{instance}}")],
            8,
            limit=0.95,
            top=1,
        ),
        series(
            Words("Memory", "The share that is used; at 100 % the kernel ends a process.", "percentunit"),
            [Query("instance:node_memory:used_ratio", "{{instance}}")],
            8,
            limit=0.92,
            top=1,
        ),
        series(
            Words("Disk", "The share of the root disk that is used; a full one stops all decisions.", "percentunit"),
            [Query("instance:node_filesystem:used_ratio", "{{instance}}")],
            8,
            limit=0.9,
            top=1,
        ),
    ]
