"""Choices that never see what they are judged on, and budgets that come out even."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.eval.stats import allocate
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime.errors import UserError


def made_up(rng, strategies=4, questions=60):
    return rng.random((strategies, questions)), np.repeat([1, 2, 3], questions // 3)


def choose(accuracy, bins, resamples=0, **settings):
    return allocate.compute_optimal(accuracy, bins, Bootstrap(len(bins), resamples, 0), **settings)


def test_each_bin_gets_the_strategy_that_is_best_there():
    rng = np.random.default_rng(0)
    accuracy, bins = made_up(rng)
    for name, best in ((1, 2), (2, 0), (3, 3)):
        accuracy[best, bins == name] += 2
    found = choose(accuracy, bins, folds=3, repeats=2)
    assert (found.chosen == np.select([bins == 1, bins == 2], [2, 0], 3)).all()
    np.testing.assert_array_equal(found.shares, np.eye(4)[[2, 0, 3]])
    np.testing.assert_array_equal(found.accuracy, accuracy[found.chosen[0], np.arange(60)])
    np.testing.assert_array_equal(allocate.regret(accuracy, found.accuracy), 0)


def test_two_folds_by_hand():
    """Questions 0 and 1 are alike, and 2 and 3; a question gets what is likely best for the two of the other fold."""
    accuracy = np.array([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.8, 0.9]])
    found = choose(accuracy, np.zeros(4, int), repeats=50)
    # Of 2 and 3 the second strategy is best; of 1 and 3, or 1 and 2, neither likely is: then the first is taken.
    by_other_fold = {0: 0, 1: 0}
    for cut in found.chosen:
        second = cut == 1
        assert second.tolist() in ([True, True, False, False], [False] * 4, [False, False, True, True])
        by_other_fold[int(second[0])] += 1
    assert min(by_other_fold.values()) > 5, "both kinds of cut were to be seen"


def test_what_all_questions_say_decides_where_a_bin_says_little():
    """A strategy that is better everywhere is chosen everywhere, though ten questions of a bin often say otherwise."""
    rng = np.random.default_rng(3)
    bins = np.repeat(np.arange(10), 20)
    chance = np.array([[0.4], [0.6]])
    chosen, by_bin = [], []
    for i in range(60):
        accuracy = (rng.random((2, 200)) < chance).astype(float)
        chosen.append((choose(accuracy, bins, seed=i).chosen == 1).mean())
        by_bin.append(np.mean([np.argmax(accuracy[:, first : first + 10].mean(axis=1)) for first in range(0, 200, 10)]))
    assert np.mean(chosen) > 0.9
    assert np.mean(by_bin) < 0.85, "the check could not tell a choice by the bin alone"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 59))
def test_nothing_of_a_question_decides_its_own_strategy(seed, folds, question):
    rng = np.random.default_rng(seed)
    accuracy, bins = made_up(rng)
    before = choose(accuracy, bins, folds=folds, repeats=2, seed=seed).chosen[:, question]
    accuracy[:, question] = rng.random(4) * 1000
    after = choose(accuracy, bins, folds=folds, repeats=2, seed=seed).chosen[:, question]
    np.testing.assert_array_equal(before, after)


def test_a_leak_would_be_seen():
    """Strategies that differ by chance alone: choosing gains nothing on other questions, and much on the same ones.

    Tests that the check has power: the choice with the leak planted must fail it. False-alarm rate about 1e-4.
    """
    rng = np.random.default_rng(1)
    gains, leaked = [], []
    for _ in range(300):
        accuracy, bins = (rng.random((8, 30)) < 0.5).astype(float), np.repeat([1, 2, 3], 10)
        gains.append(choose(accuracy, bins, seed=int(rng.integers(1 << 30))).accuracy.mean())
        per_bin = [accuracy[:, bins == name] for name in (1, 2, 3)]
        leaked.append(np.mean([values.mean(axis=1).max() for values in per_bin]))
    error = np.std(gains) / np.sqrt(len(gains))
    assert abs(np.mean(gains) - 0.5) < 3.9 * error
    assert abs(np.mean(leaked) - 0.5) > 15 * error, "the check could not tell a choice that has seen its test"


def test_resamples_choose_anew_as_a_choice_by_hand_would():
    """A resample's mean is that of the questions drawn, each under what the drawn ones of the other fold choose."""
    rng = np.random.default_rng(4)
    accuracy, bins = made_up(rng, strategies=3, questions=30)
    found = choose(accuracy, bins, resamples=4, seed=7)
    cutter = np.random.default_rng(7)
    folds = [np.split(cutter.permutation(np.flatnonzero(bins == name)), 2) for name in (1, 2, 3)]
    differs = accuracy - accuracy.mean(axis=0)
    anew = []
    for counts in found.bootstrap.counts:
        right = 0.0
        for judged in (0, 1):
            train = [np.sort(cut[1 - judged]) for cut in folds]
            drawn = np.array([[counts[cell].sum()] for cell in train])
            sums = (np.array([[(counts[cell] * differs[:, cell] ** k).sum(axis=1)] for cell in train]) for k in (1, 2))
            best = allocate.likely_differences(drawn, *sums)[:, 0].argmax(axis=1)
            right += sum(
                (counts[cut[judged]] * accuracy[s, cut[judged]]).sum() for cut, s in zip(folds, best, strict=False)
            )
        anew.append(right / 30)
    np.testing.assert_allclose(found.right.sum(axis=0) / found.drawn.sum(axis=0), anew)
    means = found.means()
    assert means[0] == pytest.approx(found.accuracy.mean()) == pytest.approx(anew[0])
    np.testing.assert_allclose(means[1:] - means[1:].mean(), np.array(anew[1:]) - np.mean(anew[1:]), atol=1e-12)
    assert means[1:].mean() == pytest.approx(found.bootstrap.means(found.accuracy)[1:].mean())
    np.testing.assert_allclose(found.means([2])[0], found.accuracy[bins == 2].mean())


