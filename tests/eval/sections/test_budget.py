"""Difficulty that is paid for, and budgets shared out: on questions made so that the answer is known."""

import dataclasses
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG
from tests.eval.sections.test_weak import samples as of_the_report
from ttcjax.config import SweepConfig
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections.spending import budget
from ttcjax.eval.stats import allocate
from ttcjax.eval.stats.estimators import Samples
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.verify.aggregate import Ragged

WEIGHTED = "best_of_n:select=weighted"
BEAM = "beam:width=4"
SETTINGS = SweepConfig(bootstrap=200, samples=32, budgets=(1, 2, 4, 8, 16, 32))


def drawn(chance_Q, samples, rng, scatter=0.1):
    """Samples whose scores are their question's chance, give or take; wrong answers are of four kinds."""
    Q = len(chance_Q)
    correct = rng.random((Q, 1, samples)) < chance_Q[:, None, None]
    groups = np.where(correct, 0, rng.integers(1, 5, correct.shape))
    scores = np.clip(chance_Q[:, None, None] + rng.normal(0, scatter, correct.shape), 0.01, 0.99)
    steps = Ragged.from_lengths(scores.ravel(), np.ones(correct.size, np.int64))
    row = np.arange(correct.size).reshape(correct.shape)
    return Samples(tuple(f"q{i:03d}" for i in range(Q)), (0,), groups, correct, row, steps, np.ones(correct.size))


def summarised(samples, beams=None):
    accuracy = {WEIGHTED: {n: samples.accuracy("weighted", "last", n) for n in SETTINGS.budgets}}
    if beams is not None:
        accuracy[BEAM] = beams
    return encode(budget.spend(SETTINGS, samples, samples, "last", accuracy), places=15)


def test_the_grid_has_two_budgets_an_octave_and_both_ends():
    assert budget.grid(1) == [1]
    assert budget.grid(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert budget.grid(20, [5, 100]) == [1, 2, 3, 4, 5, 6, 8, 12, 16, 20]
    assert len(budget.grid(2048)) < 24


def test_between_budgets_accuracy_is_linear_in_the_logarithm():
    curve = np.array([[0.1, 0.0], [0.3, 1.0], [0.2, 1.0]])
    steps = [1, 4, 16]
    for place, n in enumerate(steps):
        np.testing.assert_allclose(allocate.accuracy_at(steps, curve, np.array([n, n])), curve[place])
    np.testing.assert_allclose(allocate.accuracy_at(steps, curve, np.array([2, 8])), [0.2, 1.0])
    got = [allocate.accuracy_at(steps, curve, np.array([n, n]))[0] for n in range(1, 17)]
    np.testing.assert_allclose(got, np.interp(np.log(range(1, 17)), np.log(steps), curve[:, 0]))
    np.testing.assert_allclose(allocate.accuracy_at([1], curve[:1], np.array([1, 1])), curve[0])


def test_interpolation_is_near_to_what_the_bank_says():
    """Over all budgets of a bank, the mean over questions is off by less than a third of a point."""
    rng = np.random.default_rng(0)
    found = drawn(rng.beta(0.6, 0.8, 150), 24, rng)
    steps = budget.grid(24)
    curve = np.stack([found.accuracy("weighted", "last", n) for n in steps])
    for n in range(1, 25):
        got = allocate.accuracy_at(steps, curve, np.full(150, n)).mean()
        assert got == pytest.approx(found.accuracy("weighted", "last", n).mean(), abs=0.0035), n


def test_gains_are_learned_from_other_questions_of_the_same_bin():
    curve = np.array([[0.1, 0.3, 0.5, 0.9], [0.5, 0.3, 0.5, 0.9], [0.6, 0.3, 0.9, 0.9]])
    found = budget.learned_gains([1, 2, 4], curve, np.array([1, 1, 2, 2]), seed=0)
    assert found.shape == (4, 4)
    middle = np.log(3 / 2) / np.log(2)
    np.testing.assert_allclose(found[:, 1], [0, 0.4, 0.1 * middle, 0.1 * (1 - middle)], atol=1e-12)
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(found[:, 2], 0, atol=1e-12)
    # What question 3 learns from sags first; the three steps count for their mean.
    assert found[1:, 3].sum() == pytest.approx(0.4)
    assert np.ptp(found[1:, 3]) < 0.1
    changed = curve.copy()
    changed[:, 1] = [0.0, 1.0, 1.0]
    np.testing.assert_array_equal(
        budget.learned_gains([1, 2, 4], changed, np.array([1, 1, 2, 2]), seed=0)[:, 1], found[:, 1]
    )


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 9), st.floats(0, 1))
def test_every_policy_spends_the_whole_budget_and_no_more(ease, most, fill):
    total = len(ease) + math.floor(fill * (most - 1) * len(ease))
    found = budget.allocations({"oracle": np.array(ease)}, total, most)
    assert len(found) == len(budget.TEMPERATURES) + 1
    for counts in found.values():
        assert counts.sum() == total
        assert 1 <= counts.min() <= counts.max() <= most


