"""Worse verifiers on the same samples."""

import io

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG, QUESTIONS, SAMPLES, make_rows
from ttcjax.eval.records.sample_rows import SCHEMA
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections.verifying import weak
from ttcjax.eval.stats.estimators import Samples


def samples():
    rng = np.random.default_rng(3)
    found = [row | {"logprob": -rng.random() - 20 * (not row["correct"])} for row in make_rows()[0]]
    bank = pa.Table.from_pylist(found, schema=SCHEMA)
    return Samples.from_table(bank, [f"test-{q:03d}" for q in range(QUESTIONS)], SAMPLES)


def test_nothing_flipped_is_the_verifier_itself_and_everything_flipped_its_contrary():
    scores = np.random.default_rng(0).random((3, 4))
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(weak.flip(scores, 0.0, rng), scores)
    np.testing.assert_array_equal(weak.flip(scores, 1.0, rng), 1 - scores)


def test_a_share_is_flipped():
    """A binomial count at a false-alarm rate of 1e-4."""
    scores = np.full(10_000, 0.9)
    flipped = (weak.flip(scores, weak.FLIPPED, np.random.default_rng(2)) < 0.5).sum()
    assert abs(flipped - 2000) < 3.9 * np.sqrt(10_000 * 0.2 * 0.8)


def test_the_real_ones_are_what_the_report_has_elsewhere():
    found = samples()
    for n in BUDGETS:
        values = weak.accuracies(found, "last", n, 0)
        np.testing.assert_array_equal(values["standard"], found.accuracy("weighted", "last", n))
        np.testing.assert_array_equal(values["none"], found.accuracy("majority", "last", n))
        np.testing.assert_array_equal(values["likelihood"], found.accuracy("weighted", "likelihood", n))
        np.testing.assert_array_equal(values["likelihood_best"], found.accuracy("best", "likelihood", n))
        assert set(values) == set(weak.NAMES)
        assert values["likelihood"].mean() >= values["none"].mean(), "right solutions are likelier here"
    assert values["likelihood"].mean() > values["none"].mean() + 0.02
    # Of one sample there is nothing to select.
    single = weak.accuracies(found, "last", 1, 0)
    for values in single.values():
        np.testing.assert_allclose(values, single["none"])


def test_random_scores_know_nothing():
    """Two groups of different size: weighing votes at random can only blur the vote."""
    groups = np.tile([0, 0, 0, 1, 1], (200, 1))[:, None]
    found = samples()
    found = Samples(
        tuple(f"q{i}" for i in range(200)),
        (0,),
        groups,
        groups == 0,
        np.zeros(groups.shape, int),
        found.steps,
        found.likelihoods,
    )
    values = weak.accuracies(found, "last", 5, 0)
    assert (values["none"] == 1).all()
    assert 0.6 < values["random"].mean() < 1.0, "more for the larger group than for the smaller one, and not always"


def test_it_is_printed_drawn_and_written():
    found = weak.compare(CONFIG.sweep, samples(), "last")
    summary = encode(found, places=15)
    assert len(weak.csv_rows(found)) == (6 + 5 + 2 + 3) * len(BUDGETS)
    for name in weak.ALONE:
        for n, cell in summary["prm_minus"][name].items():
            means = (summary["accuracy"][which][n]["mean"] for which in ("standard", name))
            assert cell["mean"] == pytest.approx(np.subtract(*means))
    for weaker, name in (("random", "flipped"), ("flipped", "standard")):
        for n, cell in summary["minus_weaker"][name].items():
            means = (summary["accuracy"][which][n]["mean"] for which in (name, weaker))
            assert cell["mean"] == pytest.approx(np.subtract(*means))
    weak.figure(found).canvas.draw()
    console = Console(file=io.StringIO(), width=80)
    weak.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "random scores" in text
    assert "policy's own likelihood" in text
