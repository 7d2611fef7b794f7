"""Releases with MLflow's own registry: an act stands in the ledger or it does not, and MLflow's names say the same."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from mlops.errors import BadInput, NotFound, Unreachable
from mlops.journaling.ledger import Ledger, Overtaken
from mlops.releasing.registry import Registry
from mlops.releasing.releases import Releases
from mlops.traffic import Mode, Traffic
from tests.mlops.serving.test_live import NAME, Place

SAID = ("one", "two", "three")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three versions in a registry of which each test gets a copy, for MLflow takes seconds to make its tables."""
    place = Place(tmp_path_factory.mktemp("registered"))
    for said in SAID:
        place.version(said)
    return place


@pytest.fixture
def place(registered: Place, tmp_path: Path) -> Place:
    shutil.copy(registered.file, tmp_path)
    return Place(tmp_path)


@pytest.fixture
def releases(place: Place, tmp_path: Path) -> Iterator[Releases]:
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.db")) as ledger:
        yield Releases(NAME, ledger, lambda: place.registry)


def aliases(place: Place) -> dict[str, int]:
    found = place.tracking.client.get_registered_model(NAME).aliases
    return {alias: int(number) for alias, number in found.items()}


def stages(place: Place) -> dict[int, str]:
    """The tag of each version that has one."""
    tags = {number: place.registry.find(NAME, number).tags for number in range(1, len(SAID) + 1)}
    return {number: tag["stage"] for number, tag in tags.items() if "stage" in tag}


def test_each_act_is_told_in_mlflows_names_and_other_names_stay(place: Place, releases: Releases) -> None:
    place.tracking.client.set_registered_model_alias(NAME, "favourite", "2")

    def names() -> tuple[dict[str, int], dict[int, str]]:
        found = aliases(place)
        assert found.pop("favourite") == 2
        return found, stages(place)

    releases.promote(1, "ada", "the first")
    assert names() == ({"production": 1}, {1: "production"})
    releases.trial(2, "shadow", 0.0, "ada", "look")
    assert names() == ({"production": 1, "shadow": 2}, {1: "production", 2: "shadow"})
    releases.trial(2, "canary", 0.1, "ada", "try")
    assert names() == ({"production": 1, "canary": 2}, {1: "production", 2: "canary"})
    releases.trial(3, "ab", 0.5, "ada", "compare")
    assert names() == ({"production": 1, "challenger": 3}, {1: "production", 3: "challenger"})
    releases.promote(3, "ada", "it won")
    assert names() == ({"production": 3, "previous": 1}, {3: "production", 1: "previous"})
    releases.trial(2, "canary", 0.1, "ada", "again")
    releases.back("ada", "it fails")
    assert names() == ({"production": 3, "previous": 1}, {3: "production", 1: "previous"})
    releases.trial(1, "canary", 0.1, "ada", "what was there before may be a candidate")
    assert names() == ({"production": 3, "canary": 1, "previous": 1}, {3: "production", 1: "canary"})
    releases.back("ada", "no")
    releases.back("ada", "the way back")
    assert names() == ({"production": 1}, {1: "production"})


@pytest.mark.parametrize("mode", [None, "shadow", "canary", "ab"])
def test_a_version_that_is_not_registered_changes_nothing(place: Place, releases: Releases, mode: Mode | None) -> None:
    releases.promote(1, "ada", "the first")
    with pytest.raises(NotFound, match="no version of 'model' is numbered 9"):
        if mode is None:
            releases.promote(9, "ada", "a typo")
        else:
            releases.trial(9, mode, 0.5, "ada", "a typo")
    assert len(releases.ledger.acts(NAME)) == 1
    assert aliases(place) == {"production": 1}


def test_what_is_refused_or_overtaken_changes_nothing(place: Place, releases: Releases) -> None:
    with pytest.raises(BadInput, match="nothing is in production"):
        releases.trial(2, "canary", 0.5, "ada", "too soon")
    releases.promote(1, "ada", "the first")
    seen = releases.trial(2, "canary", 0.5, "ada", "try").number
    releases.back("eve", "no")
    late: list[Callable[[], object]] = [
        lambda: releases.promote(2, "watch", "good", only_after=seen),
        lambda: releases.trial(2, "canary", 0.9, "watch", "good", only_after=seen),
        lambda: releases.back("watch", "bad", only_after=seen),
    ]
    for act in late:
        with pytest.raises(Overtaken):
            act()
    assert [done.act.who for done in releases.ledger.acts(NAME)] == ["ada", "ada", "eve"]
    assert aliases(place) == {"production": 1}
    assert releases.promote(2, "watch", "good", only_after=seen + 1).act.after == Traffic(2, 1)


def test_the_way_back_names_the_version_that_leaves_and_needs_no_registry(place: Place, releases: Releases) -> None:
    releases.promote(1, "ada", "the first")
    releases.promote(2, "ada", "better")
    releases.trial(3, "canary", 0.5, "ada", "try")

    def gone() -> Registry:
        raise Unreachable("nobody answers")

    alone = Releases(NAME, releases.ledger, gone)
    for _ in range(2):
        with pytest.raises(Unreachable):
            alone.back("ada", "harm", {"cost": 7.5})
    left = [(done.act.act, done.act.version, done.act.figures) for done in releases.ledger.acts(NAME)[-2:]]
    assert left == [("rolled back", 3, {"cost": 7.5}), ("rolled back", 2, {"cost": 7.5})]
    assert releases.traffic == Traffic(1)
    assert aliases(place) == {"production": 2, "previous": 1, "canary": 3}
    releases.follow()
    assert aliases(place) == {"production": 1}


def test_to_follow_twice_writes_nothing_and_mends_what_another_hand_changed(place: Place, releases: Releases) -> None:
    releases.follow()
    assert aliases(place) == {}
    releases.promote(1, "ada", "the first")
    releases.trial(2, "canary", 0.5, "ada", "try")
    before = place.file.read_bytes()
    releases.follow()
    assert place.file.read_bytes() == before
    place.tracking.client.set_registered_model_alias(NAME, "production", "3")
    place.tracking.client.delete_registered_model_alias(NAME, "canary")
    place.tracking.client.set_model_version_tag(NAME, "2", "stage", "production")
    releases.follow()
    assert aliases(place) == {"production": 1, "canary": 2}
    assert stages(place) == {1: "production", 2: "canary"}


def test_what_was_noted_and_done_last_about_a_version_is_found(place: Place, releases: Releases) -> None:
    releases.note("registered", 1, "train", "drift", {"rows": 10})
    assert releases.traffic is None
    releases.promote(1, "ada", "the first")
    releases.note("judged", 2, "gate", "worse", {"passed": False})
    releases.note("judged", 3, "gate", "good", {"passed": True})
    releases.note("judged", 2, "gate", "better now", {"passed": True})
    found = releases.done("judged", 2)
    assert found is not None
    assert (found.number, found.act.why, found.act.figures) == (5, "better now", {"passed": True})
    assert found.act.before == found.act.after == Traffic(1) == releases.traffic
    assert releases.done("judged", 1) is None
    assert releases.done("promoted", 2) is None
    assert aliases(place) == {"production": 1}


def test_what_mlflow_calls_production_are_the_files_that_were_promoted(
    place: Place, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, f"sqlite:///{place.file}")
    for version, said in ((2, "two"), (3, "three")):
        releases.promote(version, "ada", "it is better")
        folder = download_artifacts(f"models:/{NAME}@production", dst_path=str(tmp_path / said))
        assert (Path(folder) / "says.txt").read_text() == said
