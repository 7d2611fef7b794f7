"""The watch over a trial: it looks, judges and acts, by itself; two of them never act twice."""

import logging
from collections.abc import Callable

from mlops.journaling.ledger import Done, Overtaken
from mlops.releasing.release import Plan, Stage, Trial, Verdict, judge
from mlops.releasing.releases import Releases
from mlops.traffic import CANARY, SHADOW, Traffic

WHO = "watch"

log = logging.getLogger("watch")


See = Callable[[int, int, int], Trial]
"""Gives what a production and a candidate say of the decisions since a time (microseconds since 1970)."""


class Watch:
    """Judges the candidate that is in the shadow or a canary, and moves it on or takes it back.

    It keeps nothing: what it needs stands in the ledger and in the journal. An A/B test is a person's, and only looked
    at by people.
    """

    def __init__(self, releases: Releases, see: See, plan: Plan, now: Callable[[], int]) -> None:
        self._releases, self._see, self._plan, self._now = releases, see, plan, now

    def look(self) -> Verdict | None:
        """Judge the trial that runs, if one does, and do what the verdict says."""
        self._releases.follow()
        done = self._releases.ledger.acts(self._releases.name)
        now = done[-1].act.after if done else None
        if now is None or now.candidate is None or now.mode not in (SHADOW, CANARY):
            return None
        stage = _stage(done, now)
        verdict = judge(self._see(now.production, now.candidate, stage.trial_since), stage, self._plan, self._now())
        if verdict.step != "hold":
            self._act(verdict, now.candidate, done[-1].number)
        return verdict

    def _act(self, verdict: Verdict, candidate: int, last: int) -> None:
        step, why, weight, figures = verdict
        try:
            if step == "promote":
                self._releases.promote(candidate, WHO, why, figures, last)
            elif step == "advance":
                self._releases.trial(candidate, "canary", weight, WHO, why, figures, last)
            else:
                self._releases.back(WHO, why, figures, last)
        except Overtaken:
            log.info("another was first", extra={"candidate": candidate, "step": step})
        else:
            log.info("acted", extra={"candidate": candidate, "step": step, "reason": why})


def _stage(done: list[Done], now: Traffic) -> Stage:
    """Since when the trial goes on, and since when as it does now."""
    trial = since = done[-1].at
    steady = True
    for one in reversed(done):
        after = one.act.after
        if after is None or (after.production, after.candidate) != (now.production, now.candidate):
            break
        steady = steady and after == now
        since = one.at if steady else since
        trial = one.at
    return Stage(now.mode, now.weight, trial, since)
