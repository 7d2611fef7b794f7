"""What the dashboards have in common: one colour for one meaning, and when a value is good."""

from collections.abc import Mapping, Sequence

# Of what has a colour of its own, red is for what is wrong and for nothing else.
GOOD, WARNING, WRONG, QUIET = "#73BF69", "#FADE2A", "#F2495C", "#8E8E8E"
PRODUCTION, CANDIDATE = "#5794F2", "#FF9830"
LIGHT, MIDDLE, DARK = "#C0D8FF", "#8AB8FF", "#3274D9"
VIOLET = "#B877D9"

Colours = Mapping[str, str]
"""The colour of each series, by a pattern of its name."""
Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first has no value."""
Texts = Mapping[str, tuple[str, str]]
"""What stands for a value, and its colour."""

QUANTILES: Colours = {"p50": LIGHT, "p95": MIDDLE, "p99": DARK}
STATUSES: Colours = {"2..": GOOD, "4..": WARNING, "5..": WRONG}
MISTAKES: Colours = {"refused": WARNING, "failed": WRONG}
DECISIONS: Colours = {"approve": GOOD, "review": WARNING, "decline": VIOLET}
ARMS: Colours = {"production.*": PRODUCTION, "(canary|challenger|candidate).*": CANDIDATE}
OUTCOMES: Colours = {"decided": GOOD, "repeated": QUIET, "put away": WRONG}
ALARMS: Texts = {"0": ("calm", GOOD), "1": ("open", WRONG)}
DRIFT: Texts = {"-1": ("too little data", QUIET), "0": ("none", GOOD), "1": ("drifted", WRONG)}


def rising(warning: float, wrong: float) -> Steps:
    """Good at 0, and worse the higher."""
    return [(None, GOOD), (warning, WARNING), (wrong, WRONG)]


BUDGET: Steps = [(None, WRONG), (0, WARNING), (0.25, GOOD)]
NONE_IS_GOOD: Steps = [(None, GOOD), (1, WRONG)]
