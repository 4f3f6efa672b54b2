"""Intervals that cover as often as they say, at 0 and 1 too."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from ttcjax.eval.stats.draws import Drawn, Draws
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.runtime.errors import UserError

WORLDS = 500
"""Data sets behind each coverage: the share that is covered has a standard error of 1 point."""
SLACK = 0.037
"""How far a coverage may be from 95 %: beyond it a true 95 % lies about once in 5,000 such tests."""


def covered(bootstrap, draw, truth, kind):
    found = [getattr(bootstrap, kind)(draw()) for _ in range(WORLDS)]
    return np.mean([e.low <= truth <= e.high for e in found])


@pytest.mark.parametrize("questions", [84, 420])
@pytest.mark.parametrize("chance", [0.02, 0.1, 0.5, 0.97])
def test_shares_of_right_and_wrong_are_covered(questions, chance):
    """Percentiles cover about 80 % of shares of 2 % among 84 questions."""
    rng = np.random.default_rng(1)
    bootstrap = Bootstrap(questions, 400, 0)
    found = covered(bootstrap, lambda: (rng.random(questions) < chance).astype(float), chance, "__call__")
    assert abs(found - 0.95) < SLACK


@pytest.mark.parametrize(("a", "b"), [(0.2, 1.5), (0.5, 0.5), (8, 8), (0.05, 2)])
def test_shares_of_samples_are_covered_whatever_their_spread(a, b):
    rng = np.random.default_rng(2)
    bootstrap = Bootstrap(120, 400, 0)
    found = covered(bootstrap, lambda: rng.binomial(16, rng.beta(a, b, 120)) / 16, a / (a + b), "__call__")
    assert abs(found - 0.95) < SLACK


@pytest.mark.parametrize(("up", "down"), [(0.03, 0.02), (0.1, 0.05), (0.2, 0.2)])
def test_differences_are_covered(up, down):
    rng = np.random.default_rng(3)
    bootstrap = Bootstrap(250, 400, 0)

    def draw():
        u = rng.random(250)
        return (u < up).astype(float) - (u > 1 - down)

    assert abs(covered(bootstrap, draw, up - down, "difference") - 0.95) < SLACK


def test_what_is_the_same_for_all_questions_has_an_interval_with_a_width():
    """Of 0 among 50 Clopper and Pearson say up to 7.1 %; Wilson says about the same, and so of 1 and of differences."""
    bootstrap = Bootstrap(50, 100, 0)
    exact = stats.binomtest(0, 50).proportion_ci().high
    none, every = bootstrap(np.zeros(50)), bootstrap(np.ones(50))
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(exact, abs=0.005)
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1))
    same = bootstrap.difference(np.zeros(50))
    assert (-same.low, same.high) == pytest.approx((none.high, none.high))
    never = bootstrap.rate(np.zeros(50), np.full(50, 3.0))
    assert never.known
    assert never.high == pytest.approx(none.high)


def test_wilsons_interval_is_that_of_scipy():
    values = (np.arange(200) < 30).astype(float)
    found = Bootstrap(200, 20_000, 0)(values)
    wanted = stats.binomtest(30, 200).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-3)


def test_a_share_matches_resampling_by_hand_and_repeats_by_seed():
    values = np.random.default_rng(2).random(80)
    estimate = Bootstrap(80, 4000, seed=5)(values)
    by_hand = [np.random.default_rng(i).choice(values, 80).mean() for i in range(4000)]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.005)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(values.std() / np.sqrt(80), rel=0.05)
    assert estimate == Bootstrap(80, 4000, seed=5)(values)
    assert estimate != Bootstrap(80, 4000, seed=6)(values)


def test_pairing_removes_what_questions_have_in_common():
    rng = np.random.default_rng(3)
    base = rng.random(100)
    bootstrap = Bootstrap(100, 500, seed=0)
    difference = bootstrap.paired(base + 0.01, base)
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.01, 0.01, 0.01))
    assert bootstrap(base).high - bootstrap(base).low > 0.05


def test_some_questions_are_those_alone():
    rng = np.random.default_rng(4)
    values, inside = rng.random(100), np.arange(100) < 40
    bootstrap = Bootstrap(100, 300, seed=0)
    np.testing.assert_allclose(bootstrap.means(values, inside)[0], values[:40].mean())
    drawn = bootstrap.counts[1]
    np.testing.assert_allclose(
        bootstrap.means(values, inside)[1], np.repeat(values[:40], drawn[:40].astype(int)).mean()
    )
    spoiled = np.where(inside, values, 1e6)
    assert bootstrap(spoiled, inside) == bootstrap(values, inside)


def test_ratios_are_those_of_sums():
    rng = np.random.default_rng(5)
    cases = rng.integers(0, 4, 60).astype(float)
    events = rng.binomial(cases.astype(int), 0.3).astype(float)
    bootstrap = Bootstrap(60, 300, seed=0)
    for found in (bootstrap.ratio(events, cases), bootstrap.rate(events, cases)):
        assert found.known
        assert found.mean == pytest.approx(events.sum() / cases.sum())
        assert found.low < found.mean < found.high
    assert not bootstrap.ratio(events, np.zeros(60)).known
    assert not bootstrap.rate(events, np.zeros(60)).known


def test_no_question_is_refused():
    with pytest.raises(UserError, match="no question"):
        Bootstrap(0, 10, 0)


def draws_of(estimate: Estimate) -> Draws:
    assert isinstance(estimate.mean, Drawn)
    return estimate.mean.draws


def test_some_of_the_questions_are_resampled_as_among_all():
    """So that bins of other questions in two runs go together, resample by resample."""
    rng = np.random.default_rng(6)
    values, inside = rng.random(60), rng.random(60) < 0.4
    bootstrap = Bootstrap(60, 100, 0)
    found, expected = bootstrap.within(inside)(values[inside]), bootstrap(values, inside)
    assert found == expected
    drawn = draws_of(found)
    np.testing.assert_array_equal(drawn.values, draws_of(expected).values)
    assert drawn.values == pytest.approx(bootstrap.means(values, inside)[1:])


def test_every_estimate_has_its_draws_and_reads_as_a_number():
    rng = np.random.default_rng(7)
    bootstrap = Bootstrap(40, 50, 0)
    a, b = rng.random(40), rng.random(40)
    for estimate, share in (
        (bootstrap(a), True),
        (bootstrap.paired(a, b), False),
        (bootstrap.rate(a * b, b), True),
        (bootstrap.ratio(a, b), False),
    ):
        assert estimate.known
        drawn = draws_of(estimate)
        assert (len(drawn.values), drawn.share) == (50, share)
        assert np.std(drawn.values) == pytest.approx(estimate.se)
        assert json.loads(json.dumps(dataclasses.asdict(estimate)))["mean"] == float(estimate.mean)
