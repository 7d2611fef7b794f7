"""The watch with a real ledger and registry: it acts by itself, once, and from what stands written alone."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlops.errors import NotFound, Unreachable
from mlops.journaling.ledger import Ledger
from mlops.releasing.registry import Registry
from mlops.releasing.release import Plan, Trial
from mlops.releasing.releases import Releases
from mlops.releasing.watch import WHO, Watch
from mlops.traffic import Traffic
from tests.mlops.releasing.test_release import better, cost, trial
from tests.mlops.serving.test_live import NAME, Place

DAY = 86_400_000_000
PLAN = Plan()


class World:
    """A ledger and a registry with three versions, a clock, and what both versions are seen to say."""

    def __init__(self, folder: Path) -> None:
        place = Place(folder)
        self.now, self.url = 0, f"sqlite:///{folder}/ledger.db"
        self.registry: Registry = place.registry
        for said in ("one", "two", "three"):
            place.version(said)
        self.ledger = Ledger(self.url, lambda: self.now)
        self.releases = Releases(NAME, self.ledger, lambda: self.registry)
        self.releases.promote(1, "ada", "the first")
        self.seen: Trial = trial()
        self.asked: list[tuple[int, int, int]] = []

    def see(self, production: int, candidate: int, since: int) -> Trial:
        self.asked.append((production, candidate, since))
        return replace(self.seen, at=np.full(len(self.seen.at), self.now - 1))

    def watch(self) -> Watch:
        """Another watch, as after a restart."""
        ledger = Ledger(self.url, lambda: self.now)
        return Watch(Releases(NAME, ledger, lambda: self.registry), self.see, PLAN, lambda: self.now)

    def traffic(self) -> Traffic | None:
        return self.ledger.traffic(NAME)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.verify()
    made.ledger.close()


def test_a_better_candidate_goes_from_the_shadow_into_production_by_itself(world: World) -> None:
    world.releases.trial(2, "shadow", 0.0, "retrain", "drift")
    world.seen = better()
    assert (verdict := world.watch().look()) is not None
    assert verdict.step == "hold"
    weights = []
    for day in range(2, 8):
        world.now = day * DAY
        # A new watch each time: what it needs stands in the ledger.
        world.watch().look()
        now = world.traffic()
        assert now is not None
        weights.append(now.weight)
    assert weights == [0.05, 0.2, 0.5, 0.0, 0.0, 0.0]
    assert world.traffic() == Traffic(2, previous=1)
    assert world.registry.find(NAME, "production").number == 2
    assert set(world.asked) == {(1, 2, 0)}
    acts = [done.act for done in world.ledger.acts(NAME)][2:]
    assert [act.act for act in acts] == ["canary", "canary", "canary", "promoted"]
    assert {act.who for act in acts} == {WHO}
    assert "costs at most 5% more than production" in acts[-1].why
    assert acts[-1].figures["as good"] > 3


def test_a_harmful_one_is_taken_back_with_reason_and_figures(world: World) -> None:
    world.releases.trial(2, "canary", 0.2, "ada", "it will do")
    world.seen = trial(rows=8_000, costs=lambda draw, rows, fraud: 5.0 + cost(draw.random(rows) < 2, fraud))
    world.watch().look()
    assert world.traffic() == Traffic(1)
    last = world.ledger.acts(NAME)[-1].act
    assert (last.act, last.version, last.who) == ("rolled back", 2, WHO)
    assert last.why == "against the candidate: it costs more"
    assert last.figures["it costs more"] > 5
    with pytest.raises(NotFound, match="canary"):
        world.registry.find(NAME, "canary")
    assert world.watch().look() is None


def test_many_watches_at_once_act_once(world: World) -> None:
    world.releases.trial(2, "shadow", 0.0, "retrain", "drift")
    world.seen, world.now = better(), 2 * DAY
    ready = threading.Barrier(4)

    def look() -> None:
        watch = world.watch()
        ready.wait()
        watch.look()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.act.act for done in world.ledger.acts(NAME)] == ["promoted", "shadow", "canary"]


def test_what_a_person_does_meanwhile_stands(world: World) -> None:
    """Between the look and the act somebody ends the trial: the watch does nothing."""
    world.releases.trial(2, "shadow", 0.0, "retrain", "drift")
    world.seen, world.now = better(), 2 * DAY
    watch = world.watch()
    seen = world.see

    def meanwhile(production: int, candidate: int, since: int) -> Trial:
        world.releases.back("ada", "not today")
        return seen(production, candidate, since)

    watch._see = meanwhile
    watch.look()
    assert [done.act.act for done in world.ledger.acts(NAME)] == ["promoted", "shadow", "rolled back"]


def test_an_ab_test_is_left_to_people(world: World) -> None:
    world.releases.trial(2, "ab", 0.5, "ada", "compare")
    world.now = 100 * DAY
    assert world.watch().look() is None
    assert world.asked == []


def test_names_that_a_crash_left_behind_follow_at_the_next_look(world: World) -> None:
    registry = world.registry

    class Gone:
        def find(self, name: str, which: str | int) -> object:
            return registry.find(name, which)

        def call(self, name: str, arms: object) -> None:
            raise Unreachable("nobody answers")

    world.registry = Gone()  # type: ignore[assignment]
    with suppress(Unreachable):
        world.releases.promote(2, "ada", "it is better")
    world.registry = registry
    assert world.traffic() == Traffic(2, previous=1)
    assert registry.find(NAME, "production").number == 1
    world.watch().look()
    assert registry.find(NAME, "production").number == 2
    assert registry.find(NAME, "previous").number == 1


def test_a_candidate_that_comes_again_begins_anew(world: World) -> None:
    world.releases.trial(2, "shadow", 0.0, "retrain", "drift")
    world.now = 5 * DAY
    world.releases.back("ada", "wait")
    world.now = 9 * DAY
    world.releases.trial(2, "shadow", 0.0, "ada", "now")
    world.now = 10 * DAY
    verdict = world.watch().look()
    assert verdict is not None
    assert verdict.why == "less than 2d in this stage"
    assert world.asked == [(1, 2, 9 * DAY)]
