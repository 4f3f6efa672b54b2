import dataclasses
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.errors import UserError
from ttcjax.eval import rows
from ttcjax.eval.estimators import COLUMNS, Bootstrap, Samples, StrategyName, best_of_k, pass_at_k, with_step_truth
from ttcjax.select import RULES, choose_one
from ttcjax.verify.aggregate import AGGREGATIONS, Ragged, aggregate

SCHEMA = pa.schema([rows.SCHEMA.field(name) for name in COLUMNS])


def make_row(question, sample, answer, steps, seed=0, truth=None):
    return {
        "question": question,
        "level": 1,
        "strategy": "sample",
        "n": 0,
        "seed": seed,
        "sample": sample,
        "answer": answer,
        "correct": answer == "1",
        "step_scores": steps,
        "step_truth": truth,
    }


def table(found):
    # Several chunks, as shards give.
    return pa.concat_tables([pa.Table.from_pylist([row], schema=SCHEMA) for row in found] or [SCHEMA.empty_table()])


eighths = st.integers(0, 8).map(lambda i: i / 8)
a_sample = st.none() | st.tuples(st.sampled_from(["1", "2", "3", None]), st.lists(eighths, max_size=3))
banks = st.lists(st.lists(a_sample, min_size=6, max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(banks, st.integers(1, 6), st.sampled_from(RULES), st.sampled_from(AGGREGATIONS), st.randoms())
def test_accuracy_is_the_mean_over_disjoint_blocks_whatever_the_order_of_rows(bank, n, rule, how, random):
    names = [f"q{i}" for i in range(len(bank))]
    found = [
        make_row(name, i, *sample)
        for name, samples in zip(names, bank, strict=True)
        for i, sample in enumerate(samples)
        if sample
    ]
    random.shuffle(found)
    samples = Samples.from_table(table(found), names, samples=6)
    got = samples.select(rule, samples.scores(how), n)
    if rule != "best" or n == 6:
        np.testing.assert_array_equal(samples.accuracy(rule, how, n), got)
    for q, drawn in enumerate(bank):
        answers = [s[0] if s else None for s in drawn]
        scores = aggregate([s[1] if s else [] for s in drawn], how)
        right = []
        for start in range(0, 6 - n + 1, n):
            index = choose_one(answers[start : start + n], scores[start : start + n], rule)
            right.append(index is not None and answers[start + index] == "1")
        assert got[q] == pytest.approx(sum(right) / len(right))
    assert len(samples.missing) == sum(s is None for drawn in bank for s in drawn)


def test_blocks_give_the_exact_expected_accuracy():
    # Three answers with known chances: the expected accuracy of a majority of 3 is a finite sum.
    chances = {"1": 0.5, "2": 0.3, None: 0.2}
    score = {"1": 0.4, "2": 0.6, None: 0.9}
    exact = 0.0
    for triple in itertools.product(chances, repeat=3):
        index = choose_one(triple, [score[a] for a in triple], "majority")
        exact += math.prod(chances[a] for a in triple) * (index is not None and triple[index] == "1")
    rng = np.random.default_rng(0)
    questions, width = 4000, 7  # the seventh sample belongs to no block of three
    ids = rng.choice(3, size=(questions, width), p=list(chances.values()))
    grid = np.arange(questions * width).reshape(questions, 1, width)
    samples = Samples.from_table(table([]), [f"q{i}" for i in range(questions)], width)
    samples = dataclasses.replace(
        samples,
        groups=np.where(ids == 2, -1, ids)[:, None],
        correct=(ids == 0)[:, None],
        row=grid,
        steps=Ragged.from_lengths(np.array([0.4, 0.6, 0.9])[ids.ravel()], np.ones(ids.size, np.int64)),
    )
    assert samples.accuracy("majority", n=3).mean() == pytest.approx(exact, abs=0.02)


def test_runs_are_averaged_and_missing_runs_count_as_wrong():
    found = [
        make_row("a", 0, "1", [0.5], seed=7),
        make_row("b", 0, "2", [0.5], seed=7),
        make_row("b", 0, "1", [1.0], 9),
    ]
    samples = Samples.from_table(table(found), ["a", "b"], samples=1, runs=2)
    np.testing.assert_array_equal(samples.accuracy("weighted"), [0.5, 0.5])
    assert samples.missing == [("a", 9, 0)]
    # A question without any row, a run without any row.
    samples = Samples.from_table(table(found[:1]), ["a", "b"], samples=1, runs=2)
    np.testing.assert_array_equal(samples.accuracy("weighted"), [0.5, 0.0])
    assert len(samples.missing) == 3


def test_equivalent_answers_vote_together_when_a_grader_says_so():
    found = [make_row("a", i, answer, [0.5]) for i, answer in enumerate(["2", "2", "1", "1.0", "1"])]
    for row in found:
        row["correct"] = row["answer"].startswith("1")
    assert Samples.from_table(table(found[:4]), ["a"], 4).accuracy("majority")[0] == 0.0
    equal = Samples.from_table(table(found), ["a"], 5, grade_equal=lambda a, b: float(a) == float(b))
    assert equal.accuracy("majority")[0] == 1.0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([make_row("a", 0, "1", [0.5])] * 2, "same sample twice"),
        ([make_row("a", 9, "1", [0.5])], "do not belong to this config"),
        ([make_row("z", 0, "1", [0.5])], "do not belong to this config"),
    ],
)
def test_rows_that_cannot_be_placed_are_refused(found, message):
    with pytest.raises(UserError, match=message):
        Samples.from_table(table(found), ["a"], samples=4)


