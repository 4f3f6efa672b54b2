"""Trajectories: what stands before a right answer."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ttcjax.config import TrajectoryConfig
from ttcjax.train.collect.trajectories import SAMPLES, build, from_samples

WORDS = st.text("ab1\n", min_size=1, max_size=8)


def edit_distance(a, b):
    """Levenshtein's recursion, by rows."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@settings(deadline=None, max_examples=100)
@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=7), st.integers(1, 5), st.integers(0, 9))
def test_the_nearest_wrong_answer_is_last(right, wrong, most, seed):
    for trajectory, target in zip(build(right, wrong, most, np.random.default_rng(seed)), right, strict=True):
        assert trajectory.target == target
        assert len(trajectory.answers) <= min(most, len(wrong))
        left = list(wrong)
        for answer in trajectory.answers:
            left.remove(answer)  # Fails where one stands more often than it was sampled.
        if trajectory.answers:
            least = min(edit_distance(text, target) for text in wrong)
            assert trajectory.distance == edit_distance(trajectory.answers[-1], target) == least
        else:
            assert trajectory.distance is None


def test_the_number_of_wrong_answers_is_uniform():
    """False-alarm rate 1e-3."""
    found = build(["x"] * 5000, ["a", "b", "c", "d", "e", "f"], 4, np.random.default_rng(0))
    counts = np.bincount([len(t.answers) for t in found], minlength=5)
    assert len(counts) == 5
    assert stats.chisquare(counts).pvalue > 1e-3
    # "xa" is nearest; of the others every order of any two is as likely.
    found = build(["xab"] * 12000, ["xa", "p", "q", "r"], 3, np.random.default_rng(1))
    orders = [t.answers[:-1] for t in found if len(t.answers) == 3]
    assert all(t.answers[-1] == "xa" for t in found if t.answers)
    _, counts = np.unique([" ".join(o) for o in orders], return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


@settings(deadline=None, max_examples=50)
@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=7), st.integers(1, 5), st.integers(0, 9))
def test_any_answer_with_another_text_may_stand_before_it(right, wrong, most, seed):
    """A target in view would teach to copy: of the demo's first edition 52% of contexts ended with it."""
    for i, trajectory in enumerate(build(right, wrong, most, np.random.default_rng(seed), "any")):
        assert trajectory.target == right[i]
        left = [text for text in (*right, *wrong) if text != right[i]]
        assert len(trajectory.answers) <= min(most, len(left))
        for answer in trajectory.answers:
            left.remove(answer)
        last = trajectory.answers[-1:]
        assert trajectory.distance == (edit_distance(last[0], right[i]) if last else None)


def test_right_answers_stand_before_others_as_often_as_they_are_sampled():
    """8 right ones of 16, all different: of the other 15, 7 are right. z-test at a false-alarm rate of 1e-3."""
    rng = np.random.default_rng(0)
    right = [f"r{i}" for i in range(8)]
    shown = [a for _ in range(300) for t in build(right, ["w"] * 8, 4, rng, "any") for a in t.answers]
    share = sum(a.startswith("r") for a in shown) / len(shown)
    assert abs(share - 7 / 15) < 3.3 * (0.25 / len(shown)) ** 0.5


@pytest.mark.parametrize("context", ["wrong", "any"])
def test_the_share_of_kept_answers_is_the_setting(context):
    """A kept answer stands last in view, once or more, and nowhere else; z-test at a false-alarm rate of 1e-3."""
    found = build(["r"] * 4000, ["a", "b", "c", "d"], 4, np.random.default_rng(2), context, kept=0.3)
    kept = [t for t in found if "r" in t.answers]
    assert abs(len(kept) / len(found) - 0.3) < 3.3 * (0.3 * 0.7 / len(found)) ** 0.5
    assert {t.answers.count("r") for t in kept} == {1, 2, 3, 4}
    assert {len(t.answers) for t in kept} == {1, 2, 3, 4}
    for t in kept:
        assert t.distance == 0
        same = t.answers.count("r")
        assert t.answers[-same:] == ("r",) * same, "a kept answer stands before another one"
        assert len({*t.answers[:-same]}) == len(t.answers) - same, "a wrong answer stands twice"


def sample(question, index, text, answer, correct):
    row = {"question": question, "sample": index, "prompt": f"{question}?\n", "text": text}
    return row | {"answer": answer, "correct": correct}


def test_counts_and_rows_of_sampled_questions():
    rows = [
        sample("a", 0, "1+1=2", "2", True),
        sample("a", 1, "1+1=3", "3", False),
        sample("a", 2, "gibberish", None, False),
        sample("b", 0, "2", "2", True),
        sample("b", 1, "2", "2", True),
        sample("c", 0, "7", "7", False),
    ]
    table = pa.Table.from_pylist(rows, schema=SAMPLES)
    found, counts = from_samples(table, TrajectoryConfig(seed=1))
    assert [(row["question"], row["target"]) for row in found] == [("a", "1+1=2"), ("b", "2"), ("b", "2")]
    assert all(answer == "1+1=3" for row in found for answer in row["answers"]), "what cannot be read is dropped"
    assert (counts["questions"], counts["samples"], counts["unparsable"]) == (3, 6, 1)
    assert (counts["right"], counts["wrong"], counts["trajectories"], counts["kept"]) == (3, 2, 3, 0)
    assert counts["without_right"] == pytest.approx(1 / 3)
    assert counts["without_wrong"] == pytest.approx(1 / 3)
    assert sum(counts["context"]) == 3
    assert sum(counts["distance"].values()) == counts["trajectories"] - counts["context"][0]


def test_a_question_has_the_same_trajectories_in_any_company():
    rows = [sample(q, i, f"{q}{i}", str(i), i < 2) for q in "abcd" for i in range(6)]
    together, _ = from_samples(pa.Table.from_pylist(rows, schema=SAMPLES), TrajectoryConfig())
    alone, _ = from_samples(pa.Table.from_pylist(rows[12:18], schema=SAMPLES), TrajectoryConfig())
    assert [row for row in together if row["question"] == "c"] == alone
