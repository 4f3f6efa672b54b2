"""The exchange of FLOPs: against the paper's printed values, and against the sums it stands for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.eval.stats import exchange
from ttcjax.runtime.errors import UserError

SIZES, RATIOS = st.floats(1.01, 100), st.floats(1e-3, 1e3)


@pytest.mark.parametrize(
    ("r", "convention", "budget"),
    [
        (0.16, "v1", 261.7),
        (0.79, "v1", 64.3),
        (22, "v1", 16.0),
        (0.08, "iclr", 261.7),
        (0.40, "iclr", 63.7),
        (11, "iclr", 16.0),
    ],
)
def test_golden_values_of_a_model_14_times_as_large(r, convention, budget):
    assert exchange.kappa(14.2, r, convention) == pytest.approx(budget, abs=0.06)


@given(SIZES, RATIOS, st.sampled_from(exchange.CONVENTIONS))
def test_both_sides_spend_the_same(size, r, convention):
    """The sums written out, with one parameter and one token of pretraining."""
    training = 6.0
    small = {"v1": 2 * r, "iclr": 4 * r, "strict": 4 * r}[convention]
    large = {"v1": 2 * r, "iclr": 4 * r, "strict": 2 * r}[convention] * size
    spent = training + exchange.kappa(size, r, convention) * small
    assert spent == pytest.approx(training * size + large, rel=1e-9)


@given(SIZES, RATIOS, st.sampled_from(exchange.CONVENTIONS))
def test_the_ratio_of_a_budget_is_the_inverse(size, r, convention):
    budget = exchange.kappa(size, r, convention)
    assert exchange.ratio_of_budget(size, budget, convention) == pytest.approx(r, rel=1e-6)


def test_without_pretraining_a_large_model_is_worth_its_size():
    assert exchange.kappa(14, math.inf) == 14
    assert exchange.kappa(14, math.inf, "strict") == 7
    assert exchange.ratio_of_budget(14, 14) is None
    assert exchange.kappa(1, 0.5) == 1, "a model of the same size leaves nothing to spend"


def curve(budgets, accuracy):
    return {n: np.array([a]) for n, a in zip(budgets, accuracy, strict=True)}


def test_between_budgets_the_logarithm_counts():
    known = curve([1, 4, 16], [0.2, 0.4, 0.5])
    assert exchange.at_budget(known, 2) == pytest.approx(0.3)
    assert exchange.at_budget(known, 16) == 0.5
    assert exchange.at_budget(known, 1) == 0.2
    assert exchange.at_budget(known, 17) == 0.5, "who may spend more may spend less"
    with pytest.raises(UserError, match="smaller budgets"):
        exchange.at_budget(known, 0.5)


def test_break_even_is_where_the_curves_meet():
    budgets, accuracy = [1, 4, 16, 64], [0.2, 0.4, 0.5, 0.6]
    r = exchange.break_even(budgets, accuracy, 0.55, 14)
    assert r is not None
    assert exchange.at_budget(curve(budgets, accuracy), exchange.kappa(14, r)) == pytest.approx(0.55)
    assert exchange.break_even(budgets, accuracy, 0.7, 14) is None, "never as good"
    assert exchange.break_even(budgets, accuracy, 0.3, 14) == math.inf, "as good at 2 generations, and 14 are due"
    assert exchange.break_even(budgets, accuracy, 0.1, 14) == math.inf, "as good from the start"


def test_a_curve_that_falls_again_is_not_said_to_win():
    """At the smallest R the largest budget counts, and there the larger model is better."""
    assert exchange.break_even([1, 64, 256], [0.5, 0.9, 0.7], 0.8, 14) is None
    r = exchange.break_even([1, 4, 16, 64], [0.9, 0.5, 0.7, 0.9], 0.8, 14)
    assert r is not None
    assert exchange.kappa(14, r) == pytest.approx(32), "from the last crossing on"


@pytest.mark.parametrize(("size", "r"), [(0.9, 1), (math.nan, 1), (math.inf, 1), (14, 0), (14, -1), (14, math.nan)])
def test_senseless_questions_are_refused(size, r):
    with pytest.raises(UserError):
        exchange.kappa(size, r)
