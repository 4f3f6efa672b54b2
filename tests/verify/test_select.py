import itertools
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.runtime.errors import UserError
from ttcjax.verify.select import RULES, TIES, Votes, choose, choose_in_chains, choose_one, default_ties, group_answers

# Eighths add up exactly, so a reference in another order of summation breaks ties alike.
score = st.integers(0, 8).map(lambda i: i / 8)
question = st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), score), min_size=1, max_size=9)


def reference(samples, rule, ties):
    """The rules of the module docstring, word for word."""
    members = defaultdict(list)
    for index, (answer, score) in enumerate(samples):
        if answer is not None:
            members[answer].append((index, Fraction(score)))
    if not members:
        return None

    def key(answer):
        scores = [s for _, s in members[answer]]
        weight = {"majority": len(scores), "best": max(scores), "weighted": sum(scores)}[rule]
        return weight, sum(scores) if ties == "verifier" else 0, -members[answer][0][0]

    return max(members, key=key)


@given(question, st.sampled_from(["majority", "best", "weighted"]), st.sampled_from([None, *TIES]))
def test_one_question_matches_the_rules_read_aloud(samples, rule, ties):
    answers, scores = [a for a, _ in samples], [s for _, s in samples]
    index = choose_one(answers, scores, rule, ties=ties)
    expected = reference(samples, rule, ties or default_ties(rule))
    assert (None if index is None else answers[index]) == expected
    if index is not None and (rule, ties or "first") == ("majority", "first"):
        assert index == answers.index(expected), "a vote looks at no score"
    elif index is not None:  # the sample returned is the group's best one
        assert scores[index] == max(s for a, s in samples if a == expected)


@given(question)
def test_a_majority_is_the_same_under_any_scores_and_without_any(samples):
    answers, scores = [a for a, _ in samples], [s for _, s in samples]
    alone = choose_one(answers, None, "majority")
    assert choose_one(answers, scores, "majority") == choose_one(answers, [-s for s in scores], "majority") == alone
    assert choose_one(answers, np.full(len(answers), np.nan), "majority") == alone
    of_chain = choose_in_chains(group_answers(answers)[None, None], None, "majority")[0]
    assert (None if of_chain < 0 else of_chain) == alone


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.booleans()), min_size=1, max_size=5))
def test_the_expected_vote_is_the_mean_over_all_orders(samples):
    """Also of equal answers that are not all right: then it is the first of them that counts."""
    found = []
    for order in itertools.permutations(samples):
        index = choose_one([answer for answer, _ in order], None, "majority")
        found.append(index is not None and order[index][1])
    votes = Votes(group_answers([answer for answer, _ in samples])[None])
    right = np.array([right for _, right in samples], float)
    assert [*votes.plurality(right[votes.members]), 0.0][0] == pytest.approx(np.mean(found))


@given(st.lists(question, min_size=1, max_size=6), st.sampled_from(RULES))
def test_questions_together_equal_questions_alone(questions, rule):
    width = max(map(len, questions))
    groups, scores = np.full((len(questions), width), -1), np.full((len(questions), width), np.nan)
    for q, samples in enumerate(questions):
        groups[q, : len(samples)] = group_answers([a for a, _ in samples])
        scores[q, : len(samples)] = [s for _, s in samples]
    alone = [choose_one([a for a, _ in samples], [s for _, s in samples], rule) for samples in questions]
    assert [None if i < 0 else i for i in choose(groups, scores, rule)] == alone


@given(question, st.sampled_from([0.5, 1, 2]))
def test_a_softmax_weighs_a_vote_by_its_odds(samples, temperature):
    """No other answer has more than the chosen one but for rounding, 0 and 1 being as far off as float32 has them."""
    answers, scores = [a for a, _ in samples], np.array([s for _, s in samples])
    index = choose_one(answers, scores, "softmax", temperature=temperature)
    inside = np.clip(scores, np.finfo(np.float32).tiny, 1 - 2.0**-24)
    weights = defaultdict(float)
    for answer, odds in zip(answers, inside / (1 - inside), strict=True):
        if answer is not None:
            weights[answer] += odds ** (1 / temperature)
    assert (index is None) == (not weights)
    if index is not None:
        assert weights[answers[index]] >= max(weights.values()) * (1 - 1e-9)


@given(question)
def test_a_softmax_of_infinite_temperature_is_a_majority_and_one_near_zero_the_best_score(samples):
    answers, scores = [a for a, _ in samples], [s for _, s in samples]
    infinite = choose_one(answers, scores, "softmax", temperature=np.inf)
    assert infinite == choose_one(answers, scores, "majority", ties="verifier")
    readable = [s for a, s in samples if a is not None]
    cold = choose_one(answers, scores, "softmax", temperature=1e-9)
    if len(set(readable)) == len(readable):
        assert cold == choose_one(answers, scores, "best")
    assert readable == [] or scores[cold or 0] == max(readable)