def test_policies_do_what_they_are_called():
    ease = {"predicted": np.array([1.0, 0.75, 0.5, 0.25, 0.0])}
    found = budget.allocations(ease, 40, 32)
    for name, counts in found.items():
        label = budget.policy_label(name)
        if "hard" in label:
            assert (np.diff(counts) >= 0).all(), label
            assert counts[-1] > counts[0], label
        elif "easy" in label:
            assert (np.diff(counts) <= 0).all(), label
            assert counts[-1] < counts[0], label
        else:
            assert counts.argmax() == 3, "neither what is sure nor what is hopeless"
    assert budget.policy_label("oracle:softmax=-0.25") == "more to easy (T 0.25), oracle"
    assert budget.policy_label("oracle:learned") == "greedy by learned gains, oracle"


def test_the_samples_that_tell_difficulty_are_counted():
    names = [WEIGHTED, BEAM, "majority"]
    assert budget.mean_cost(names, np.array([0, 0]), 8, 4) == 8
    assert budget.mean_cost(names, np.array([2]), 4, 16) == 16
    assert budget.mean_cost(names, np.array([1]), 8, 4) == 12
    assert budget.mean_cost(names, np.array([1]), 2, 4) == 4, "narrower than its width a beam is best-of-N"
    assert budget.mean_cost(names, np.array([[0, 1], [0, 1]]), 8, 4) == 10


def test_more_samples_tell_more_and_choose_better():
    """Beams are right on hard questions alone; who knows the difficulty gains by them, and who guesses gains less."""
    rng = np.random.default_rng(1)
    chance = np.linspace(0, 1, 200)
    found = drawn(chance, 64, rng, scatter=0.3)
    beams = {n: np.where(chance < 0.4, 0.9, 0.1) for n in SETTINGS.budgets}
    summary = summarised(found, beams)
    for notion in ("oracle", "predicted"):
        few, many, whole = (summary["estimated"][notion][m] for m in ("4", "16", "64"))
        for measure in ("same", "rank_correlation"):
            assert few["agreement"][measure] < many["agreement"][measure] < whole["agreement"][measure] == 1
        assert few["agreement"]["same"] < few["agreement"]["within_one"] <= many["agreement"]["within_one"]
        assert few["interval"] > many["interval"] > whole["interval"]
        assert (whole["minus_all"]["8"]["mean"], whole["minus_all"]["8"]["se"]) == pytest.approx((0.0, 0.0), abs=1e-12)
        assert few["accuracy"]["8"]["mean"] < whole["accuracy"]["8"]["mean"]
        assert few["cost"] == {str(n): n + 4 for n in SETTINGS.budgets}
        assert 8 < few["cost_reused"]["8"] < 12
        # With the samples of the difficulty added best-of-N still does not reach them.
        assert few["minus_same_cost"]["8"]["low"] > 0
        assert "minus_same_cost" not in whole or "8" not in whole["minus_same_cost"]
    counts = summary["thresholds"]["oracle"]["counts"]
    assert sum(counts.values()) == 200
    assert counts["1"] == pytest.approx(100, abs=15)
    assert summary["thresholds"]["edges"] == [0.5, 0.1]
    assert summary["agreement"]["quantiles"]["rank_correlation"] > 0.9