@pytest.mark.slow
@pytest.mark.parametrize("world", ["no difference", "one better", "crossing"])
def test_intervals_of_what_was_chosen_cover(world):
    """Accuracies, gains over a fixed strategy, and these on two bins, in 300 data sets of 200 questions.

    A true 92 % lies below 88 % in one of 200 such tests. Intervals that take the choice for fixed cover 70 to 90 %,
    which is checked too: the test could not tell them apart otherwise.
    """
    rng = np.random.default_rng(5)
    questions, found, fixed = 200, [], []
    bootstrap = Bootstrap(questions, 300, 0)
    for i in range(300):
        ease = rng.beta(0.8, 1.2, questions)
        gain = {
            "no difference": np.zeros((3, questions)),
            "one better": np.outer([0, 0.04, 0.01], np.ones(questions)),
            "crossing": np.stack([0 * ease, 0.1 * (0.5 - ease), 0.1 * (ease - 0.5) + 0.02]),
        }[world]
        accuracy = rng.binomial(8, np.clip(ease + gain, 0, 1)) / 8
        bins = np.argsort(np.argsort(rng.binomial(16, ease) + rng.random(questions))) * 5 // questions
        choice = allocate.compute_optimal(accuracy, bins, bootstrap, repeats=5, seed=i)
        found.append([choice.estimate(), choice.less(accuracy[0]), choice.less(accuracy[0], [0, 1])])
        fixed.append(bootstrap.paired(choice.accuracy, accuracy[0]))
    truths = np.mean([[e.mean for e in row] for row in found], axis=0)
    cover = np.mean([[e.low <= t <= e.high for e, t in zip(row, truths, strict=True)] for row in found], axis=0)
    print(world, cover)
    assert (cover > 0.88).all(), cover
    assert np.mean([e.low <= truths[1] <= e.high for e in fixed]) < 0.91, "the check could not tell a choice held fixed"


def test_bins_too_small_to_cut_are_refused():
    accuracy = np.zeros((2, 3))
    with pytest.raises(UserError, match=r"a bin of 1 questions cannot be cut into 2 folds"):
        choose(accuracy, np.array([1, 1, 2]))
    with pytest.raises(UserError, match=r"at least 2 folds"):
        choose(accuracy, np.array([1, 1, 1]), folds=1)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30).filter(lambda w: sum(w) > 0),
    st.integers(0, 5000),
    st.integers(0, 3),
)
def test_a_budget_is_shared_out_to_the_last_generation(weights, rest, least):
    weights = np.array(weights)
    total = rest + least * len(weights)
    found = allocate.share_out(total, weights, least)
    assert found.sum() == total
    assert found.min() >= least
    assert (np.abs(found - least - rest * weights / weights.sum()) < 1 + 1e-6).all(), "off by a whole generation"


