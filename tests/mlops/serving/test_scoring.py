"""The scorer by itself, with a predictor that counts its past and a real journal."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlops.contract import Answer, Explanation, Labelled, Request
from mlops.errors import Refused
from mlops.journaling.group_commit import GroupCommit
from mlops.serving.answers import Answers
from mlops.serving.scoring import Clock, Decided, Outcome, Scorer
from mlops.traffic import PRODUCTION, Traffic


@dataclass
class Counting:
    """Says of each request how many are in its past."""

    remembered: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    past: str = "one"
    names: Sequence[str] = ("count",)

    def read(self, body: bytes | msgspec.Raw, now: int) -> Request:
        key = json.loads(bytes(body))
        if not isinstance(key, str):
            raise Refused("is no text", "key")
        return Request(key, key, {"key": key, "at": now})

    async def predict(self, requests: Sequence[Request], keep: bool = True) -> list[Answer]:
        self.sizes.append(len(requests))
        answers = []
        for request in requests:
            answers.append(Answer({"count": len(self.remembered)}, [float(len(self.remembered))], False))
            if keep and request.key not in self.remembered:
                self.remembered.append(request.key)
        return answers

    async def forget(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.remembered.remove(request.key)

    async def learn(self, labelled: Labelled) -> None: ...

    async def restore(self, decided: Sequence[Mapping[str, Any]]) -> None: ...

    async def catch_up(self) -> None: ...

    def happened(self, row: Mapping[str, Any]) -> int:
        return int(row["at"])

    def explain(self, seen: Sequence[float | str | None], top: int | None = None) -> Explanation:
        return Explanation(0.0, [], 0.0)


@dataclass
class One:
    """The only version there is."""

    predictor: Counting
    number: int = 1
    hash: str = "h"
    configuration: str = "c"

    traffic: Traffic = field(default_factory=lambda: Traffic(1))
    candidate: None = None

    @property
    def production(self) -> "One":
        return self

    @property
    def deployed(self) -> "One":
        return self

    def arm(self, traffic: Traffic, row: Mapping[str, Any]) -> str:
        return PRODUCTION

    def awake(self, number: int) -> "One":
        return self


class Failing:
    """A watcher with a bug."""

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        raise ZeroDivisionError

    def cache_failed(self) -> None: ...


@asynccontextmanager
async def scoring(folder: Path) -> AsyncIterator[tuple[Scorer, Counting, GroupCommit]]:
    group, predictor = GroupCommit(f"sqlite:///{folder}/journal.db"), Counting()
    await group.open()
    try:
        one = One(predictor)
        yield Scorer("test", one, one, group, Answers(100), Clock(), [Failing()]), predictor, group
    finally:
        await group.close()


def body(key: object) -> bytes:
    return json.dumps(key).encode()


def counts(outcomes: Sequence[Outcome]) -> list[int | None]:
    return [one.record.said["count"] if isinstance(one, Decided) else None for one in outcomes]


def test_what_arrives_together_is_decided_in_its_order_in_few_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, predictor, group):
            found = await asyncio.gather(*[scorer.decide([body(str(n)), body(f"{n} b")]) for n in range(100)])
            assert [counts(two) for two in found] == [[2 * n, 2 * n + 1] for n in range(100)]
            assert len(predictor.sizes) <= 3
            assert group.journal.verify().count == 200

    asyncio.run(scenario())


def test_clients_in_turn_are_decided_beside_each_others_commits(tmp_path: Path) -> None:
    """Each asks again when it was answered, as over connections: the goes settle at about half of what is under way."""

    async def client(scorer: Scorer, number: int) -> list[int | None]:
        return [count for turn in range(60) for count in counts(await scorer.decide([body(f"{number} {turn}")]))]

    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, predictor, group):
            found = await asyncio.gather(*[client(scorer, number) for number in range(16)])
            seen = [count for each in found for count in each if count is not None]
            assert sorted(seen) == list(range(960))
            assert 16 / 4 <= sum(predictor.sizes) / len(predictor.sizes) <= 16
            assert group.journal.verify().count == 960

    asyncio.run(scenario())


def test_one_that_fails_keeps_no_other_from_its_answer(tmp_path: Path) -> None:
    def broken(_: list[Outcome]) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, _, _):
            scorer.submit([body("a")], broken)
            outcomes = await scorer.decide([body("b"), body(7), body("b")])
            assert counts(outcomes) == [1, None, 1]
            await scorer.finish()

    asyncio.run(scenario())


@pytest.mark.parametrize("beside", [1, 6])
def test_what_counted_on_a_refused_one_is_refused_with_it(tmp_path: Path, beside: int) -> None:
    """While a commit fails, what was decided beside it fails too; afterwards the past holds neither."""

    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, predictor, group):
            assert counts(await scorer.decide([body("first")])) == [0]
            other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            waiting = []
            for number in range(beside):
                waiting.append(asyncio.ensure_future(scorer.decide([body(f"{number} {n}") for n in range(4)])))
                for _ in range(5):
                    await asyncio.sleep(0)
            refused = [one for outcomes in await asyncio.gather(*waiting) for one in outcomes]
            assert {one.status for one in refused if isinstance(one, Refused)} == {503}
            assert not any(isinstance(one, Decided) for one in refused)
            other.execute("COMMIT")
            other.close()
            assert counts(await scorer.decide([body("after"), body("0 0")])) == [1, 2]
            assert predictor.remembered == ["first", "after", "0 0"]
            assert group.journal.verify().count == 3

    asyncio.run(scenario())
