"""Two versions in one scorer: each request goes its way, and both remember everything."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlops import logs
from mlops.contract import Answer, Labelled, Request, Told
from mlops.errors import Refused
from mlops.journaling.group_commit import GroupCommit
from mlops.serving.answers import Answers
from mlops.serving.scoring import Clock, Decided, Outcome, Scorer
from mlops.traffic import CANARY, CHALLENGER, PRODUCTION, Traffic
from tests.mlops.serving.test_scoring import Counting, body
from tests.mlops.test_logs import written


@dataclass
class Telling(Counting):
    """A predictor that also keeps what it is told of what others decided and of labels."""

    told: list[str] = field(default_factory=list)
    labels: list[tuple[str, int]] = field(default_factory=list)
    fails: bool = False
    caught_up: int = 0

    async def predict(self, requests: Sequence[Request], keep: bool = True) -> list[Answer]:
        if self.fails:
            raise ZeroDivisionError
        return await super().predict(requests, keep)

    async def restore(self, decided: Sequence[Mapping[str, Any]]) -> None:
        self.told += [row["key"] for row in decided if row["key"] not in self.told]

    async def catch_up(self) -> None:
        self.caught_up += 1

    async def learn(self, labelled: Labelled) -> None:
        self.labels.append((labelled.row["key"], labelled.facts[-1][1]))


@dataclass
class Version:
    predictor: Telling
    number: int
    hash: str = "h"
    configuration: str = "c"


@dataclass
class Both:
    """Production and a candidate; keys that begin with c are the candidate's."""

    production: Version
    candidate: Version | None
    traffic: Traffic = field(default_factory=lambda: Traffic(1, None, "canary", 2, 0.5))

    @property
    def deployed(self) -> "Both":
        return self

    def awake(self, number: int) -> Version:
        raise NotImplementedError

    def arm(self, traffic: Traffic, row: Mapping[str, Any]) -> str:
        arm = CHALLENGER if traffic.mode == "ab" else CANARY
        return arm if traffic.answering is not None and row["key"].startswith("c") else PRODUCTION


@asynccontextmanager
async def scoring(folder: Path, both: Both) -> AsyncIterator[Scorer]:
    group = GroupCommit(f"sqlite:///{folder}/journal.db")
    await group.open()
    try:
        yield Scorer("test", both, both, group, Answers(100), Clock())
    finally:
        await group.close()


def both(past: str = "one") -> Both:
    one = Telling()
    two = Telling(past=past) if past != "one" else Telling(remembered=one.remembered)
    return Both(Version(one, 1), Version(two, 2))


def said(outcomes: Sequence[Outcome]) -> list[tuple[str, int, int, int | None]]:
    """The arm, the version, how many were in its past, and whom it stood in for."""
    records = [one.record for one in outcomes if isinstance(one, Decided)]
    return [(each.model.arm, each.model.version, each.said["count"], each.instead_of) for each in records]


