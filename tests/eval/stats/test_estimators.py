import collections
import dataclasses
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ttcjax.eval.records import sample_rows
from ttcjax.eval.stats.estimators import (
    COLUMNS,
    SHUFFLES,
    Samples,
    best_of_k,
    monte_carlo_error,
    pass_at_k,
    with_step_truth,
)
from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import AGGREGATIONS, Ragged, aggregate
from ttcjax.verify.select import RULES, choose, choose_one

SCHEMA = pa.schema([sample_rows.SCHEMA.field(name) for name in COLUMNS])


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
        "tokens": 4,
        "logprob": -2.0,
    }


def table(found):
    # Several chunks, as shards give.
    return pa.concat_tables([pa.Table.from_pylist([row], schema=SCHEMA) for row in found] or [SCHEMA.empty_table()])


eighths = st.integers(0, 8).map(lambda i: i / 8)
a_sample = st.none() | st.tuples(st.sampled_from(["1", "2", "3", None]), st.lists(eighths, max_size=3))
banks = st.lists(st.lists(a_sample, min_size=6, max_size=6), min_size=1, max_size=4)


def exact(answers, right, scores, n, rule):
    """The mean over all sets of n samples of whether the rule chooses a right one; a majority's, over their orders too.

    Each of the most frequent answers of a set comes first in as many orders as another.
    """
    found = []
    for chosen in itertools.combinations(range(len(answers)), n):
        if rule == "majority":
            count = collections.Counter(answers[i] for i in chosen if answers[i] is not None)
            top = [answer for answer, votes in count.items() if votes == max(count.values())]
            found.append(np.mean([right[answers.index(answer)] for answer in top]) if top else 0.0)
            continue
        index = choose_one([answers[i] for i in chosen], np.array([scores[i] for i in chosen]), rule)
        found.append(index is not None and right[chosen[index]])
    return np.mean(found)


def laid_out(answers_QN, correct_QN, scores_QN):
    """Samples of one run, with answers numbered from 0 and -1 for none."""
    Q, N = answers_QN.shape
    empty = Samples.from_table(table([]), [f"q{i}" for i in range(Q)], N)
    return dataclasses.replace(
        empty,
        groups=answers_QN[:, None],
        correct=correct_QN[:, None],
        row=np.arange(Q * N).reshape(Q, 1, N),
        steps=Ragged.from_lengths(scores_QN.ravel(), np.ones(Q * N, np.int64)),
        likelihoods=1 - scores_QN.ravel() / 2,
    )


@settings(deadline=None, max_examples=60)
@given(banks, st.sampled_from([1, 6]), st.sampled_from(RULES), st.sampled_from(AGGREGATIONS), st.randoms())
def test_one_sample_and_all_of_them_need_no_chance_whatever_the_order_of_rows(bank, n, rule, how, random):
    names = [f"q{i}" for i in range(len(bank))]
    found = [
        make_row(name, i, *sample)
        for name, samples in zip(names, bank, strict=True)
        for i, sample in enumerate(samples)
        if sample
    ]
    random.shuffle(found)
    samples = Samples.from_table(table(found), names, samples=6)
    got = samples.accuracy(rule, how, n)
    np.testing.assert_allclose(got, samples.select(rule, samples.scores(how), n))
    assert samples.accuracy_error(rule, how, n) == 0
    for q, drawn in enumerate(bank):
        answers = [s[0] if s else None for s in drawn]
        scores = aggregate([s[1] if s else [] for s in drawn], how)
        assert got[q] == pytest.approx(exact(answers, [a == "1" for a in answers], scores, n, rule))
    assert len(samples.missing) == sum(s is None for drawn in bank for s in drawn)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [2, 4])