def test_a_budget_above_the_bank_is_refused():
    with pytest.raises(UserError, match=r"raise sweep.samples"):
        Samples.from_table(table([]), ["a"], samples=4).accuracy("majority", n=5)


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(7)), st.lists(st.sampled_from("123-"), min_size=7, max_size=7), st.integers(1, 6))
def test_best_of_k_is_the_mean_over_all_sets(scores, answers, k):
    """Against enumeration with the rule that selects everywhere; no two scores are equal."""
    names = [None if answer == "-" else answer for answer in answers]
    found = [make_row("a", i, name, [score / 8]) for i, (name, score) in enumerate(zip(names, scores, strict=True))]
    got = Samples.from_table(table(found), ["a"], samples=7).accuracy("best", "last", k)[0]
    right = []
    for chosen in itertools.combinations(range(7), k):
        index = choose_one([names[i] for i in chosen], [scores[i] / 8 for i in chosen], "best")
        right.append(index is not None and names[chosen[index]] == "1")
    assert got == pytest.approx(np.mean(right))


def test_best_of_k_of_equal_scores_is_a_draw_and_of_true_ones_pass_at_k():
    rng = np.random.default_rng(0)
    correct = rng.random((5, 9)) < 0.3
    readable = np.ones_like(correct)
    for k in range(1, 10):
        np.testing.assert_allclose(best_of_k(correct, np.full(correct.shape, 0.5), readable, k), correct.mean(axis=1))
        np.testing.assert_allclose(best_of_k(correct, correct.astype(float), readable, k), pass_at_k(correct, k))
    np.testing.assert_array_equal(best_of_k(correct, rng.random(correct.shape), ~readable, 4), 0)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(correct, k):
    if k > len(correct):
        with pytest.raises(UserError, match=f"pass@{k}"):
            pass_at_k(np.array([correct]), k)
        return
    subsets = list(itertools.combinations(correct, k))
    assert pass_at_k(np.array([correct]), k)[0] == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_bootstrap_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    bootstrap = Bootstrap(questions=150, resamples=1000, seed=0)
    covered = [e.low <= 0.3 <= e.high for e in (bootstrap(rng.random(150) < 0.3) for _ in range(600))]
    assert 0.92 < np.mean(covered) < 0.97


def test_bootstrap_matches_resampling_by_hand_and_repeats_by_seed():
    values = np.random.default_rng(2).random(80)
    estimate = Bootstrap(80, 4000, seed=5)(values)
    by_hand = [np.random.default_rng(i).choice(values, 80).mean() for i in range(4000)]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.005)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate == Bootstrap(80, 4000, seed=5)(values)
    assert estimate != Bootstrap(80, 4000, seed=6)(values)


def test_pairing_removes_what_questions_have_in_common():
    rng = np.random.default_rng(3)
    base = rng.random(100)
    bootstrap = Bootstrap(100, 500, seed=0)
    difference = bootstrap.paired(base + 0.01, base)
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.01, 0.01, 0.01))
    assert bootstrap(base).high - bootstrap(base).low > 0.05


def test_bootstrap_without_questions_is_refused():
    with pytest.raises(UserError, match="no question"):
        Bootstrap(0, 10, 0)


def test_strategy_names_are_read():
    name = StrategyName.parse("beam:width=4,select=majority,aggregate=min,ties=first")
    assert (name.kind, name.rule, name.aggregation("last"), name.ties) == ("beam", "majority", "min", "first")
    assert (name.from_bank, name.is_best_of_n_at(3), name.is_best_of_n_at(4)) == (False, True, False)
    plain = StrategyName.parse("best_of_n")
    assert (plain.from_bank, plain.rule, plain.aggregation("mean"), plain.ties) == (True, "weighted", "mean", "score")
    assert StrategyName.parse("majority").rule == "majority"
    assert not StrategyName.parse("beam:width=sqrt").is_best_of_n_at(1)


@pytest.mark.parametrize("text", ["", ":width=4", "beam:width", "beam:width=", "beam:=4"])
def test_strategy_names_of_another_form_are_refused(text):
    with pytest.raises(UserError, match="write it like beam:width=4"):
        StrategyName.parse(text)


def test_only_checked_rows_with_a_score_for_every_step_are_judged():
    found = [
        make_row("a", 0, "1", [0.5, 0.25], truth=[True, False]),
        make_row("a", 1, "1", [0.5]),
        make_row("a", 2, "1", [0.5], truth=[True, False]),
        make_row("a", 3, "1", [], truth=[]),
        make_row("a", 4, "1", [1.0], truth=[True]),
    ]
    scores, truth, unaligned = with_step_truth(table(found))
    assert scores.values.tolist() == [0.5, 0.25, 1.0]
    assert truth.values.tolist() == [True, False, True]
    assert scores.offsets.tolist() == truth.offsets.tolist() == [0, 2, 3]
    assert unaligned == 1
