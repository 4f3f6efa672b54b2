"""Intervals over seeds: how often they cover, against exact integration and against simulated studies."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

from ttcjax.eval.report import summary_file
from ttcjax.eval.stats import draws, seeds
from ttcjax.eval.stats.draws import Draws

QUESTIONS = 400
SEEDS = (3, 5, 8)
TRAINING = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Variance from training, in units of that of one run from its questions."""
SHARED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Share of the latter that is the same in all seeds."""


def coverage(count: int, shared: float, training: float, half_width=seeds.half_width) -> float:
    """How often the interval covers, in %, where seeds and questions add up as normal variables.

    Exact but for 2,000 quantiles: the variance observed between seeds is chi-squared and independent of their mean, and
    with both given, half a width covers with a normal probability.
    """
    own, between = 1 - shared, 1 - shared + training
    share = (np.arange(2000) + 0.5) / 2000
    observed = between * stats.chi2.ppf(share, count - 1) / (count - 1)
    half, _ = half_width(np.full(2000, shared + own / count), np.full(2000, own), observed, count, QUESTIONS)
    return float(100 * np.mean(2 * stats.norm.cdf(half / math.sqrt(shared + between / count)) - 1))


@pytest.mark.parametrize("count", SEEDS)
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("training", TRAINING)
def test_intervals_cover_from_93_to_97_percent(count, shared, training):
    assert 93 <= coverage(count, shared, training) <= 97.05


def without_training(common, own, observed, count, questions):
    return 1.96 * np.sqrt(common), None


def of_seeds_alone(common, own, observed, count, questions):
    return stats.t.ppf(0.975, count - 1) * np.sqrt(observed / count), None


def with_a_normal_quantile(common, own, observed, count, questions):
    return 1.96 * np.sqrt(common + np.maximum(0, observed - own) / count), None


@pytest.mark.parametrize(
    ("rule", "shared", "training"),
    [(without_training, 0.3, 1.0), (of_seeds_alone, 0.7, 0.0), (with_a_normal_quantile, 0.3, 2.0)],
)
def test_the_integration_tells_rules_that_cover_too_rarely(rule, shared, training):
    """What a run's own intervals, a t interval of seeds, and known variances would do with three seeds."""
    assert coverage(3, shared, training, rule) < 92


def study(rng: np.random.Generator, count: int, effect: float, training: float) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of two strategies, `[S, Q]` each, whose order crosses from easy to hard questions."""
    ease = rng.uniform(-1, 1, QUESTIONS)
    crossing = 0.25 * np.sign(ease)
    base = 0.5 + 0.35 * ease + rng.normal(0, 0.1, (count, QUESTIONS))
    gain = effect + crossing + rng.normal(0, training, (count, 1))
    first, second = (rng.random((count, QUESTIONS)) < np.clip(p, 0, 1) for p in (base, base + gain))
    return first, second


@pytest.mark.parametrize("training", [0.0, 0.03])
@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_simulated_studies_are_covered(effect, training):
    """600 studies of three seeds: a coverage of 93% to 97% is outside 90.3% to 98.9% by chance once in 200 tests."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(QUESTIONS, np.full(QUESTIONS, 1 / QUESTIONS), size=300) / QUESTIONS
    differences = [study(rng, 3, effect, training) for _ in range(600)]
    found = [b.astype(float) - a for a, b in differences]
    truth = np.mean([d.mean() for d in found])  # Known to a tenth of an interval's width.
    covered = 0
    for d in found:
        over = seeds.spread(d.mean(axis=1), d @ counts.T, QUESTIONS)
        covered += over.low <= truth <= over.high
    assert 0.903 <= covered / 600 <= 0.989


# ---- summaries


def drawn(values_Q: np.ndarray, counts: np.ndarray, share: bool = True) -> tuple[dict, Draws]:
    """A cell as a run has it, without a Wilson interval, and its draws."""
    means = counts @ values_Q / len(values_Q)
    low, high = np.quantile(means, (0.025, 0.975))
    cell = {"mean": float(values_Q.mean()), "low": float(low), "high": float(high), "se": float(means.std())}
    return cell, Draws(means, share)


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(1).multinomial(QUESTIONS, np.full(QUESTIONS, 1 / QUESTIONS), size=400).astype(float)