def test_random_subsets_agree_with_all_subsets_and_their_error_is_as_large_as_stated(rule, n):
    """Twelve questions of nine samples, full of ties; the last samples of a permutation belong to no block of four.

    False-alarm rates about 1e-4: the mean over seeds against enumeration, and how often it lies within 1.96 errors.
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 3, (12, 9))
    scores = rng.integers(0, 9, ids.shape) / 8
    answers = [[None if i < 0 else str(i) for i in row] for row in ids]
    truth = np.mean([exact(a, i == 1, s, n, rule) for a, i, s in zip(answers, ids, scores, strict=True)])
    samples = laid_out(ids, ids == 1, scores)
    seeds = 400
    drawn = [dataclasses.replace(samples, shuffle=seed).repeats(rule, scores[:, None], n) for seed in range(seeds)]
    means = np.array([values.mean() for values in drawn])
    errors = np.array([monte_carlo_error(values) for values in drawn])
    assert drawn[0].shape == (SHUFFLES[1], 12)
    assert abs(means.mean() - truth) < 3.9 * means.std() / np.sqrt(seeds)
    covered = (np.abs(means - truth) < 1.96 * errors).mean()
    assert abs(covered - 0.95) < 3.9 * np.sqrt(0.95 * 0.05 / seeds) + 0.005
    assert 0 < errors.mean() < 0.05


def test_subsets_are_drawn_as_by_hand():
    """Both halves of eight samples, by hand and by permutation: one distribution, at a false-alarm rate of 1e-4."""
    ids, scores = np.array([[0, 1, 1, 0, 2, 1, 0, -1]]), np.array([[8, 2, 1, 3, 7, 3, 2, 8]]) / 8
    samples = laid_out(ids, ids == 1, scores)
    got = [dataclasses.replace(samples, shuffle=i).repeats("weighted", scores[:, None], 4)[:, 0] for i in range(8)]
    rng = np.random.default_rng(1)
    by_hand = []
    for _ in range(8 * SHUFFLES[1]):
        halves = rng.permutation(8).reshape(2, 4)
        by_hand.append(np.mean([ids[0, h[choose(ids[:, h], scores[:, h])[0]]] == 1 for h in np.sort(halves)]))
    counts = [[int((np.ravel(values) == share).sum()) for share in (0, 0.5, 1)] for values in (got, by_hand)]
    pvalue = np.asarray(stats.chi2_contingency(np.array(counts)[:, np.sum(counts, axis=0) > 0])[1])
    assert pvalue > 1e-4


def test_rules_budgets_and_verifiers_see_the_same_subsets():
    """One sample is right and alone in its answer; it wins where its score is the highest, and then only."""
    ids = np.tile(np.arange(12), (5, 1))
    samples = laid_out(ids, ids == 3, np.full(ids.shape, 0.5))
    favoured = np.where(ids == 3, 0.9, 0.5)[:, None]
    best, weighted, soft = (samples.repeats(rule, favoured, 5) for rule in ("best", "weighted", "softmax"))
    np.testing.assert_array_equal(best, weighted)
    np.testing.assert_array_equal(best, soft)
    assert 0 < best.mean() < 1
    assert (best != dataclasses.replace(samples, shuffle=1).repeats("best", favoured, 5)).any()


def test_large_banks_are_permuted_less_and_the_error_is_of_the_mean():
    def shuffles(questions, samples):
        return dataclasses.replace(laid_out(*np.zeros((3, 1, 2), int)), row=np.zeros((questions, 1, samples))).shuffles

    assert shuffles(20, 8)(4) == SHUFFLES[1]
    assert shuffles(420, 64)(16) == 39
    assert shuffles(500, 2048)(16) == SHUFFLES[0]
    assert shuffles(500, 2048)(2048) == shuffles(500, 2048)(1) == 1
    values = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert monte_carlo_error(values) == pytest.approx(np.sqrt(0.5 / 2) / 2)
    assert monte_carlo_error(values[:1]) == 0


@pytest.mark.parametrize("n", [2, 5])
def test_a_vote_asks_no_verifier(n):
    """A vote of two equals one sample: where the two differ, the first one counts."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (40, 10))
    samples = laid_out(ids, ids == 0, rng.random(ids.shape))
    by_truth = np.where(ids == 0, 1.0, 0.0)[:, None]
    alone = samples.repeats("majority", samples.scores("last"), n)
    np.testing.assert_array_equal(samples.repeats("majority", by_truth, n), alone)
    if n == 2:
        np.testing.assert_allclose(samples.accuracy("majority", n=2), samples.pass_at_1())
    assert samples.select("majority", by_truth, n, ties="verifier").mean() > alone.mean() + 0.05


@pytest.mark.parametrize("rule", ["weighted", "best"])
def test_the_policy_selects_by_its_own_likelihood(rule):
    """Two rows of different length: 2 nats over 4 tokens are likelier a token than 1 over 1; a missing one is 0."""
    found = [make_row("a", 0, "1", [0.1]), make_row("a", 1, "2", [0.9]) | {"tokens": 1, "logprob": -1.0}]
    samples = Samples.from_table(table(found), ["a"], samples=3)
    np.testing.assert_allclose(samples.scores("likelihood"), [[[np.exp(-0.5), np.exp(-1.0), 0.0]]])
    assert samples.accuracy(rule, "likelihood")[0] == 1.0
    assert samples.accuracy(rule, "last")[0] == 0.0
    part = samples.part(1, 3)
    np.testing.assert_allclose(part.scores("likelihood"), [[[np.exp(-1.0), 0.0]]])
    # Over all sets, by enumeration.
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 3, (3, 6))
    drawn = laid_out(ids, ids == 1, rng.random(ids.shape))
    for q in range(3):
        answers, likelihoods = [None if i < 0 else str(i) for i in ids[q]], drawn.scores("likelihood")[q, 0]
        expected = exact(answers, ids[q] == 1, likelihoods, 3, rule)
        assert drawn.accuracy(rule, "likelihood", 3)[q] == pytest.approx(expected, abs=1e-9 if rule == "best" else 0.1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([rule for rule in RULES if rule != "majority"]))
def test_equal_answers_that_are_not_all_right_count_by_the_sample_that_is_chosen(seed, rule):
    rng = np.random.default_rng(seed)
    ids, correct, scores = rng.integers(-1, 2, (6, 5)), rng.random((6, 5)) < 0.5, rng.integers(0, 9, (6, 5)) / 8
    chosen = choose(ids, scores, rule)
    expected = (chosen >= 0) & correct[np.arange(6), chosen]
    np.testing.assert_array_equal(laid_out(ids, correct, scores).select(rule, scores[:, None]), expected)


def test_blocks_give_the_exact_expected_accuracy():
    # Three answers with known chances: the expected accuracy of a majority of 3 is a finite sum.
    chances = {"1": 0.5, "2": 0.3, None: 0.2}
    score = {"1": 0.4, "2": 0.6, None: 0.9}
    expected = 0.0
    for triple in itertools.product(chances, repeat=3):
        index = choose_one(triple, [score[a] for a in triple], "majority")
        expected += math.prod(chances[a] for a in triple) * (index is not None and triple[index] == "1")
    rng = np.random.default_rng(0)
    questions, width = 4000, 7  # the seventh sample belongs to no block of three
    ids = rng.choice(3, size=(questions, width), p=list(chances.values()))
    samples = laid_out(np.where(ids == 2, -1, ids), ids == 0, np.array([0.4, 0.6, 0.9])[ids])
    assert samples.accuracy("majority", n=3).mean() == pytest.approx(expected, abs=0.02)


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
    assert got == pytest.approx(exact(names, [name == "1" for name in names], [s / 8 for s in scores], k, "best"))


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
