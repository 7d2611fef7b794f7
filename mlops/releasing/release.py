"""The decision about a candidate on trial: go on, promote or roll back, from what the journal says and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlops.releasing.evidence import Evidence
from mlops.traffic import CANARY, SHADOW, Mode
from mlops.values import Duration, Group, seconds

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Step = Literal["hold", "advance", "promote", "roll back"]

MICROSECONDS = 1_000_000


class Plan(Group):
    """How a candidate comes to production: first in the shadow, then as a canary of rising weight, always judged."""

    shadow: Duration = Field("2d", description="The least time in the shadow.")
    weights: tuple[float, ...] = Field(
        (0.05, 0.2, 0.5), min_length=1, description="Of a canary: the first until it has shown that it is as good."
    )
    stage: Duration = Field("1d", description="The least time at each weight.")
    decisions: int = Field(200, ge=1, description="The least decisions of each stage, of the canary where it answers.")
    patience: Duration = Field("28d", description="A candidate that has not shown to be as good by then goes.")
    error_rate: float = Field(
        0.05, gt=0, lt=1, description="How often a good candidate may be rolled back, and how often a bad one promoted."
    )
    margin: float = Field(0.05, ge=0, description="The share by which a candidate may cost more than production.")
    cap: float = Field(200.0, gt=0, description="Money above which the cost of one decision counts no more.")
    failures: float = Field(0.01, gt=0, lt=1, description="The share of requests on which a candidate may fail.")
    slow: float = Field(100.0, gt=0, description="Milliseconds from which on an answer is slow.")
    slow_share: float = Field(0.05, gt=0, lt=1, description="The share of slow answers that a candidate may have.")
    differences: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="The share of decisions on wrong features that is allowed over production's.",
    )
    times: float = Field(5.0, gt=1, description="How many times as often it may flag, or as high score, as production.")
    least: float = Field(0.1, gt=0, lt=1, description="The least it must flag, and score, as a share of production.")


@dataclass(frozen=True)
class Trial:
    """What both versions say of the decisions since the trial began, one value each; costs are NaN without a label.

    `at` is when (microseconds since 1970); `met` tells where the candidate was to answer, `failed` where it could not
    and production did, `took` how long that took (microseconds); `same` is whether the features that the decision was
    made on are those that the batch engine makes. Scores and flags of both are of the same transactions.
    """

    at: NDArray[np.int64]
    met: Flags
    failed: Flags
    took: NDArray[np.int64]
    same: Flags
    scores: Floats
    flagged: Flags
    costs: Floats
    production_scores: Floats
    production_flagged: Flags
    production_costs: Floats


class Stage(NamedTuple):
    """Where a trial stands: its mode and weight, and since when the trial and this stage go on (microseconds)."""

    mode: Mode
    weight: float
    trial_since: int
    since: int


class Verdict(NamedTuple):
    """What is to be done, why, the next weight, and the logarithms of the evidence it rests on."""

    step: Step
    why: str
    weight: float
    figures: Mapping[str, float]


def judge(trial: Trial, stage: Stage, plan: Plan, now: int) -> Verdict:
    """Judge a trial. It is the same whenever and however often one asks, for the evidence holds at any time."""
    signs = harms(trial, plan)
    merit = _merit(trial, plan)
    figures = {name: round(sign.log, 3) for name, sign in signs.items()} | {"as good": round(merit.log, 3)}
    figures |= {"decisions": len(trial.at), "met": int(trial.met.sum()), "labelled": merit.count}
    bad = [name for name, sign in signs.items() if sign.reaches(plan.error_rate / len(signs))]
    if bad:
        return Verdict("roll back", f"against the candidate: {', '.join(bad)}", 0.0, figures)
    if now - stage.trial_since >= _micro(plan.patience):
        return Verdict("roll back", f"not shown to be as good as production in {plan.patience}", 0.0, figures)
    missing = _missing(trial, stage, plan, now)
    if missing is not None:
        return Verdict("hold", missing, stage.weight, figures)
    shown = merit.reaches(plan.error_rate)
    if stage.mode == CANARY and not shown:
        # More than the first few meet a candidate only once it has shown what it is worth.
        why = f"{merit.count:,} labelled decisions do not show yet that it is as good"
        return Verdict("hold", why, stage.weight, figures)
    later = [weight for weight in plan.weights if stage.mode == SHADOW or weight > stage.weight]
    worth = f"costs at most {plan.margin:.0%} more than production on {merit.count:,} labelled decisions"
    if later:
        why = worth if shown else f"nothing against it in {figures['decisions']:,} decisions"
        return Verdict("advance", why, later[0], figures)
    return Verdict("promote", worth, 1.0, figures)


def harms(trial: Trial, plan: Plan) -> dict[str, Evidence]:
    """The evidence for each harm that a candidate can do."""
    met = trial.met
    answered = met & ~trial.failed
    # Rows that come late make differences for every version; what production has of them is no fault of the candidate.
    usual = plan.differences + float(np.mean(~trial.same[~met])) if (~met).any() else plan.differences
    loss = (_capped(trial.costs, plan) - (1 + plan.margin) * _capped(trial.production_costs, plan)) / plan.cap
    more, less = 1 / plan.times, plan.least
    return {
        "it fails": _evidence(trial.failed[met] - plan.failures, -plan.failures),
        "it is slow": _evidence((trial.took[answered] > plan.slow * 1_000) - plan.slow_share, -plan.slow_share),
        "it sees other features": _evidence(~trial.same[answered] - usual, -usual),
        "it flags more": _evidence(trial.flagged * more - trial.production_flagged, -1.0),
        "it flags less": _evidence(trial.production_flagged * less - trial.flagged, -1.0),
        "it scores higher": _evidence(trial.scores * more - trial.production_scores, -1.0),
        "it scores lower": _evidence(trial.production_scores * less - trial.scores, -1.0),
        "it costs more": _evidence(loss[~np.isnan(loss)], -(1 + plan.margin)),
    }


def _merit(trial: Trial, plan: Plan) -> Evidence:
    gain = ((1 + plan.margin) * _capped(trial.production_costs, plan) - _capped(trial.costs, plan)) / plan.cap
    return _evidence(gain[~np.isnan(gain)], -1.0)


def _evidence(values: NDArray[np.floating[Any]], low: float) -> Evidence:
    evidence = Evidence(low)
    evidence.add(values.astype(np.float64))
    return evidence


def _capped(costs: Floats, plan: Plan) -> Floats:
    return np.minimum(costs, plan.cap)


def _missing(trial: Trial, stage: Stage, plan: Plan, now: int) -> str | None:
    """What the stage still needs before the next one, in words."""
    least = plan.shadow if stage.mode == SHADOW else plan.stage
    since = trial.at >= stage.since
    count = int((since & trial.met).sum() if stage.mode == CANARY else since.sum())
    if now - stage.since < _micro(least):
        return f"less than {least} in this stage"
    return f"{count:,} of {plan.decisions:,} decisions in this stage" if count < plan.decisions else None


def _micro(length: str) -> int:
    return seconds(length) * MICROSECONDS