def summary(cell: dict, **others) -> dict:
    return {"name": "x", "accuracy": {"beam": {"4": cell}}, **others}


AT = draws.SEPARATOR.join(("accuracy", "beam", "4"))


def combined(values_SQ: np.ndarray, counts: np.ndarray, share: bool = False) -> dict:
    made = [drawn(values, counts, share) for values in values_SQ]
    found = seeds.combine([summary(cell) for cell, _ in made], [{AT: d} for _, d in made], QUESTIONS)
    return found["accuracy"]["beam"]["4"]


def test_a_cell_over_seeds_has_their_mean_and_each_seed_s_value(counts):
    values = np.random.default_rng(0).random((3, QUESTIONS))
    cell = combined(values, counts)
    assert cell["per_seed"] == pytest.approx(values.mean(axis=1))
    assert cell["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_one_seed_is_itself(counts):
    values = np.random.default_rng(0).random((1, QUESTIONS))
    own, _ = drawn(values[0], counts)
    cell = combined(values, counts)
    assert cell.pop("per_seed") == [own["mean"]]
    assert cell == pytest.approx(own, abs=1e-6)


def test_equal_seeds_are_no_surer_than_one_of_them(counts):
    """They say the same of the same questions: three times the same data is the data once."""
    values = np.tile(np.random.default_rng(0).random(QUESTIONS), (3, 1))
    own, _ = drawn(values[0], counts)
    cell = combined(values, counts)
    assert cell["high"] - cell["low"] == pytest.approx(own["high"] - own["low"], rel=0.12)
    assert cell["se_seeds"] == 0


def test_seeds_that_share_nothing_add_up(counts):
    """As many questions three times: the standard error is that of one by the root of three."""
    values = np.random.default_rng(3).random((3, QUESTIONS))
    values -= values.mean(axis=1, keepdims=True)  # Equal means: nothing is left for training.
    own, _ = drawn(values[0], counts)
    cell = combined(values, counts)
    assert cell["se"] == pytest.approx(own["se"] / math.sqrt(3), rel=0.15)


def test_training_widens_an_interval(counts):
    rng = np.random.default_rng(0)
    quiet = rng.random(QUESTIONS) * 0.8 + rng.normal(0, 0.05, (3, QUESTIONS))
    loud = quiet + np.array([[-0.1], [0.0], [0.1]])
    narrow, wide = combined(quiet, counts), combined(loud, counts)
    assert wide["mean"] == pytest.approx(narrow["mean"], abs=1e-6)
    assert wide["se_seeds"] == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    assert wide["high"] - wide["low"] > 4 * (narrow["high"] - narrow["low"])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_are_wrong_or_right_the_interval_is_a_seed_s_own(counts, value):
    """Wilson's: resamples have no spread there."""
    n, z2 = 50, stats.norm.ppf(0.975) ** 2
    reach = z2 / (n + z2)
    ends = (0.0, reach) if value == 0 else (1 - reach, 1.0)
    cell = {"mean": value, "low": ends[0], "high": ends[1], "se": 0.0}
    drawn = Draws(np.full(400, value), True)
    found = seeds.combine([summary(cell)] * 3, [{AT: drawn}] * 3, QUESTIONS)["accuracy"]["beam"]["4"]
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=1e-5)


def test_a_share_of_0_whose_resamples_differ_has_a_seed_s_own_interval():
    """What is chosen anew in every resample may be right there, and never as it was seen."""
    cell = {"mean": 0.0, "low": 0.0, "high": 0.07, "se": 0.01}
    drawn = Draws(np.random.default_rng(0).random(400) * 0.03, True)
    found = seeds.combine([summary(cell)] * 3, [{AT: drawn}] * 3, QUESTIONS)["accuracy"]["beam"]["4"]
    assert found["low"] == 0
    assert found["high"] >= 0.069


def test_a_share_stays_between_0_and_1_and_keeps_its_centre(counts):
    rng = np.random.default_rng(2)
    values = (rng.random((3, QUESTIONS)) < np.array([[0.02], [0.05], [0.10]])).astype(float)
    cell = combined(values, counts, share=True)
    assert 0 <= cell["low"] < cell["mean"] < cell["high"] <= 1
    assert combined(values, counts, share=False)["low"] < 0, "which a mean and a margin would not"