def test_the_temperature_of_a_softmax_decides_between_a_good_answer_and_a_common_one():
    answers, scores = ["a", "b", "b", "b"], [0.8, 0.5, 0.5, 0.5]  # odds 4 against 1 + 1 + 1
    assert answers[choose_one(answers, scores, "softmax") or 0] == "a"
    assert answers[choose_one(answers, scores, "softmax", temperature=2) or 0] == "b"  # 2 against 3
    assert choose_one(answers, scores, "weighted") == 1


def test_what_a_softmax_cannot_take_is_refused():
    with pytest.raises(UserError, match="temperature of softmax votes must be positive, not -1"):
        choose_one(["1"], [0.5], "softmax", temperature=-1)
    with pytest.raises(UserError, match="scores from 0 to 1"):
        choose_one(["1"], [1.5], "softmax")


def test_ids_of_any_size_are_groups():
    """Beyond what fits into one integer with the question and the sample."""
    groups = np.array([[1 << 61, 5, 1 << 61, -1], [5, 5, 0, -1]])
    assert choose(groups, np.full((2, 4), 0.5), "majority").tolist() == [0, 0]


@given(question, st.floats(0.01, 1))
def test_constant_scores_make_weighted_equal_to_majority(samples, constant):
    answers = [a for a, _ in samples]
    scores = [constant] * len(answers)
    assert choose_one(answers, scores, "weighted") == choose_one(answers, scores, "majority")


def test_ties_go_to_the_higher_summed_score_then_to_the_lower_index():
    assert choose_one(["a", "b", "b", "a"], [0.1, 0.5, 0.5, 0.1], "majority", ties="verifier") == 1
    assert choose_one(["a", "b"], [0.5, 0.5], "majority", ties="verifier") == 0
    assert choose_one(["a", "b", "b"], [0.9, 0.9, 0.1], "best") == 1
    assert choose_one(["b", "a", "a"], [0.5, 0.25, 0.25], "weighted") == 0


def test_ties_of_a_vote_go_to_the_earliest_sample_so_that_no_verifier_is_needed():
    answers, scores = ["a", "b", "b", "a"], [0.1, 0.5, 0.5, 0.1]
    assert choose_one(answers, scores, "majority") == 0
    assert answers[choose_one(answers, scores, "weighted", ties="first") or 0] == "b"
    assert answers[choose_one(["a", "b", "b"], [0.9, 0.9, 0.1], "best", ties="first") or 0] == "a"


def test_votes_in_chains_go_to_the_earliest_answer_unless_the_verifier_is_asked():
    groups, scores = np.array([[[0, 1], [1, 0]]]), np.array([[[0.1, 0.5], [0.6, 0.2]]])
    assert choose_in_chains(groups, scores, "majority").tolist() == [0]
    assert choose_in_chains(groups, scores, "majority", "verifier").tolist() == [2]
    assert choose_in_chains(groups, scores, "last").tolist() == [1]
    assert choose_in_chains(groups, scores[:, :, ::-1], "last", "verifier").tolist() == [3]
    for rule, ties in (("hierarchical", "first"), ("best", "first"), ("majority", "verifier"), ("last", "verifier")):
        with pytest.raises(UserError, match=f"'{rule}' with ties by '{ties}' needs scores"):
            choose_in_chains(groups, None, rule, ties)


def test_unparsable_answers_do_not_vote():
    assert choose_one([None, None, "7"], [1.0, 1.0, 0.0], "weighted") == 2
    assert choose_one([None, None], [1.0, 1.0], "majority") is None
    assert choose_one([], [], "best") is None
    assert choose_one([None, "7"], [float("nan"), 0.3], "best") == 1


def test_equivalent_strings_vote_together():
    def same_value(a, b):
        return Fraction(a) == Fraction(b)

    answers = ["1/2", "3", "0.5", None, "2/4", "3"]
    assert list(group_answers(answers)) == [0, 1, 2, -1, 3, 1]
    assert list(group_answers(answers, same_value)) == [0, 1, 0, -1, 0, 1]
    assert choose_one(answers, [0.5] * 6, "majority") == 1
    assert choose_one(answers, [0.5] * 6, "majority", same_value) == 0


def test_equal_strings_need_no_grader():
    def never(a, b):
        raise AssertionError(f"compared {a} with {b}")

    assert list(group_answers(["x", "x", None, "x"], never)) == [0, 0, -1, 0]


def test_bad_input_says_what_is_wrong():
    with pytest.raises(UserError, match=r"'average'.*majority, best, weighted, softmax"):
        choose_one(["1"], [0.5], "average")
    with pytest.raises(UserError, match=r"unknown tie rule 'score': use one of first, verifier"):
        choose_one(["1"], [0.5], "majority", ties="score")
    with pytest.raises(UserError, match="'weighted' with ties by 'verifier' needs scores"):
        choose_one(["1"], None)
    with pytest.raises(UserError, match="not finite"):
        choose_one(["1"], [float("nan")])
    with pytest.raises(UserError, match=r"\(1, 2\) and \(1, 1\)"):
        choose_one(["1", "2"], [0.5])