def test_each_request_goes_to_its_arm_with_those_before_it_in_its_past(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scoring(tmp_path, both()) as scorer:
            outcomes = await scorer.decide([body(key) for key in ("p1", "c1", "c2", "p2", "c3")])
            assert said(outcomes) == [
                ("production", 1, 0, None), ("canary", 2, 1, None), ("canary", 2, 2, None),
                ("production", 1, 3, None), ("canary", 2, 4, None),
            ]  # fmt: skip

    asyncio.run(scenario())


@pytest.mark.parametrize("awake", [True, False])
def test_a_candidate_that_fails_or_could_not_be_woken_costs_nobody_an_answer(tmp_path: Path, awake: bool) -> None:
    async def scenario() -> None:
        versions = both()
        assert versions.candidate is not None
        versions.candidate.predictor.fails = True
        if not awake:
            versions.candidate = None
        async with scoring(tmp_path, versions) as scorer:
            with written("arms") as lines, logs.handling(b"r-1"):
                outcomes = await scorer.decide([body(key) for key in ("p1", "c1", "p2")])
                found = [(line["request_id"], line["decision_id"], line["version"]) for line in lines()]
            assert said(outcomes) == [("production", 1, 0, None), ("production", 1, 1, 2), ("production", 1, 2, None)]
            assert found == [("r-1", scorer.id("c1").hex(), 2)] * awake

    asyncio.run(scenario())


def test_two_pasts_are_both_told_of_every_decision_and_label(tmp_path: Path) -> None:
    async def scenario() -> None:
        versions = both("another")
        async with scoring(tmp_path, versions) as scorer:
            await scorer.decide([body(key) for key in ("p1", "c1", "p2")])
            await scorer.learn(Told("c1", 1, None))
            assert versions.candidate is not None
            one, two = versions.production.predictor, versions.candidate.predictor
            assert (one.remembered, one.told) == (["p1", "p2"], ["c1"])
            assert (two.remembered, two.told) == (["c1"], ["p1", "p2"])
            assert one.labels == two.labels == [("c1", 1)]

    asyncio.run(scenario())


def test_what_was_decided_keeps_its_arm_when_the_traffic_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        versions = both()
        async with scoring(tmp_path, versions) as scorer:
            before = await scorer.decide([body("c1")])
            versions.traffic, versions.candidate = Traffic(1), None
            again = await scorer.decide([body("c1"), body("c2")])
            assert said(again) == [*said(before), ("production", 1, 1, None)]
            assert isinstance(again[0], Decided)
            assert again[0].replayed

    asyncio.run(scenario())


def test_in_an_ab_test_the_other_is_the_challenger(tmp_path: Path) -> None:
    async def scenario() -> None:
        versions = both()
        versions.traffic = Traffic(1, None, "ab", 2, 0.5)
        async with scoring(tmp_path, versions) as scorer:
            assert [arm for arm, *_ in said(await scorer.decide([body("c1"), body("p1")]))] == [
                "challenger",
                "production",
            ]

    asyncio.run(scenario())


def test_a_past_catches_up_when_it_comes_into_use_and_is_told_from_then_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        versions = both("another")
        candidate, versions.candidate = versions.candidate, None
        assert candidate is not None
        one, two = versions.production.predictor, candidate.predictor
        async with scoring(tmp_path, versions) as scorer:
            await scorer.decide([body("p1")])
            assert (one.caught_up, two.caught_up) == (1, 0)
            versions.candidate = candidate
            for key in ("p2", "c1"):
                await scorer.decide([body(key)])
            assert (one.caught_up, two.caught_up, two.told, one.told) == (1, 1, ["p2"], ["c1"])
            versions.candidate = None
            await scorer.decide([body("p3")])
            versions.candidate = candidate
            await scorer.decide([body("p4")])
            # What was decided while it was away it was told, or it caught up with it.
            assert two.caught_up == 2 or "p3" in two.told
            assert (one.caught_up, two.told[-1]) == (1, "p4")

    asyncio.run(scenario())


def test_a_label_is_told_to_every_past_once_before_the_first_decision_and_while_a_candidate_is_away(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        versions = both("another")
        candidate = versions.candidate
        assert candidate is not None
        async with scoring(tmp_path, versions) as scorer:
            await scorer.decide([body("p1"), body("c1")])
            versions.candidate = None
            await scorer.learn(Told("p1", 1, None))
            versions.candidate = candidate
            assert versions.production.predictor.labels == candidate.predictor.labels == [("p1", 1)]
        alike = both()
        assert alike.candidate is not None
        async with scoring(tmp_path, alike) as restarted:
            await restarted.learn(Told("p1", 0, None))
            assert alike.production.predictor.labels + alike.candidate.predictor.labels == [("p1", 0)]

    asyncio.run(scenario())


def test_what_would_be_answered_is_asked_of_the_version_that_would_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        versions = both()

        async def asked(key: str) -> tuple[str, int]:
            found = await scorer.what_if(body(key))
            assert not isinstance(found, Decided)
            return found[2].arm, found[2].version

        async with scoring(tmp_path, versions) as scorer:
            assert [await asked(key) for key in ("p1", "c1")] == [("production", 1), ("canary", 2)]
            versions.candidate = None
            assert await asked("c1") == ("production", 1)
            assert said(await scorer.decide([body("p1")])) == [("production", 1, 0, None)]

    asyncio.run(scenario())


def test_what_could_not_be_kept_leaves_the_past_of_the_version_that_decided_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scoring(tmp_path, both("another")) as scorer:
            await scorer.decide([body("p1")])
            other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            assert isinstance((await scorer.decide([body("c1")]))[0], Refused)
            other.execute("COMMIT")
            other.close()
            assert said(await scorer.decide([body("c2"), body("p2")])) == [
                ("canary", 2, 0, None), ("production", 1, 1, None),
            ]  # fmt: skip

    asyncio.run(scenario())