def test_a_difference_whose_resamples_have_no_spread_is_as_wide_as_each_seed_s_own():
    cell = {"mean": 0.0, "low": -0.04, "high": 0.04, "se": 0.0}
    found = seeds.combine([summary(cell)] * 3, [{AT: Draws(np.zeros(400), False)}] * 3, QUESTIONS)
    over = found["accuracy"]["beam"]["4"]
    assert (over["low"], over["high"]) == pytest.approx((-0.04, 0.04), rel=0.01)


def test_without_draws_a_seed_s_interval_is_taken_for_what_all_share():
    cells = [{"mean": 0.5 + d, "low": 0.4 + d, "high": 0.6 + d} for d in (-0.01, 0.0, 0.01)]
    found = seeds.combine([summary(cell) for cell in cells], [{}] * 3, QUESTIONS)["accuracy"]["beam"]["4"]
    assert found["high"] - found["low"] >= 0.2


def test_ratios_are_combined_by_their_logarithm():
    rng = np.random.default_rng(0)
    logs = np.log([1.0, 2.0, 4.0])
    cells = [
        {"times": t, "low": t / 2, "high": 2 * t, "reached": t < 4, "high_reached": True} for t in np.exp(logs).tolist()
    ]
    draws_ = [{AT: Draws(np.exp(log + rng.normal(0, 0.3, 400)), False)} for log in logs]
    found = seeds.combine([summary(cell) for cell in cells], draws_, QUESTIONS)["accuracy"]["beam"]["4"]
    assert found["times"] == pytest.approx(2.0)
    assert found["low"] * found["high"] == pytest.approx(4.0, rel=1e-3)
    assert found["reached"] is False, "one that is a lower bound makes the mean one"
    assert found["high_reached"] is True


def test_what_a_seed_lacks_and_what_differs(counts):
    cell, d = drawn(np.random.default_rng(0).random(QUESTIONS), counts)
    one = summary(cell, only=1, count=3, ece=0.1, verdict=None, rows=[1, 2], same="a")
    two = summary({**cell, "mean": None}, count=7, ece=0.3, verdict=None, rows=[1], same="a")
    found = seeds.combine([one, two], [{AT: d}] * 2, QUESTIONS)
    assert "only" not in found
    assert (found["count"], found["ece"], found["verdict"], found["rows"], found["same"]) == (3, 0.2, None, [1, 2], "a")
    assert found["accuracy"]["beam"]["4"]["mean"] is None
    assert found["accuracy"]["beam"]["4"]["per_seed"] == [cell["mean"], None]


def test_a_reason_of_one_seed_holds_for_all_and_choices_are_not_averaged(counts):
    cell, d = drawn(np.random.default_rng(0).random(QUESTIONS), counts)
    best = [{"s": s, "p": p} for s, p in ((1, 32), (32, 1))]
    even = [{"wins": "below", "r": 0.5}, {"wins": "never", "r": None}]
    one, two = (summary(cell, best=best[i], even=even[i], same=best[0]) for i in range(2))
    found = seeds.combine([one | {"why": None}, two | {"why": "trained otherwise"}], [{AT: d}] * 2, QUESTIONS)
    assert found["why"] == "trained otherwise"
    assert found["best"] == {"s": None, "p": None}, "a split that no budget has"
    assert found["even"] == {"wins": None, "r": None}
    assert found["same"] == best[0]


def test_draws_are_taken_out_of_a_summary_and_read_back(tmp_path, counts):
    cell, d = drawn(np.random.default_rng(0).random(QUESTIONS), counts)
    raw = summary({**cell, "mean": draws.Drawn(cell["mean"], *d)}, rows=[{"low": 0, "high": 1, "mean": 0.5}])
    raw = copy.deepcopy(raw)
    taken = draws.take(raw)
    assert raw == summary(cell, rows=[{"low": 0, "high": 1, "mean": 0.5}])
    assert type(raw["accuracy"]["beam"]["4"]["mean"]) is float
    assert list(taken) == [AT]
    summary_file.write_draws(tmp_path / "draws.npz", taken, QUESTIONS)
    again, questions = summary_file.read_draws(tmp_path / "draws.npz")
    assert questions == QUESTIONS
    assert again[AT].share
    np.testing.assert_allclose(again[AT].values, d.values[: summary_file.KEPT], rtol=1e-6)
