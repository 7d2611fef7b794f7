"""Performance with labels and without, and the test of what a score means: known answers, chance, and planted drift."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from mlops.errors import BadData
from monitoring.drift import Drift
from monitoring.drift_report import ConceptDrift
from monitoring.performance import Calibration, Decisions, Floats, calibrate, concept_drift, estimate, realised

WORDS = Drift()
Labels = np.ndarray


def scored(rows: int, seed: int, base: float = -3.0, change: float = 0.0) -> tuple[Floats, Labels]:
    """Scores of a logit about `base`, and labels as the scores say; `change` is how much more than they say."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(base, 2, rows)
    scores, chances = (1 / (1 + np.exp(-(logits + more))) for more in (0, change))
    return scores, (draw.random(rows) < chances).astype(np.int64)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.integers(0, 1)), min_size=2, max_size=50))
def test_ranking_is_measured_as_scikit_learn_does(rows: list[tuple[float, int]]) -> None:
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    found = realised(scores, labels)
    if 0 < labels.sum() < labels.size:
        assert found.average_precision == pytest.approx(average_precision_score(labels, scores))
        assert found.roc_auc == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert found.average_precision is found.roc_auc is None


def test_decisions_by_hand() -> None:
    labels = np.array([1, 0, 1, 0])
    decisions = Decisions(np.array([True, True, False, False]), np.array([10.0, 20.0, 30.0, 40.0]), review=2.0)
    found = realised(np.array([0.9, 0.8, 0.3, 0.1]), labels, decisions)
    assert (found.precision, found.recall, found.positives) == (0.5, 0.5, 2)
    # Two reviews, and the third row's 30 lost, over four rows.
    assert found.cost == 1_000 * (2 * 2 + 30) / 4


def test_decisions_that_flag_nothing_have_no_precision() -> None:
    decisions = Decisions(np.array([False, False]), np.array([10.0, 20.0]), review=2.0)
    found = realised(np.array([0.2, 0.1]), np.array([0, 0]), decisions)
    assert (found.precision, found.recall, found.cost) == (None, None, 0)


def test_an_estimate_by_hand_sums_what_the_scores_promise() -> None:
    calibration = Calibration([0.0, 1.0], [0.0, 1.0], [], [100])
    scores = np.array([0.8, 0.4])
    decisions = Decisions(np.array([True, False]), np.array([50.0, 100.0]), review=5.0)
    found = estimate(calibration, scores, decisions).expected
    assert found.rows == 2
    assert [found.positives, found.precision, found.recall] == pytest.approx([1.2, 0.8, 0.8 / 1.2])
    assert found.cost == pytest.approx(1_000 * (5 + 0.4 * 100) / 2)
    # Recall .8 / 1.2 at precision .8, then the rest at precision 1.2 / 2.
    assert found.average_precision == pytest.approx((0.8 * 0.8 + 0.4 * 0.6) / 1.2)


def test_what_comes_lies_within_the_estimate_as_often_as_it_says_also_where_rows_have_changed() -> None:
    calibration, within = calibrate(*scored(100_000, 0)), 0
    for seed in range(1, 101):
        # Higher scores than the calibration was learned on, whose meaning stays.
        scores, labels = scored(2_000, seed, base=-2.0)
        promised, came = estimate(calibration, scores), realised(scores, labels)
        assert promised.low.average_precision and came.average_precision and promised.high.average_precision
        within += promised.low.average_precision <= came.average_precision <= promised.high.average_precision
    assert 88 <= within <= 100


def test_a_calibration_learns_a_curve_that_never_falls_and_survives_json() -> None:
    scores, labels = scored(100_000, 0)
    found = calibrate(scores**2, labels)
    grid = np.linspace(0.05, 0.9, 20)
    assert found.apply(grid**2) == pytest.approx(grid, abs=0.06)
    assert np.all(np.diff(found.apply(np.linspace(-1, 2, 500))) >= 0)
    assert sum(found.rows) == 100_000
    assert len(found.rows) == len(found.edges) + 1 <= 10
    again = msgspec.json.decode(msgspec.json.encode(found), type=Calibration)
    assert again == found
    assert again.apply(grid).tolist() == found.apply(grid).tolist()


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_labels_of_one_kind_calibrate_nothing(labels: list[int]) -> None:
    with pytest.raises(BadData, match="are the same; give rows of both kinds"):
        calibrate(np.linspace(0, 1, len(labels)), np.array(labels, dtype=np.int64))


