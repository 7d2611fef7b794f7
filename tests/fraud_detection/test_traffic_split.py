"""The split of the traffic: exact shares, faithful entities, and nobody moved back."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops.traffic import Mode, Traffic
from modules.fraud_detection.src.data.dataset import DataSet, Label, Time
from modules.fraud_detection.src.router.traffic_split import Routing, TrafficSplit

LABEL = Label(column="fraud", delay="7d")
DATASET = DataSet(id="id", time=Time(column="time"), entities=("card", "shop"), amount="amount", label=LABEL)
CARDS = 100_000


def canary(weight: float, candidate: int = 2, mode: Mode = "canary") -> Traffic:
    return Traffic(1, None, mode, candidate, weight)


def chosen(traffic: Traffic, words: Routing = Routing()) -> set[int]:  # noqa: B008 - frozen
    split = TrafficSplit(DATASET, words)
    return {card for card in range(CARDS) if split.arm(traffic, {"card": str(card), "amount": 1.0}) == "canary"}


@pytest.mark.parametrize("weight", [0.01, 0.05, 0.2, 0.5, 0.9])
def test_the_share_of_entities_is_the_weight(weight: float) -> None:
    assert abs(len(chosen(canary(weight))) / CARDS - weight) < 0.01


def test_weight_0_is_exactly_none_and_weight_1_all() -> None:
    assert chosen(canary(0.0)) == set()
    assert len(chosen(canary(1.0))) == CARDS


def test_raising_the_weight_moves_nobody_back() -> None:
    weights = [0.0, 0.05, 0.2, 0.5, 1.0]
    met = [chosen(canary(weight)) for weight in weights]
    assert all(before < after for before, after in pairwise(met))


@pytest.mark.parametrize(
    "other", [lambda: chosen(canary(0.1, candidate=3)), lambda: chosen(canary(0.1), Routing(salt="spring"))]
)
def test_another_candidate_or_salt_meets_others_first(other: Callable[[], set[int]]) -> None:
    """Two draws of a tenth share a hundredth of all, not the same tenth."""
    both = chosen(canary(0.1)) & other()
    assert 0.008 < len(both) / CARDS < 0.012


@given(st.text(), st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_entity_stays_with_its_arm_whatever_it_pays(card: str, weight: float, one: float, another: float) -> None:
    first, second = (TrafficSplit(DATASET, Routing()) for _ in range(2))
    traffic = canary(weight)
    arms = {split.arm(traffic, {"card": card, "amount": pay}) for split in (first, second) for pay in (one, another)}
    assert len(arms) == 1


def test_large_amounts_stay_with_production() -> None:
    split = TrafficSplit(DATASET, Routing(production_from=500))
    arms = [split.arm(canary(1.0), {"card": "1", "amount": amount}) for amount in (499.99, 500.0, None)]
    assert arms == ["canary", "production", "canary"]


@pytest.mark.parametrize(
    ("mode", "arm"), [("ab", "challenger"), ("shadow", "production"), ("production", "production")]
)
def test_each_mode_has_its_arm_and_a_shadow_answers_nobody(mode: Mode, arm: str) -> None:
    assert TrafficSplit(DATASET, Routing()).arm(canary(1.0, mode=mode), {"card": "1", "amount": 1.0}) == arm


def test_without_entities_each_transaction_is_dealt_by_its_id() -> None:
    split = TrafficSplit(DATASET.model_copy(update={"entities": ()}), Routing())
    arms = [split.arm(canary(0.5), {"id": str(number)}) for number in range(2_000)]
    assert 800 < arms.count("canary") < 1_200
