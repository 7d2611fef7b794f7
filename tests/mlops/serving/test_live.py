"""What answers: it follows the traffic, and is kept when what comes is broken or nobody answers."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops.errors import Damaged, StorageFailed
from mlops.releasing import tracking
from mlops.releasing.registry import Registry, Version
from mlops.releasing.tracking import Tracking
from mlops.serving.live import Live
from mlops.traffic import Mode, Traffic, back, on_trial, promoted

NAME = "model"


@dataclass(frozen=True)
class Woken:
    """A predictor: what its file says."""

    said: str


class Place:
    """A real registry in a folder, and what was done with the versions in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "mlflow.db"
        self.tracking: Tracking = tracking.connect(f"sqlite:///{self.file}", str(folder / "files"))
        self.registry = Registry(self.tracking.client)
        self.traffic: Traffic | None = None
        self.woken: list[tuple[int, str]] = []
        self.prepared: list[str] = []

    def version(self, said: str) -> int:
        """Register a version whose file says this."""
        page = self.folder / "says.txt"
        page.write_text(said)
        with self.tracking.run(NAME, {}) as run:
            run.file(page, "model")
        tags = {"model_hash": f"hash of {said}", "configuration": "c"}
        return self.registry.register(NAME, run.run_id, tags).number

    def promote(self, number: int) -> None:
        self.traffic = promoted(self.traffic, number)

    def trial(self, number: int, mode: Mode = "canary") -> None:
        self.traffic = on_trial(self.traffic, number, mode, 0.5)

    def wake(self, folder: Path, version: Version) -> Woken:
        said = (folder / "says.txt").read_text()
        self.woken.append((version.number, said))
        if said.startswith("broken") or f"hash of {said}" != version.tags["model_hash"]:
            raise Damaged("says.txt is not what was written")
        return Woken(said)

    def prepare(self, woken: Woken) -> None:
        if woken.said == "a bug":
            raise ZeroDivisionError
        if woken.said == "cannot be prepared":
            raise StorageFailed("the past cannot be brought back")
        self.prepared.append(woken.said)

    @contextmanager
    def watched(
        self, registry: Callable[[], Registry] | None = None, traffic: Callable[[], Traffic | None] | None = None
    ) -> Iterator[Live[Woken]]:
        watching: Live[Woken] = Live(
            traffic or (lambda: self.traffic), registry or (lambda: self.registry), NAME, self.wake, self.prepare,
            self.folder / "cache", every=0.02,
        )  # fmt: skip
        watching.start()
        yield watching
        watching.stop()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def awaited(watching: Live[Woken], done: Callable[[], bool]) -> None:
    """Wait until it is so; every look of the watcher is an occasion."""
    with watching.changed:
        assert watching.changed.wait_for(done, 20)


def test_a_promotion_is_followed_within_two_seconds_after_preparing(place: Place) -> None:
    one, two = place.version("one"), place.version("two")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        assert watching.current is not None
        assert (watching.current.number, watching.current.predictor) == (one, Woken("one"))
        assert (watching.current.hash, watching.current.configuration) == ("hash of one", "c")
        before = watching.current
        began = time.monotonic()
        place.promote(two)
        awaited(watching, lambda: watching.current is not before)
        assert time.monotonic() - began < 2
        assert watching.current.predictor == Woken("two")
        assert place.prepared == ["one", "two"]
        assert watching.problem is None


@pytest.mark.parametrize("bad", ["broken", "cannot be prepared"])
def test_what_cannot_be_woken_leaves_the_version_before_it_and_is_not_tried_all_the_time(
    place: Place, bad: str
) -> None:
    one, two, three = place.version("one"), place.version(bad), place.version("three")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        place.promote(two)
        awaited(watching, lambda: watching.problem is not None)
        assert watching.current is not None
        assert watching.current.number == one
        looks = itertools.count()
        awaited(watching, lambda: next(looks) > 3 or len(place.woken) > 2)
        assert [number for number, _ in place.woken].count(two) == 1
        place.promote(three)
        awaited(watching, lambda: watching.current is not None and watching.current.number == three)
        assert watching.problem is None


def test_a_candidate_answers_beside_production_and_the_way_back_takes_no_waking(place: Place) -> None:
    one, two = place.version("one"), place.version("two")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        place.trial(two)
        awaited(watching, lambda: watching.deployed is not None and watching.deployed.candidate is not None)
        assert watching.current is not None
        assert watching.current.number == one
        place.promote(two)
        awaited(watching, lambda: watching.current is not None and watching.current.number == two)
        place.traffic = back(place.traffic)
        awaited(watching, lambda: watching.current is not None and watching.current.number == one)
        assert watching.deployed is not None
        assert (watching.deployed.traffic, watching.deployed.candidate) == (Traffic(one), None)
        assert [number for number, _ in place.woken] == [one, two]


