"""What choosing by difficulty gains: on questions made so that the answer is known."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report.coding import encode
from ttcjax.eval.report.drawing import figures
from ttcjax.eval.sections.spending import optimal
from ttcjax.eval.stats import allocate, savings
from ttcjax.eval.stats.intervals import Bootstrap, Estimate

SETTINGS = SweepConfig(bootstrap=300)
BUDGETS = [1, 2, 4, 8, 16]
EIGHTHS = st.integers(0, 8).map(lambda i: i / 8)  # Steps so small that rounding decides are nobody's curve.
BASELINE = "best_of_n:select=weighted"


def naive_budget(budgets, curve, target):
    """Walk along the curve in small steps."""
    grid = np.union1d(np.geomspace(budgets[0], budgets[-1], 20001), budgets)
    values = np.interp(np.log(grid), np.log(budgets), curve)
    reached = np.flatnonzero(values >= target - 1e-9)
    return grid[reached[0]] if len(reached) else np.inf


@settings(deadline=None, max_examples=60)
@given(st.lists(EIGHTHS, min_size=5, max_size=5), EIGHTHS)
def test_the_least_budget_that_reaches_a_target(curve, target):
    [found] = savings.budget_for(BUDGETS, np.array(curve)[:, None], np.array([target]))
    assert found == pytest.approx(naive_budget(BUDGETS, curve, target), rel=2e-3)


def test_compute_saved_is_a_ratio_of_budgets():
    bootstrap = Bootstrap(400, 500, 0)
    shares = dict(zip(BUDGETS, (0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
    right = {n: (np.arange(400) < share * 400).astype(float) for n, share in shares.items()}
    found = savings.compute_saved(right, 2, bootstrap.means(right[8]), bootstrap)
    assert (found.times, found.low, found.high) == pytest.approx((4, 4, 4))
    assert found.reached
    found = savings.compute_saved(right, 4, bootstrap.means(np.ones(400)), bootstrap)
    at_least = savings.Saved(4.0, 4.0, 4.0, reached=False, high_reached=False)
    assert found == at_least, "16 at least, and nobody knows more"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_nothing_is_saved_in_any_resample_by_a_choice_among_equals(n):
    """With a centre of its own it was 1.0 times with an interval of 1.002 to 1.004: read as a claim that holds."""
    rng = np.random.default_rng(0)
    easy = rng.random(200)
    curve = {budget: 1 - (1 - easy) ** budget for budget in (1, 2, 4, 8)}
    bootstrap = Bootstrap(200, 300, 2)
    chosen = allocate.choose(SweepConfig(), np.stack([curve[n], curve[n]]), np.arange(200) % 5 + 1, bootstrap)
    saved = savings.compute_saved(curve, n, chosen.means(), bootstrap)
    assert [round(float(end), 9) for end in (saved.times, saved.low, saved.high)] == [1, 1, 1]


def test_chosen_is_among_strategies_that_a_verifier_selects_in():
    """As in the paper; a majority vote is a candidate only where there is nothing else."""
    accuracy = {"majority": 1, "best_of_n:select=majority": 2, BASELINE: 3, "beam:width=4": 4}
    assert optimal.verified(accuracy) == {BASELINE: 3, "beam:width=4": 4}
    assert optimal.verified({"majority": 1}) == {"majority": 1}


def by_design(rng):
    """Beams are right where questions are hard, best-of-N where they are easy; neither knows it."""
    ease = np.linspace(0, 1, 100)
    easy = ease > 0.5
    accuracy = {
        BASELINE: {n: np.where(easy, 0.9, 0.1) + 0.01 * np.log2(n) for n in BUDGETS},
        "beam:width=4": {n: np.where(easy, 0.2, 0.8) + 0.01 * np.log2(n) for n in BUDGETS},
    }
    return accuracy, ease, rng.permutation(ease)


def test_choosing_pays_where_difficulty_decides_and_not_where_it_is_unknown():
    accuracy, ease, shuffled = by_design(np.random.default_rng(0))
    chosen = optimal.choose_by_difficulty(SETTINGS, accuracy, {"oracle": ease, "predicted": shuffled}, BASELINE)
    found = encode(chosen, places=15)
    # Bin 3 of 5 lies across the border; the others get what is right for them.
    assert found["oracle"]["accuracy"]["4"]["mean"] > 0.75
    assert found["oracle"]["minus_best"]["4"]["low"] > 0.15
    assert found["predicted"]["minus_best"]["4"]["mean"] < 0.1
    assert found["oracle"]["regret"]["4"]["mean"] < 0.15 < found["predicted"]["regret"]["4"]["mean"]
    shares = found["oracle"]["shares"]["4"]
    assert shares["1"] == {BASELINE: 1.0, "beam:width=4": 0.0}
    assert shares["5"] == {BASELINE: 0.0, "beam:width=4": 1.0}
    assert not found["oracle"]["compute_saved"]["1"]["reached"]
    assert found["oracle"]["compute_saved"]["1"]["times"] == 16
    assert found["per_bin"]["oracle"]["1"][BASELINE]["1"]["mean"] == pytest.approx(0.9)
    assert found["per_bin"]["oracle"]["5"][BASELINE]["1"]["mean"] == pytest.approx(0.1)
    assert found["agreement"] < 0.5


def test_difficulty_by_the_samples_that_judge_would_be_seen_to_flatter():
    """Two strategies of the same law, one judged by a bank's samples and one by its own; false-alarm rate 1e-4."""
    rng = np.random.default_rng(7)
    gains: dict[str, list[float]] = {"the same": [], "others": []}
    settings = SweepConfig(samples=16, budgets=(1, 16), bootstrap=20, fold_repeats=4)
    for _ in range(60):
        chance = rng.beta(1, 1, 200)
        bank, own, others = (rng.binomial(16, chance) / 16 for _ in range(3))
        accuracy = {BASELINE: {1: bank, 16: bank}, "beam:width=4": {1: own, 16: own}}
        for name, ease in (("the same", bank), ("others", others)):
            found = optimal.choose_by_difficulty(settings, accuracy, {"oracle": ease}, BASELINE)
            gains[name].append(found.notions["oracle"].minus_best[16].mean)
    error = np.std(gains["others"]) / np.sqrt(len(gains["others"]))
    assert np.mean(gains["others"]) < 3.9 * error, "nothing can be gained where no strategy is better"
    assert np.mean(gains["the same"]) > np.mean(gains["others"]) + 10 * error, "the test could not see the leak"


def test_it_is_drawn_printed_and_written():
    accuracy, ease, shuffled = by_design(np.random.default_rng(0))
    found = optimal.choose_by_difficulty(SETTINGS, accuracy, {"oracle": ease, "predicted": shuffled}, BASELINE)
    shown = {
        strategy: {n: Estimate(v.mean(), v.mean(), v.mean()) for n, v in cells.items()}
        for strategy, cells in accuracy.items()
    }
    optimal.figure(found, shown).canvas.draw()
    for notion in ("oracle", "predicted"):
        optimal.figure_of_bins(found, notion).canvas.draw()
    console = Console(file=io.StringIO(), width=80)
    optimal.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "> 16.0" in text
    rows = optimal.csv_rows(found)
    assert {len(row) for row in rows} == {8}
    assert sum(row[1] == "share" for row in rows) == 2 * 2 * 5 * 5
    assert figures.label(BASELINE) == "best-of-N weighted"
