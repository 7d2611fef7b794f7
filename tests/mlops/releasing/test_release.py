"""The verdict on a candidate: every harm is named, nothing is promoted unproved, and asking often changes nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlops.releasing.release import Plan, Stage, Trial, harms, judge

DAY = 86_400_000_000
ROWS = 4_000
PLAN = Plan()
LAST = Stage("canary", 0.5, 0, 0)
NOW = 10 * DAY


def trial(seed: int = 0, rows: int = ROWS, **changed: Any) -> Trial:
    """A candidate that says nearly what production says; frauds of 2 % cost 60 where they pass, a review costs 5."""
    draw = np.random.default_rng(seed)
    fraud = draw.random(rows) < 0.02
    scores = np.where(fraud, draw.beta(5, 2, rows), draw.beta(1, 60, rows))
    ours = np.clip(scores + draw.normal(0, 0.02, rows), 0, 1)
    made: dict[str, Any] = {
        "at": np.linspace(0, 9 * DAY, rows).astype(np.int64), "met": draw.random(rows) < 0.5,
        "failed": np.zeros(rows, bool), "took": np.full(rows, 2_000), "same": np.ones(rows, bool), "scores": ours,
        "flagged": ours > 0.3, "costs": cost(ours > 0.3, fraud), "production_scores": scores,
        "production_flagged": scores > 0.3, "production_costs": cost(scores > 0.3, fraud),
    }  # fmt: skip
    return Trial(**made | {name: change(draw, rows, fraud) for name, change in changed.items()})


def cost(flagged: Any, fraud: Any) -> Any:
    return np.where(flagged, 5.0, 60.0 * fraud)


HARMS: dict[str, dict[str, Any]] = {
    "it fails": {"failed": lambda draw, rows, _: draw.random(rows) < 0.05},
    "it is slow": {"took": lambda draw, rows, _: np.where(draw.random(rows) < 0.2, 900_000, 2_000)},
    "it sees other features": {"same": lambda draw, rows, _: draw.random(rows) > 0.05},
    "it flags more": {"flagged": lambda draw, rows, _: draw.random(rows) < 0.3},
    "it flags less": {"flagged": lambda draw, rows, _: np.zeros(rows, bool)},
    "it scores higher": {"scores": lambda draw, rows, _: np.full(rows, 0.5)},
    "it scores lower": {"scores": lambda draw, rows, _: np.full(rows, 1e-4)},
    "it costs more": {"costs": lambda draw, rows, fraud: 5.0 + 60.0 * fraud},
}


@pytest.mark.parametrize("harm", HARMS)
def test_each_harm_alone_is_named_and_ends_the_trial(harm: str) -> None:
    found = trial(rows=2 * ROWS, **HARMS[harm])
    if harm == "it sees other features":
        # Where production saw the same late rows, it is no fault of the candidate.
        found = replace(found, same=found.same | ~found.met)
    verdict = judge(found, LAST, PLAN, NOW)
    assert (verdict.step, verdict.why) == ("roll back", f"against the candidate: {harm}")
    assert verdict.figures[harm] > 5


def test_late_rows_that_production_sees_differently_too_are_no_fault() -> None:
    assert judge(trial(**HARMS["it sees other features"]), LAST, PLAN, NOW).step == "hold"


def test_failures_and_slowness_of_production_are_not_the_candidates() -> None:
    found = trial()
    theirs = replace(found, failed=~found.met, took=np.where(found.met, 2_000, 10**7))
    assert judge(theirs, LAST, PLAN, NOW).step == "hold"


def test_one_that_is_as_good_for_all_we_know_is_held_and_goes_when_patience_ends() -> None:
    found = trial(rows=1_500)
    verdict = judge(found, LAST, PLAN, NOW)
    assert (verdict.step, verdict.weight) == ("hold", 0.5)
    late = judge(found, LAST, PLAN, 28 * DAY)
    assert (late.step, late.why) == ("roll back", "not shown to be as good as production in 28d")


def better() -> Trial:
    return trial(rows=8_000, production_costs=lambda draw, rows, fraud: cost(draw.random(rows) < 0.05, fraud))


def test_until_it_is_shown_to_be_as_good_it_meets_no_more_than_the_first_few() -> None:
    verdict = judge(trial(rows=1_500), Stage("shadow", 0.0, 0, 0), PLAN, NOW)
    assert (verdict.step, verdict.weight) == ("advance", 0.05)
    verdict = judge(trial(rows=1_500), Stage("canary", 0.05, 0, 0), PLAN, NOW)
    assert (verdict.step, verdict.weight) == ("hold", 0.05)


def test_a_better_one_goes_up_step_by_step_and_is_promoted_at_the_last_weight_alone() -> None:
    steps = []
    stage = Stage("shadow", 0.0, 0, 0)
    for _ in range(5):
        verdict = judge(better(), stage, PLAN, NOW)
        steps.append((verdict.step, verdict.weight))
        stage = Stage("canary", verdict.weight, 0, 0)
    assert steps == [("advance", 0.05), ("advance", 0.2), ("advance", 0.5), ("promote", 1.0), ("promote", 1.0)]


@pytest.mark.parametrize(
    ("stage", "now", "said"),
    [
        (Stage("shadow", 0.0, 0, 9 * DAY), 10 * DAY, "less than 2d in this stage"),
        (Stage("canary", 0.05, 0, 9 * DAY + DAY // 2), 10 * DAY, "less than 1d in this stage"),
        (Stage("canary", 0.05, 0, 8 * DAY + DAY * 9 // 10), 10 * DAY, "of 200 decisions in this stage"),
    ],
)
def test_a_stage_needs_its_time_and_its_decisions(stage: Stage, now: int, said: str) -> None:
    verdict = judge(trial(rows=3_000), stage, PLAN, now)
    assert verdict.step == "hold"
    assert said in verdict.why


def test_what_has_no_label_yet_is_no_evidence_about_cost() -> None:
    found = trial(**HARMS["it costs more"])
    unknown = np.full(ROWS, np.nan)
    verdict = judge(replace(found, costs=unknown, production_costs=unknown), LAST, PLAN, NOW)
    assert verdict.step == "hold"
    assert verdict.figures["labelled"] == 0


def test_one_huge_loss_decides_nothing() -> None:
    found = trial()
    costs = found.costs.copy()
    costs[17] = 1e9
    assert judge(replace(found, costs=costs), LAST, PLAN, NOW).step == "hold"


def test_before_anything_is_decided_there_is_nothing_to_say() -> None:
    empty = trial(rows=0)
    verdict = judge(empty, Stage("shadow", 0.0, 0, 0), PLAN, NOW)
    assert verdict.step == "hold"
    assert {harm: sign.log for harm, sign in harms(empty, PLAN).items()} == pytest.approx(dict.fromkeys(HARMS, 0.0))


def test_a_candidate_of_the_same_law_is_hardly_ever_taken_back_though_it_is_judged_every_day() -> None:
    wrong = 0
    for seed in range(200):
        whole = trial(seed, rows=1_500)
        for day in range(1, 10):
            past = whole.at < day * DAY
            seen = Trial(**{name: values[past] for name, values in vars(whole).items()})
            if judge(seen, LAST, PLAN, day * DAY).step == "roll back":
                wrong += 1
                break
    assert wrong / 200 <= PLAN.error_rate
