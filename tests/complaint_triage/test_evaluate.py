"""Who looks at a complaint is chosen as by trying everything, and figures are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from modules.complaint_triage.src.models.evaluate import Costs, Routed, report, review_from

ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), st.booleans()), min_size=1, max_size=30)


def routed(rows: list[tuple[float, bool]]) -> Routed:
    wrong = np.array([wrong for _, wrong in rows], np.int64)
    return Routed(np.zeros(len(rows), np.int64), np.array([doubt for doubt, _ in rows]), wrong)


def cost(rows: list[tuple[float, bool]], limit: float, costs: Costs) -> float:
    return sum(costs.review if doubt >= limit else costs.misrouted * wrong for doubt, wrong in rows)


@given(ROWS, st.sampled_from([0.5, 2.0, 20.0]))
def test_no_other_limit_is_cheaper(rows: list[tuple[float, bool]], review: float) -> None:
    costs = Costs(review=review, misrouted=15)
    chosen = cost(rows, review_from(routed(rows), costs), costs)
    limits = [0.0, *(doubt for doubt, _ in rows), 2.0]
    assert chosen == pytest.approx(min(cost(rows, limit, costs) for limit in limits))


def test_where_a_look_is_never_worth_it_nobody_looks() -> None:
    assert review_from(routed([(0.9, False), (0.1, False)]), Costs()) > 1


def test_figures_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    said, truth, doubts = draw.integers(0, 4, 500), draw.integers(0, 5, 500), draw.random(500)
    truth[::2] = said[::2]
    found = report(Routed(said, doubts, truth), 5, Costs(review=1, misrouted=10), 0.6)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
    alone = doubts < 0.6
    assert found["share_reviewed"] == pytest.approx(1 - alone.mean())
    assert found["accuracy_of_routed"] == pytest.approx(accuracy_score(truth[alone], said[alone]))
    assert found["cost_per_1000"] == pytest.approx(2 * ((~alone).sum() + 10 * (said != truth)[alone].sum()))
    low, high = found["accuracy_interval"]
    assert 0 < low < found["accuracy"] < high < 1