def test_who_needs_nothing_more_gives_to_whom_it_helps():
    """Half of the questions are sure, half are helped by every sample: more to the hard gains, more to the easy loses.

    And where all questions are alike there is nothing to gain.
    """
    rng = np.random.default_rng(2)
    found = drawn(np.repeat([1.0, 0.4], 60), 64, rng, scatter=0.02)
    cells = summarised(found)["allocation"]["4"]
    gains = {name: policy["minus_uniform"] for name, policy in cells["policies"].items()}
    for notion in ("oracle", "predicted"):
        assert gains[f"{notion}:softmax=0.25"]["low"] > 0
        assert gains[f"{notion}:greedy"]["low"] > 0
        assert gains[f"{notion}:learned"]["low"] > 0
        assert gains[f"{notion}:softmax=-0.25"]["high"] < 0
    for name, policy in cells["policies"].items():
        assert policy["accuracy"]["mean"] - cells["uniform"]["mean"] == pytest.approx(gains[name]["mean"])
    alike = summarised(drawn(np.full(60, 0.5), 64, rng, scatter=0.0))["allocation"]["8"]["policies"]
    assert abs(alike["predicted:softmax=0.25"]["minus_uniform"]["mean"]) < 1e-9


def test_predicted_difficulty_reads_no_labels():
    rng = np.random.default_rng(3)
    found = drawn(rng.random(60), 32, rng)
    blind = dataclasses.replace(found, correct=~found.correct)
    sizes = [
        {
            name: (policy["most"], policy["single"])
            for n, cells in summarised(samples)["allocation"].items()
            for name, policy in cells["policies"].items()
            if name.startswith("predicted") and not name.endswith("learned") and n == "4"
        }
        for samples in (found, blind)
    ]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == len(budget.TEMPERATURES) + 1


def test_it_is_printed_drawn_and_written():
    found = of_the_report()
    accuracy = {
        name: {n: found.accuracy("weighted", "last", n) for n in BUDGETS} for name in ("majority", WEIGHTED, BEAM)
    }
    spent = budget.spend(CONFIG.sweep, found, found, "last", accuracy)
    budget.figure(spent).canvas.draw()
    console = Console(file=io.StringIO(), width=80)
    budget.render(spent, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "more to hard (T 0.25), predicted" in text
    rows = budget.csv_rows(spent)
    assert {len(row) for row in rows} == {9}
    assert {row[0] for row in rows} == {"estimated", "thresholds", "agreement", "allocation"}
    shared = [row for row in rows if row[:5] == ("allocation", "predicted:greedy", "", "minus_uniform", 4)]
    assert shared[0][6:] == spent.allocation[4].policies["predicted:greedy"].minus_uniform.ends


def test_a_bank_of_one_sample_has_nothing_to_share_out():
    rng = np.random.default_rng(4)
    found = drawn(rng.random(20), 1, rng)
    alone = SweepConfig(bootstrap=50, samples=1, budgets=(1,))
    spent = budget.spend(alone, found, found, "last", {"majority": {1: found.pass_at_1()}})
    assert spent.allocation == {}
    assert spent.estimated == {"oracle": {}, "predicted": {}}
    budget.figure(spent).canvas.draw()
    budget.render(spent, Console(file=io.StringIO(), width=80))
    assert budget.csv_rows(spent)
    assert Bootstrap(20, 50, alone.seed)(found.pass_at_1()).mean == pytest.approx(
        spent.thresholds.oracle.accuracy[1].mean
    )
