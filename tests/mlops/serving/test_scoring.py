"""The scorer by itself, with a predictor that counts its past and a real journal."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlops import logs
from mlops.contract import Answer, Explanation, Labelled, Request, Told
from mlops.errors import Refused
from mlops.journaling.group_commit import GroupCommit
from mlops.serving.answers import Answers
from mlops.serving.scoring import Clock, Decided, Outcome, Scorer
from mlops.traffic import PRODUCTION, Traffic
from tests.mlops.test_logs import written

FAILED = {"journal": 503, "bug": 500}


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


@pytest.mark.parametrize("fault", ["journal", "bug"])
def test_what_could_not_be_decided_is_logged_once_with_all_that_is_known_of_it(tmp_path: Path, fault: str) -> None:
    """Requests by the short way and by the long one, decided together; what was answered before is none of it."""

    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, predictor, _):
            await scorer.decide([body("before")])
            other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
            if fault == "journal":
                other.execute("BEGIN EXCLUSIVE")
            else:
                predictor.names = predictor.sizes = None  # type: ignore[assignment]
            told: list[Outcome] = []
            with written("scoring") as lines:
                scorer.submit([body("one")], told.extend, b"r-1")
                with logs.handling(b"r-2"):
                    told += await scorer.decide([body("two"), body("before"), body(7)])
                with logs.handling(b"r-3"):
                    await scorer.decide([body("three")])
                together, alone = lines()
            other.close()
            assert [one.status if isinstance(one, Refused) else 200 for one in told] == [FAILED[fault]] * 2 + [200, 422]
            ids = [scorer.id(key).hex() for key in ("one", "two", "three")]
            assert (together["request_ids"], together["decision_ids"]) == (["r-1", "r-2"], ids[:2])
            assert (alone["request_id"], alone["decision_id"]) == ("r-3", ids[2])
            assert together["version"] == alone["version"] == 1

    asyncio.run(scenario())


def test_what_fails_after_a_decision_was_found_is_logged_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scoring(tmp_path) as (scorer, _, _):
            (decided,) = await scorer.decide([body("known")])
            assert isinstance(decided, Decided)
            with written("") as lines:
                for ask in (
                    lambda: scorer.explain(decided.record), lambda: scorer.find(decided.id),
                    lambda: scorer.what_if(body("known")), lambda: scorer.what_if(body("new")),
                    lambda: scorer.learn(Told("known", 1, None)),
                ):  # fmt: skip
                    with logs.handling(b"r-1"):
                        await ask()
                        logging.getLogger("door").info("failed")
                found = [(line["decision_id"], line.get("version")) for line in lines()]
            known, new = scorer.id("known").hex(), scorer.id("new").hex()
            assert found == [(known, 1), (known, None), (known, None), (new, 1), (known, None)]

    asyncio.run(scenario())
