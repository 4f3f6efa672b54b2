"""Best-of-N that stops: when a vote is settled, and that stopping changes nothing but the samples left undrawn."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.config import ConfigError
from ttcjax.data import gsm8k
from ttcjax.engine.engine import Engine, Prompt, Solution
from ttcjax.search.ops import run
from ttcjax.search.session import OWN, Session
from ttcjax.search.strategies.adaptive import Adaptive
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.verify import select

ANSWERS = ("a", "b", None)


TASK = dataclasses.replace(gsm8k.TASK, extract=lambda text: text or None)


class Script(Engine):
    """An engine whose samples are given: by question, the answers that come one after the other, with their scores."""

    def __init__(self, answers, scores=None):
        self.answers, self.scores = answers, scores or {q: [0.5] * len(row) for q, row in answers.items()}
        self.drawn = dict.fromkeys(answers, 0)

    def sample(self, prompts, n, seed, *, first_sample=0, temperature=None):
        for prompt in prompts:
            assert first_sample == self.drawn[prompt.id], "a sample was drawn twice, or one was left out"
            self.drawn[prompt.id] += n
        rows = range(first_sample, first_sample + n)
        return [[Solution((i,), self.answers[p.id][i] or "", True, 0.0) for i in rows] for p in prompts]

    def score(self, prompts, solutions):
        return [
            [Solution(s.tokens, s.text, True, 0.0, (self.scores[p.id][s.tokens[0]],)) for s in group]
            for p, group in zip(prompts, solutions, strict=True)
        ]


def outcomes(strategy, engine):
    session = Session(engine, TASK, [Prompt(q, (1,)) for q in engine.answers])
    return dict(zip(engine.answers, run(strategy, session, 0), strict=True))


def winner(answers):
    place = select.choose_one(answers, None, "majority")
    return None if place is None else answers[place]


@pytest.mark.parametrize("n", [3, 5, 6])
def test_a_vote_is_decided_where_no_further_answer_could_change_it(n):
    """Against every way in which the samples left could come out, answers not seen so far among them."""
    strategy, seen = Adaptive(n, wave=1, stop="decided"), set()
    for drawn in range(1, n):
        for given_ in itertools.product(ANSWERS, repeat=drawn):
            ends = {winner([*given_, *rest]) for rest in itertools.product((*ANSWERS, "new"), repeat=n - drawn)}
            assert strategy.settled(given_, [1.0] * drawn) == (len(ends) == 1), given_
            seen.add(len(ends) == 1)
    assert seen == {True, False}


@given(st.lists(st.sampled_from(("a", "b", "c", None)), min_size=24, max_size=24), st.integers(1, 23))
@settings(max_examples=100, deadline=None)
def test_what_is_decided_is_the_vote_of_all(answers, wave):
    found = outcomes(Adaptive(24, wave=wave, stop="decided"), Script({"q": answers}))["q"]
    given_ = [s.text or None for s in found.candidates]
    assert winner(given_) == winner(answers)
    assert given_ == answers[: len(given_)], "not the head of what best-of-N draws"
    assert len(given_) in (24, *range(wave, 24, wave)), "stopped within a wave"
    assert found.generations == len(given_)


@given(
    st.lists(st.tuples(st.sampled_from(("a", "b", "c", None)), st.floats(0, 1)), min_size=16, max_size=16),
)
@settings(max_examples=100, deadline=None)
def test_what_is_decided_by_weight_is_the_weighted_vote_of_all(samples):
    answers, scores = [answer for answer, _ in samples], [score for _, score in samples]
    strategy = Adaptive(16, stop="decided", select="weighted")
    found = outcomes(strategy, Script({"q": answers}, {"q": scores}))["q"]
    seen = [s.text or None for s in found.candidates]
    few, many = found.choices[OWN], select.choose_one(answers, scores)
    assert (few is None) == (many is None)
    assert few is None or many is None or seen[few] == answers[many]


def test_the_posterior_is_that_of_two_answers_and_a_uniform_prior():
    """Of 3 votes against 0 by hand: the integral of 4 p^3 from 1/2 to 1 is 1 - 1/16; against 1, of 20 p^3 (1 - p)."""
    assert Adaptive(64, confidence=0.93).settled(["a"] * 3, [1.0] * 3)
    assert not Adaptive(64, confidence=0.94).settled(["a"] * 3, [1.0] * 3)
    assert Adaptive(64, confidence=0.81).settled(["a", "a", "b", None, "a"], [1.0] * 5)
    assert not Adaptive(64, confidence=0.82).settled(["a", "a", "b", None, "a"], [1.0] * 5)
    assert Adaptive(64).settled(["a"] * 4, [1.0] * 4), "the paper's 0.95 stops after 4 equal answers"


def test_easy_questions_stop_while_hard_ones_go_on():
    rng = np.random.default_rng(0)
    easy = {f"easy-{i}": ["a" if rng.random() < 0.95 else "b" for _ in range(32)] for i in range(20)}
    hard = {f"hard-{i}": [str(rng.integers(6)) for _ in range(32)] for i in range(20)}
    engine = Script(easy | hard)
    outcomes(Adaptive(32), engine)
    drawn = [np.mean([engine.drawn[q] for q in some]) for some in (easy, hard)]
    assert drawn[0] < 8
    assert drawn[1] > 16


def test_a_wave_of_all_samples_is_best_of_n():
    assert Adaptive(4, wave=4, temperature=0.6).plain() == BestOfN(4, "majority", temperature=0.6)
    assert Adaptive(2, select="weighted").plain() == BestOfN(2)
    for confidence in (1.0, 1.5):
        with pytest.raises(ConfigError, match="confidence must lie in"):
            Adaptive(8, confidence=confidence)
    with pytest.raises(ConfigError, match="leave it out"):
        Adaptive(8, stop="decided", confidence=0.9)


def test_real_samples_are_those_of_best_of_n(tiny, engine, prompts):
    letters = dataclasses.replace(TASK, extract=lambda text: text[:1] or None)
    session = Session(engine, letters, prompts)
    whole = engine.sample(prompts, 8, 3)
    for outcome, group in zip(run(Adaptive(8, wave=2, confidence=0.6), session, 3), whole, strict=True):
        assert [s.tokens for s in outcome.candidates] == [s.tokens for s in group][: len(outcome.candidates)]
