"""Refining: what is kept, what is in view after a try that failed, and what never wins."""

import pytest

from ttcjax.config import ConfigError
from ttcjax.engine.engine import Solution
from ttcjax.search.chains import Answer, Reviser
from ttcjax.search.registry import parse
from ttcjax.search.strategies.refine import Refine
from ttcjax.search.strategies.revise import Revise


class Script(Reviser):
    """Gives the answers of a script, one list of (text, score) a question, and writes down what it was shown."""

    def __init__(self, script):
        self.script = script
        self.seen = []

    def sample(self, lengths, seed, stop=None, temperature=None):
        assert lengths == [1]
        return [[[self._answer(q, 0)]] for q in range(len(self.script))]

    def revise(self, answers, numbers, step, seed, temperature=None):
        self.seen.append([group[0] for group in answers])
        return [[self._answer(q, step)] for q in range(len(self.script))]

    def score(self, chains):
        return [[[self._scored(q, chain[0])] for chain in group] for q, group in enumerate(chains)]

    def score_new(self, before, answers):
        assert [group[0] for group in before] == self.seen[-1], "judged with something else in view"
        return [[self._scored(q, answer) for answer in row] for q, row in enumerate(answers)]

    def _answer(self, q, step):
        return Answer(Solution((), self.script[q][step][0], True, 0.0), step)

    def _scored(self, q, answer):
        return Answer(answer.solution, answer.shown, dict(self.script[q])[answer.text])


def kept(script, readable=lambda answer: True):
    reviser = Script(script)
    chains = Refine(len(script[0]) - 1).chains(reviser, 0, readable)
    return [[a.kept for a in chain] for [chain] in chains], reviser.seen


def test_a_vote_of_answers_may_ask_the_verifier_for_ties():
    asking = parse("revise:s=2,p=2,select=last,ties=verifier")
    assert asking == Revise(2, 2, "last", "verifier")
    assert parse(asking.name) == asking
    assert parse(Revise(2, 2, "majority").name) == Revise(2, 2, "majority", "first")
    with pytest.raises(ConfigError, match="not with select=hierarchical"):
        parse("revise:s=2,ties=verifier")


def test_an_answer_gives_way_only_to_a_higher_score():
    script = [
        [("a", 0.5), ("b", 0.4), ("c", 0.7), ("d", 0.7), ("e", 0.8)],
        [("p", 0.9), ("q", 0.1), ("r", 0.2), ("s", 0.3), ("t", 0.4)],
    ]
    flags, seen = kept(script)
    assert flags == [[True, False, True, False, True], [True, False, False, False, False]]
    assert [views[0] for views in seen] == [["a"], ["a"], ["a", "c"], ["a", "c"]], "a failed try stayed in view"
    assert [views[1] for views in seen] == [["p"]] * 4


@pytest.mark.parametrize("first_readable", [True, False])
def test_what_cannot_be_read_never_displaces_what_can(first_readable):
    script = [[("a", 0.1), ("?", 0.9), ("b", 0.2)]]
    flags, _ = kept(script, lambda answer: answer.text != "?" and (first_readable or answer.text != "a"))
    assert flags == [[True, False, True]]