def test_shares_are_the_nearest_whole_ones():
    """Of all ways to share out 7, none is nearer to the exact shares."""
    weights = np.array([0.5, 0.3, 0.2])
    found = allocate.share_out(7, weights, 0)

    def distance(counts):
        return np.abs(np.array(counts) - 7 * weights).sum()

    every = [c for c in itertools.product(range(8), repeat=3) if sum(c) == 7]
    assert distance(found) == pytest.approx(min(map(distance, every)))
    with pytest.raises(UserError, match=r"5 generations are fewer than 2 for each of 3 questions"):
        allocate.share_out(5, weights, 2)


def test_weights_are_a_softmax():
    difficulty = np.array([0.1, 0.9, 0.5])
    weights = allocate.softmax_weights(difficulty, 0.5)
    np.testing.assert_allclose(weights, np.exp(difficulty / 0.5) / np.exp(difficulty / 0.5).sum())
    np.testing.assert_allclose(allocate.softmax_weights(difficulty, 1e9), 1 / 3)
    np.testing.assert_allclose(allocate.softmax_weights(difficulty, 1e-9), [0, 1, 0])
    np.testing.assert_allclose(allocate.softmax_weights(difficulty, -1e-9), [1, 0, 0])
    np.testing.assert_allclose(allocate.softmax_weights(difficulty, -2), allocate.softmax_weights(-difficulty, 2))
    with pytest.raises(UserError, match="positive"):
        allocate.softmax_weights(difficulty, 0)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30).filter(lambda w: sum(w) > 0),
    st.integers(0, 3),
    st.integers(0, 20),
    st.floats(0, 1),
)
def test_no_question_gets_more_than_there_is(weights, least, room, fill):
    weights = np.array(weights)
    total = least * len(weights) + round(fill * room * len(weights))
    found = allocate.share_out(total, weights, least, least + room)
    assert found.sum() == total
    assert least <= found.min() <= found.max() <= least + room
    # Nobody with less weight gets more, and shares below the limit stay in proportion, but for a whole generation.
    order = np.argsort(weights, kind="stable")
    assert (np.diff(found[order]) >= -1).all()
    inside = (found - least < room - 1) & (weights > 0)
    if inside.sum() > 1:
        rates = (found - least)[inside] / weights[inside]
        slack = 1 / weights[inside]
        assert (rates[:, None] <= rates[None] + slack[:, None] + slack[None] + 1e-9).all()


def test_a_share_beyond_the_limit_goes_to_the_others():
    assert allocate.share_out(12, np.array([100.0, 2.0, 1.0]), 0, 6).tolist() == [6, 4, 2]
    assert allocate.share_out(9, np.array([1.0, 0.0, 0.0]), 1, 5).tolist() == [5, 2, 2]
    with pytest.raises(UserError, match="10 generations are more than 3 for each of 3 questions"):
        allocate.share_out(10, np.ones(3), 1, 3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 1), st.floats(0, 1))
def test_greed_is_best_for_gains_that_fall(chances, most, least, fill):
    """Against every allocation there is, by the pass@k of each question."""
    chance = np.array(chances)
    total = round(least * len(chance) + fill * (most - least) * len(chance))
    found = allocate.share_greedily(total, allocate.pass_gains(chance, most), least)
    assert found.sum() == total
    assert least <= found.min() <= found.max() <= most

    def right(counts):
        return (1 - (1 - chance) ** np.array(counts)).sum()

    every = [c for c in itertools.product(range(least, most + 1), repeat=len(chance)) if sum(c) == total]
    assert right(found) == pytest.approx(max(map(right, every)))


def test_greed_leaves_what_is_sure_and_what_is_hopeless():
    gains = allocate.pass_gains(np.array([1.0, 0.5, 0.1, 0.0]), 20)
    assert allocate.share_greedily(30, gains).tolist() == [1, 8, 20, 1]
    assert allocate.share_greedily(80, gains).tolist() == [20] * 4
    with pytest.raises(UserError, match="not 1 to 20 for each of 4"):
        allocate.share_greedily(3, gains)


@given(st.lists(st.integers(0, 16).map(lambda i: i / 16), min_size=1, max_size=12))
def test_gains_of_a_curve_are_those_of_its_least_concave_majorant(curve):
    """The majorant at a place is the highest line between two points of the curve on both sides of it."""
    values = np.array(curve)
    gains = allocate.curve_gains(values)
    assert (np.diff(gains) <= 1e-12).all()
    places = np.arange(len(values))
    highest = [
        max(np.interp(k, [i, j], values[[i, j]]) for i in places[: k + 1] for j in places[k:] if i < j or i == j == k)
        for k in places
    ]
    np.testing.assert_allclose(values[0] + np.concatenate([[0.0], np.cumsum(gains)]), highest, atol=1e-12)
