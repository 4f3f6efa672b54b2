import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import Ragged
from ttcjax.verify.quality import auroc, best_threshold, brier, first_error, reliability

coarse = st.integers(0, 6).map(lambda i: i / 6)  # few values, so that ties are common


def ragged_pair(solutions):
    """Solutions as lists of (score, truth) to scores and truth."""
    return (
        Ragged.from_lists([[s for s, _ in steps] for steps in solutions]),
        Ragged.from_lists([[t for _, t in steps] for steps in solutions], dtype=bool),
    )


def plain_first_error(solutions, threshold):
    """ProcessBench's definition, solution by solution."""
    right = {True: [], False: []}
    for steps in solutions:
        wrong = next((i for i, (_, truth) in enumerate(steps) if not truth), -1)
        called = next((i for i, (score, _) in enumerate(steps) if score < threshold), -1)
        right[wrong >= 0].append(wrong == called)
    a, b = (sum(right[kind]) / len(right[kind]) for kind in (True, False))
    return a, b, 2 * a * b / (a + b) if a + b else 0.0


solutions = st.lists(st.lists(st.tuples(coarse, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=12).map(
    lambda drawn: [*drawn, [(0.5, True)], [(0.5, True), (0.2, False)]]  # both kinds are always there
)


@given(st.lists(st.tuples(coarse, st.booleans()), max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p, a in pairs if a for n, b in pairs if not b]
    got = auroc(np.array([s for s, _ in pairs]), np.array([t for _, t in pairs], bool))
    if wins:
        assert got == pytest.approx(sum(wins) / len(wins))
    else:
        assert math.isnan(got)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 12))
def test_calibration_error_and_brier_match_a_loop(pairs, bins):
    scores, targets = np.array(pairs).T
    error = 0.0
    for b in range(bins):
        inside = [(s, t) for s, t in pairs if min(int(s * bins), bins - 1) == b]
        error += abs(sum(s - t for s, t in inside)) / len(pairs)
    result = reliability(scores, targets, bins)
    assert result.error == pytest.approx(error, abs=1e-12)
    assert result.counts.sum() == len(pairs)
    assert brier(scores, targets) == pytest.approx(sum((s - t) ** 2 for s, t in pairs) / len(pairs))


def test_calibrated_scores_have_small_calibration_error():
    rng = np.random.default_rng(0)
    scores = rng.random(50_000)
    outcomes = rng.random(50_000) < scores
    assert reliability(scores, outcomes).error < 0.01
    assert reliability(scores**3, outcomes).error > 0.1


def test_calibration_refuses_raw_logits():
    with pytest.raises(UserError, match="sigmoid"):
        reliability(np.array([2.5]), np.array([1.0]))


@given(solutions, coarse)
def test_first_error_matches_the_definition(drawn, threshold):
    result = first_error(*ragged_pair(drawn), threshold)
    expected = plain_first_error(drawn, threshold)
    assert (result.error_accuracy, result.correct_accuracy, result.f1) == pytest.approx(expected)


@settings(deadline=None)
@given(solutions)
def test_best_threshold_beats_every_other_threshold(drawn):
    scores, truth = ragged_pair(drawn)
    best = first_error(scores, truth, best_threshold(scores, truth)).f1
    for threshold in [*np.unique(scores.values), *np.linspace(0, 1.1, 45)]:
        assert best >= plain_first_error(drawn, threshold)[2] - 1e-12


def test_best_threshold_separates_neighbouring_float32_scores():
    # A middle rounded to float32 would fall on the lower score and call nothing.
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    scores = Ragged(np.array([low, high], np.float32), np.array([0, 1, 2]))
    truth = Ragged(np.array([False, True]), np.array([0, 1, 2]))
    assert first_error(scores, truth, best_threshold(scores, truth)).f1 == 1.0


def test_only_one_kind_of_solution_gives_no_f1_and_no_threshold():
    scores, truth = ragged_pair([[(0.9, True)], [(0.8, True)]])
    assert math.isnan(first_error(scores, truth, 0.5).f1)
    with pytest.raises(UserError, match="with and without errors"):
        best_threshold(scores, truth)


def test_scores_and_truth_of_different_length_are_refused():
    scores, truth = Ragged.from_lists([[0.1, 0.2]]), Ragged.from_lists([[1.0]])
    with pytest.raises(UserError, match="one value a step"):
        first_error(scores, truth, 0.5)
