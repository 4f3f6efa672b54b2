"""Training data from a model's own trajectories: what is kept, and how much of each length."""

import collections
import dataclasses

import numpy as np
import pytest

from ttcjax.config import ConfigError, ReSTConfig, RevisionConfig
from ttcjax.runtime.errors import UserError
from ttcjax.train.collect import rest_em

SETTINGS = ReSTConfig(chains=4, answers=3, seed=1)


def chain(question, number, length, right):
    return {
        "question": question,
        "prompt": f"{question}?",
        "chain": number,
        "answers": [f"{question}/{number}/{place}" for place in range(length)],
        "correct": [False] * (length - 1) + [right],
        "parsable": [True] * length,
    }


def made_up(counts, wrong=5):
    """So many chains of each length that end right, and some that never do."""
    lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
    found = [chain(f"q{i}", i % 4, length, True) for i, length in enumerate(lengths)]
    return found + [chain(f"w{i}", i % 4, len(counts), False) for i in range(wrong)]


def test_every_length_is_kept_alike_and_wrong_ends_never():
    chains = made_up([40, 9, 6])
    rows, counts = rest_em.balanced(chains, SETTINGS)
    assert counts == {"chains": 60, "right": [40, 9, 6], "kept": 6}
    assert collections.Counter(len(row["answers"]) for row in rows) == {0: 6, 1: 6, 2: 6}
    by_question = {c["question"]: c for c in chains}
    for row in rows:
        source = by_question[row["question"]]
        assert source["correct"][-1]
        assert [*row["answers"], row["target"]] == source["answers"]
        assert row["prompt"] == source["prompt"]
    assert len({row["question"] for row in rows}) == len(rows), "one chain was taken twice"


def test_what_is_kept_is_chosen_by_the_seed_alone():
    chains = made_up([40, 9, 6])
    assert rest_em.balanced(chains, SETTINGS) == rest_em.balanced(chains, SETTINGS)
    assert rest_em.balanced(chains, SETTINGS) != rest_em.balanced(chains, dataclasses.replace(SETTINGS, seed=2))


def test_chains_of_a_length_are_chosen_evenly():
    """Each of ten chains is kept in 4 of 10 draws; false-alarm rate below 1e-4 for all ten together."""
    chains, draws = made_up([10, 4, 4]), 400
    kept = collections.Counter(
        row["question"]
        for seed in range(draws)
        for row in rest_em.balanced(chains, dataclasses.replace(SETTINGS, seed=seed))[0]
        if not row["answers"]
    )
    error = np.array([kept[f"q{i}"] for i in range(10)]) / draws - 0.4
    assert np.abs(error).max() < 4.6 * np.sqrt(0.4 * 0.6 / draws), kept


def test_lengths_that_cannot_be_balanced_are_said_so():
    with pytest.raises(UserError, match=r"of 14 chains none .* raise --revision\.rest_em\.questions"):
        rest_em.balanced(made_up([5, 4, 0]), SETTINGS)


def test_more_answers_than_a_chain_ever_shows_are_refused():
    with pytest.raises(ConfigError, match=r"rest_em\.answers \(6\) must not exceed"):
        RevisionConfig(rest_em=ReSTConfig(chains=1, answers=6))
