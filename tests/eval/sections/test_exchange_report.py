"""The exchange in the report: on curves whose answers are known."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections.spending import larger_model
from ttcjax.eval.sections.spending.larger_model import Source
from ttcjax.eval.stats import exchange

SETTINGS = SweepConfig(samples=64, budgets=(1, 16, 64), bootstrap=200)
QUESTIONS = [f"q{i:03d}" for i in range(100)]
EASE = {q: 1 - i / 100 for i, q in enumerate(QUESTIONS)}
SIZE = 14.0
TRAINED: dict[str, Trained] = {
    "policy": {"params": 10, "tokens_seen": 1000},
    "prm": {"params": 10, "tokens_seen": 500},
    "larger": {"params": 140, "tokens_seen": 1000},
}


def source(easy=(0.7, 0.9, 0.95), hard=(0.1, 0.2, 0.25)):
    """Two strategies, of which the second is always worse; the first 40 questions are easy."""
    candidates = {}
    for n, a, b in zip(SETTINGS.budgets, easy, hard, strict=True):
        right = np.where(np.arange(100) < 40, a, b)
        candidates[n] = {"beam:width=4": right, "majority": right - 0.05}
    return Source(QUESTIONS, candidates)


def compared(larger, **sources):
    greedy = {"policy": dict.fromkeys(QUESTIONS, True), "larger": dict(zip(QUESTIONS, larger, strict=True))}
    return larger_model.compare(SETTINGS, sources or {"search": source()}, EASE, greedy, TRAINED, 20.0)


def summary(larger, **sources):
    return encode(compared(larger, **sources), places=15)


def test_a_smaller_model_wins_where_questions_are_easy_and_not_where_they_are_hard():
    larger = [i % 5 != 0 for i in range(100)]  # 0.8 in every bin
    found = summary(larger)["sources"]["search"]
    assert found["larger"]["1"]["mean"] == found["larger"]["5"]["mean"] == pytest.approx(0.8)
    assert found["curve"]["1"]["16"]["mean"] == pytest.approx(0.9), "the worse strategy was chosen"
    bars = {group: {(row["convention"], row["r"]): row for row in rows} for group, rows in found["bars"].items()}
    for r, least in ((0.16, 0.95), (22.0, 0.9)):
        row = bars["easy"]["v1", r]
        assert row["kappa"] == exchange.kappa(SIZE, r, "v1")
        # Due 258 and 15.8 generations: judged by the 64 that were measured, and between 1 and 16 in the logarithm.
        expected = least if r < 1 else 0.7 + 0.2 * math.log(row["kappa"]) / math.log(16)
        assert row["difference"]["mean"] == pytest.approx(expected - 0.8)
        assert row["relative"]["mean"] == pytest.approx((expected - 0.8) / 0.8)
    assert bars["easy"]["v1", 0.16]["spent"] == 64
    assert bars["hard"]["v1", 0.16]["relative"]["high"] < 0
    assert found["break_even"]["hard"]["v1"] == {"wins": "never", "r": None}
    assert found["break_even"]["easy"]["v1"] == {"wins": "always", "r": None}, "0.8 is reached with 4 generations"


def test_break_even_is_where_the_curve_crosses_the_larger_models_accuracy():
    larger = [i % 100 < 37 for i in range(100)]  # 37 of the 40 easy ones: 0.925, reached with 32 generations
    found = summary(larger)["sources"]["search"]
    even = found["break_even"]["easy"]["v1"]
    assert even["wins"] == "below"
    assert exchange.kappa(SIZE, even["r"], "v1") == pytest.approx(32)


def test_intervals_are_of_pairs():
    """Both models right about the same questions: no question makes a difference, and few unseen ones can."""
    larger = np.arange(100) % 2 == 0
    same = Source(QUESTIONS, {n: {"majority": larger.astype(float)} for n in SETTINGS.budgets})
    found = summary(larger.tolist(), search=same)["sources"]["search"]
    for row in found["bars"]["all"]:
        assert (row["difference"]["mean"], row["difference"]["se"]) == pytest.approx((0.0, 0.0), abs=1e-12)
        assert -row["difference"]["low"] == pytest.approx(row["difference"]["high"])
        assert 0.03 < row["difference"]["high"] < 0.04, "of 0 in 100 Clopper and Pearson say up to 3.6 %"


def test_a_budget_may_be_spent_in_part():
    """Beams that are worse at 64 generations than at 16: whoever may spend 64 takes 16, chosen on other questions."""
    curve = {1: np.full(100, 0.3), 16: np.full(100, 0.7), 64: np.full(100, 0.4)}
    falling = Source(QUESTIONS, {n: {"beam:width=4": values} for n, values in curve.items()})
    found = summary([True] * 100, search=falling)["sources"]["search"]
    for number in map(str, range(1, 6)):
        means = [found["curve"][number][n]["mean"] for n in ("1", "16", "64")]
        assert means == pytest.approx([0.3, 0.7, 0.7])
    last = found["bars"]["all"][0]
    assert last["kappa"] > 64
    assert last["difference"]["mean"] == pytest.approx(-0.3)


def test_a_budget_below_all_that_were_measured_is_no_comparison_and_no_end_of_the_report():
    """A model 1.5 times as large: under `strict` the smaller one is due less than one answer where R is large."""
    trained: dict[str, Trained] = {**TRAINED, "larger": {"params": 15, "tokens_seen": 1000}}
    greedy = {name: dict.fromkeys(QUESTIONS, True) for name in ("policy", "larger")}
    found = larger_model.compare(SETTINGS, {"search": source()}, EASE, greedy, trained, 20.0)
    rows = [
        row for part in (found.sources["search"].bars, found.sources["search"].grid) for g in part.values() for row in g
    ]
    below = [row for row in rows if row.kappa < min(SETTINGS.budgets)]
    assert below
    assert len(below) < len(rows)
    assert not any(row.relative.known or row.difference.known for row in below)
    assert all(row.difference.known for row in rows if row not in below)
    larger_model.render(found, Console(file=io.StringIO()))
    larger_model.figure(found).canvas.draw()
    assert list(larger_model.csv_rows(found))


def test_a_model_that_is_never_right_cannot_be_divided_by():
    found = compared([False] * 100)
    assert not found.sources["search"].bars["easy"][0].relative.known
    larger_model.render(found, Console(file=io.StringIO()))
    larger_model.figure(found).canvas.draw()
    assert {len(row) for row in larger_model.csv_rows(found)} == {9}


def test_sources_are_joined_on_what_they_share():
    some = QUESTIONS[10:60]
    other = Source(some, {n: {"revise:s=1,p=1": np.arange(50) / 50} for n in (1, 16)})
    both = larger_model.joined(source(), other)
    assert list(both.questions) == some
    assert list(both.candidates) == [1, 16]
    assert list(both.candidates[1]) == ["beam:width=4", "majority", "revise:s=1,p=1"]
    np.testing.assert_allclose(both.candidates[1]["beam:width=4"], np.where(np.arange(10, 60) < 40, 0.7, 0.1))
    np.testing.assert_allclose(both.candidates[16]["revise:s=1,p=1"], np.arange(50) / 50)


def test_both_sides_take_the_same_true_flops_at_the_stated_number_of_questions():
    flops = {1: {"majority": 100.0, "beam:width=4": 90.0}, 64: {"majority": 64_000.0}}
    one = Source(QUESTIONS, source().candidates, flops, ("policy", "prm"))
    found = larger_model.in_true_flops(one, TRAINED, 20.0)
    assert found.inference.smaller == {1: 100.0, 64: 64_000.0}
    assert found.questions[1] is None, "with one generation the smaller model takes less on any number"
    n = found.questions[64]
    assert n is not None
    assert 6 * 10 * 1500 + n * 64_000 == pytest.approx(6 * 140 * 1000 + n * 2 * 140 * 20)
    labelled = {**TRAINED, "prm": {**TRAINED["prm"], "data_flops": 50_000.0}}
    found = larger_model.in_true_flops(one, labelled, 20.0)
    n = found.questions[64]
    assert n is not None
    assert 6 * 10 * 1500 + 50_000 + n * 64_000 == pytest.approx(6 * 140 * 1000 + n * 2 * 140 * 20)


def test_the_report_is_drawn_printed_and_written():
    found = compared([i % 5 != 0 for i in range(100)], search=source(), revisions=source((0.7, 0.95, 0.99)))
    assert len(larger_model.figure(found).axes) == 4
    console = Console(file=io.StringIO(), width=110)
    larger_model.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "search, easy" in text
    assert "never" in text
    rows = larger_model.csv_rows(found)
    assert {len(row) for row in rows} == {9}
    assert {row[0] for row in rows} == {"search", "revisions"}