def test_scores_that_part_the_labels_wholly_are_calibrated_as_well() -> None:
    scores, labels = np.repeat([0.1, 0.9], 500), np.repeat([0, 1], 500)
    found = calibrate(scores, labels)
    assert concept_drift(found, scores, labels, WORDS).verdict == "stable"
    assert concept_drift(found, scores, 1 - labels, WORDS).verdict == "drifted"


def judged(seed: int, change: float = 0.0, rows: int = 5_000, base: float = -3.0, looks: int = 1) -> ConceptDrift:
    return concept_drift(calibrate(*scored(20_000, 0)), *scored(rows, seed, base, change), WORDS, looks)


def test_a_score_that_means_what_it_meant_is_stable_also_where_rows_have_changed() -> None:
    assert judged(1).verdict == "stable"
    assert judged(1, base=-1.0).verdict == "stable"
    assert judged(1, base=-5.0).verdict == "stable"


def test_more_positives_at_the_same_scores_are_found() -> None:
    found = judged(1, change=1.0)
    assert found.verdict == "drifted"
    assert found.misplaced is not None and found.misplaced > 0.2
    assert judged(1, change=-1.0).verdict == "drifted"
    assert sum(bin_.rows for bin_ in found.bins) == found.whole.rows == found.labels == 5_000


def test_a_change_that_no_bin_shows_by_itself_shows_in_all_of_them() -> None:
    found = judged(3, change=0.6, rows=1_000)
    assert min(bin_.chance for bin_ in found.bins) > 0.01
    assert found.verdict == "drifted"


def test_positives_that_change_places_show_in_bins_and_not_in_all_of_them() -> None:
    scores, labels = scored(5_000, 1, base=0.0)
    low = np.argsort(scores)[:500]
    high = np.argsort(scores)[-500:]
    labels[low], labels[high] = labels[high], labels[low].copy()
    found = concept_drift(calibrate(*scored(20_000, 0, base=0.0)), scores, labels, WORDS)
    assert found.whole.chance > 0.01
    assert found.verdict == "drifted"


def test_a_change_that_is_certain_but_small_is_stable() -> None:
    found = concept_drift(calibrate(*scored(200_000, 0)), *scored(200_000, 1, change=0.15), WORDS)
    assert found.chance is not None and found.chance < 1e-4
    assert found.verdict == "stable"


def test_a_promise_that_leans_on_few_reference_rows_is_worth_no_more_than_they_are() -> None:
    calibration = Calibration([0.0, 1.0], [0.0, 1.0], [0.5], [10_000, 20])
    # All scores of now lie where the reference had 20 rows: .6 may well be what .8 was.
    scores, labels = np.full(1_000, 0.8), np.repeat([1, 0], [600, 400])
    found = concept_drift(calibration, scores, labels, WORDS)
    assert found.verdict == "stable"
    assert found.misplaced == pytest.approx(0.25)
    many = msgspec.structs.replace(calibration, rows=[10_000, 2_000])
    assert concept_drift(many, scores, labels, WORDS).verdict == "drifted"


def test_a_later_look_at_a_score_asks_for_more() -> None:
    first = judged(3, change=0.8, rows=1_000)
    assert first.verdict == "drifted"
    assert judged(3, change=0.8, rows=1_000, looks=1_000_000).verdict == "stable"


def test_few_labels_say_nothing_and_none_at_all_neither() -> None:
    found = judged(1, change=5.0, rows=499)
    assert (found.verdict, found.misplaced, found.chance) == ("not enough rows", None, None)
    assert judged(1, rows=0).labels == 0


@pytest.mark.parametrize("base", [-4.0, 0.0])
def test_over_repeated_looks_chance_takes_the_meaning_of_a_score_no_more_often_than_stated(base: float) -> None:
    any_ = Drift(misplaced=1e-9, labels=50, false_alarm=0.6)
    sequences, alarms = 100, 0
    for seed in range(sequences):
        calibration = calibrate(*scored(3_000, 1_000 + seed, base))
        looks = (scored(1_000, 10_000 + 10 * seed + look, base) for look in range(1, 4))
        alarms += any(
            concept_drift(calibration, *rows, any_, look).verdict == "drifted" for look, rows in enumerate(looks, 1)
        )
    # The third of .6 that is the score's, and three deviations.
    assert alarms <= 0.2 * sequences + 3 * (0.2 * 0.8 * sequences) ** 0.5
