"""Difficulty: absolute bins, estimates from a few samples, and how far notions of it agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ttcjax.eval.stats import difficulty
from ttcjax.runtime.errors import UserError

FALSE_ALARM = 1e-4


def test_thresholds_are_those_of_the_literature_and_an_edge_is_easier():
    shares = np.array([1.0, 0.5, 0.499, 0.1, 0.099, 0.0])
    assert difficulty.threshold_bins(shares).tolist() == [1, 1, 2, 2, 3, 3]
    assert difficulty.threshold_bins(shares, (0.9, 0.5, 0.05)).tolist() == [1, 2, 3, 3, 3, 4]
    for edges in ((), (0.1, 0.5), (0.5, 0.5), (1.0, 0.5), (0.5, 0.0)):
        with pytest.raises(UserError, match="must fall from below 1 to above 0"):
            difficulty.threshold_bins(shares, edges)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 9))
def test_merged_bins_are_large_enough_and_keep_their_order(bins, least):
    before = np.array(bins)
    after = difficulty.merge_small(before, least)
    names, sizes = np.unique(after, return_counts=True)
    assert len(names) == 1 or sizes.min() >= least
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all(), "a harder bin came before an easier one"
    for name in np.unique(before):
        assert len(np.unique(after[before == name])) == 1, "a bin was torn apart"


def test_a_uniform_prior_is_the_rule_of_succession():
    right = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    found = difficulty.beta_posterior(right, "uniform")
    np.testing.assert_allclose(found.mean, [5 / 6, 1 / 6, 2 / 6])
    np.testing.assert_allclose(found.low, stats.beta([5, 1, 2], [1, 5, 4]).ppf(0.025))
    np.testing.assert_allclose(found.high, stats.beta([5, 1, 2], [1, 5, 4]).ppf(0.975))
    assert (found.prior, found.samples) == ((1.0, 1.0), 4)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.7), (2.0, 5.0)])
def test_a_fitted_prior_is_the_one_that_made_the_questions_and_its_intervals_cover(a, b):
    """Twenty thousand questions of six samples; false-alarm rate 1e-4, and some room for the prior's own error."""
    rng = np.random.default_rng(0)
    chance = rng.beta(a, b, 20_000)
    right = rng.random((20_000, 6)) < chance[:, None]
    found = difficulty.beta_posterior(right)
    assert found.prior == pytest.approx((a, b), rel=0.1)
    covered = ((found.low <= chance) & (chance <= found.high)).mean()
    assert abs(covered - 0.95) < 3.9 * np.sqrt(0.95 * 0.05 / 20_000) + 0.004
    # It pays: nearer to the truth than the plain share and than the uniform prior's.
    uniform = difficulty.beta_posterior(right, "uniform").mean
    errors = [np.square(x - chance).mean() for x in (found.mean, right.mean(axis=1), uniform)]
    assert errors[0] == min(errors)
    np.testing.assert_array_equal(difficulty.quantile_bins(found.mean), difficulty.quantile_bins(right.mean(axis=1)))


@pytest.mark.parametrize("right", [np.ones((5, 4)), np.zeros((5, 4)), np.tile([1, 0], (5, 2)), np.ones((5, 1))])
def test_priors_of_questions_that_are_all_alike_stay_finite(right):
    found = difficulty.beta_posterior(right)
    assert 0 < min(found.prior) <= max(found.prior) <= 1000
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()


def test_scores_count_as_parts_of_right_samples():
    soft = difficulty.beta_posterior(np.array([[0.25, 0.75], [1.0, 0.0]]), "uniform")
    hard = difficulty.beta_posterior(np.array([[1, 0], [1, 0]]), "uniform")
    np.testing.assert_allclose(soft.mean, hard.mean)


def test_scores_that_scatter_little_are_pulled_to_the_mean_no_more_than_labels():
    """Scores of 0.2 and 0.8 with next to no noise: questions differ, whatever m says of draws of 0 and 1."""
    scores = np.tile([[0.2], [0.8]], (50, 4)) + np.random.default_rng(1).normal(0, 0.01, (100, 4))
    found = difficulty.beta_posterior(scores)
    assert (difficulty.threshold_bins(found.mean) == np.tile([2, 1], 50)).all()
    assert sum(found.prior) < 4


def test_estimates_from_nothing_are_refused():
    with pytest.raises(UserError, match="at least one a question"):
        difficulty.beta_posterior(np.zeros((3, 0)))
    with pytest.raises(UserError, match="fitted, uniform"):
        difficulty.beta_posterior(np.zeros((3, 1)), "flat")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_rank_correlation_is_spearmans(pairs):
    a, b = np.array(pairs).T
    got = difficulty.rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(got)
    else:
        assert got == pytest.approx(stats.spearmanr(a, b)[0])


def test_agreement_counts_bins():
    found = difficulty.agreement(np.array([1, 2, 3, 4]), np.array([1, 3, 3, 1]), np.arange(4), -np.arange(4))
    assert found == pytest.approx({"same": 0.5, "within_one": 0.75, "rank_correlation": -1.0})