def test_a_shadow_is_not_woken_where_answers_are_made(place: Place) -> None:
    one, two = place.version("one"), place.version("two")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        place.trial(two, "shadow")
        awaited(watching, lambda: watching.deployed is not None and watching.deployed.traffic.candidate == two)
        assert [number for number, _ in place.woken] == [one]


@pytest.mark.parametrize("bad", ["broken", "cannot be prepared", "a bug"])
def test_a_candidate_that_cannot_be_woken_leaves_production_alone_and_is_told(place: Place, bad: str) -> None:
    one, two = place.version("one"), place.version(bad)
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        place.trial(two)
        awaited(watching, lambda: watching.problem is not None)
        assert watching.deployed is not None
        assert (watching.deployed.production.number, watching.deployed.candidate) == (one, None)
        assert watching.problem is not None
        assert f"version {two} is not served" in watching.problem


def test_traffic_that_nobody_tells_in_flight_is_told_and_changes_nothing(place: Place) -> None:
    silent = False

    def traffic() -> Traffic | None:
        if silent:
            raise StorageFailed("nobody answers")
        return place.traffic

    place.promote(place.version("one"))
    with place.watched(traffic=traffic) as watching:
        assert watching.wait(20)
        before = watching.deployed
        silent = True
        awaited(watching, lambda: watching.problem == "nobody answers")
        assert watching.deployed is before
        silent = False
        awaited(watching, lambda: watching.problem is None)
        assert watching.deployed == before


def test_a_registry_that_fails_keeps_a_new_version_out_and_the_old_one_in(place: Place) -> None:
    one, two = place.version("one"), place.version("two")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        whole = place.file.read_bytes()
        place.file.write_bytes(b"this is no database" * 1_000)
        place.promote(two)
        awaited(watching, lambda: watching.problem is not None)
        assert watching.current is not None
        assert watching.current.number == one
        place.file.write_bytes(whole)


def gone() -> Registry:
    raise StorageFailed("nobody answers")


def test_without_a_registry_the_versions_in_the_cache_are_served(place: Place) -> None:
    place.promote(place.version("one"))
    with place.watched() as watching:
        assert watching.wait(20)
    with place.watched(gone) as watching:
        assert watching.wait(20)
        assert watching.current is not None
        assert watching.current.predictor == Woken("one")
        assert watching.problem is None


def test_without_a_word_about_the_traffic_what_was_in_production_last_is_served(place: Place) -> None:
    place.promote(place.version("one"))
    with place.watched() as watching:
        assert watching.wait(20)

    def silent() -> Traffic | None:
        raise StorageFailed("nobody tells")

    with place.watched(gone, silent) as watching:
        assert watching.wait(20)
        assert watching.current is not None
        assert watching.current.predictor == Woken("one")
        assert watching.problem == "nobody tells"


def test_without_a_registry_and_without_a_past_there_is_a_problem_and_no_version(place: Place) -> None:
    place.promote(place.version("one"))
    with place.watched(gone) as watching:
        awaited(watching, lambda: watching.problem == "nobody answers")
        assert watching.current is None
        assert not watching.wait(0)


def test_before_the_first_promotion_the_way_to_one_is_named(place: Place) -> None:
    with place.watched() as watching:
        awaited(watching, lambda: watching.problem != "no version has been woken yet")
        assert watching.problem == "no version of 'model' is in production; make one: python -m modules.model pipeline"


def test_older_versions_wake_from_the_cache_and_a_damaged_cache_is_fetched_anew(place: Place) -> None:
    one, two = place.version("one"), place.version("two")
    place.promote(one)
    with place.watched() as watching:
        assert watching.wait(20)
        place.promote(two)
        awaited(watching, lambda: watching.current is not None and watching.current.number == two)
        assert watching.awake(one).predictor == Woken("one")
        woken = len(place.woken)
        assert watching.awake(one) is watching.awake(one)
        assert len(place.woken) == woken
    for file in (place.folder / "cache").glob("*/says.txt"):
        file.write_text("spoilt")
    with place.watched() as watching:
        assert watching.wait(20)
        assert watching.current is not None
        assert watching.current.predictor == Woken("two")
        assert watching.awake(one).predictor == Woken("one")
