"""The swap control: whose answers are in view, and that they are the only difference."""

import dataclasses

import pytest

from ttcjax.config import RevisionConfig
from ttcjax.data.task import Example
from ttcjax.engine.engine import Begun
from ttcjax.eval.collect.swap import partners, swapped
from ttcjax.search.chains import Reviser

SEED = 3
VIEW = RevisionConfig().view


def example(subject, level):
    return Example("", "", "", "", level, subject)


def test_a_partner_is_the_next_of_the_subject_and_level_or_else_of_the_subject():
    rows = [("a", 1), ("b", 1), ("a", 2), ("a", 1), ("c", 1), ("b", 5), ("a", 1)]
    assert partners([example(*row) for row in rows]) == [3, 5, 3, 6, None, 1, 0]


@pytest.fixture(scope="module")
def long(tiny):
    """The tiny models with room for a few answers."""

    def longer(model):
        return dataclasses.replace(model, config=dataclasses.replace(model.config, max_seq_len=192))

    return dataclasses.replace(tiny, policy=longer(tiny.policy), verifier=longer(tiny.verifier))


def test_the_partner_s_answers_are_in_view_and_all_else_is_the_same(long):
    engine = long.engine()
    prompts = long.prompts(engine, count=4)
    reviser = Reviser(engine, prompts, VIEW)
    chains = reviser.sample([5, 2], SEED)
    found = swapped(reviser, chains, [1, 2, 0, None], 4, SEED)
    assert [len(group) for group in found] == [1, 1, 1, 0]
    eos = engine.tokenizer.eos_id
    for q, partner in enumerate((1, 2, 0)):
        chain = found[q][0]
        assert chain[0] == chains[q][0][0], "without answers in view nothing is swapped"
        for place in (1, 2, 3):
            texts = [a.text for a in chains[partner][0][place - chain[place].shown : place]]
            view = [t for ids in engine.tokenizer.encode_batch(texts) for t in (*ids, eos)]
            [[expected]] = engine.resume(prompts[q : q + 1], [[Begun(tuple(view), 0, place)]], SEED)
            assert chain[place].solution.tokens == expected.tokens
    # With itself for a partner a question gets its own chain.
    own = swapped(reviser, chains, [0, 1, 2, 3], 4, SEED)
    assert [[a.solution.tokens for a in group[0]] for group in own] == [
        [a.solution.tokens for a in group[0][:4]] for group in chains
    ]
