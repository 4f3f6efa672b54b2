"""Chains on a real engine: what is in view, what decides an answer, and what the verifier reads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.engine.test_engine import assert_same
from ttcjax.bench.ours import NoText
from ttcjax.config import RevisionConfig
from ttcjax.engine.engine import Begun
from ttcjax.model import heads, transformer
from ttcjax.runtime.errors import UserError
from ttcjax.search.chains import Reviser
from ttcjax.search.context import Context
from ttcjax.verify import value_head

SEED, LIMIT = 3, 192
VIEW = RevisionConfig().view


@pytest.fixture(scope="module")
def long(tiny):
    """The tiny models with room for a few answers; rotary positions have no parameters."""

    def longer(model):
        return dataclasses.replace(model, config=dataclasses.replace(model.config, max_seq_len=LIMIT))

    return dataclasses.replace(tiny, policy=longer(tiny.policy), verifier=longer(tiny.verifier))


@pytest.fixture(scope="module")
def engine(long):
    return long.engine()


@pytest.fixture(scope="module")
def prompts(long, engine):
    return long.prompts(engine, count=5)


@pytest.fixture(scope="module")
def chains(engine, prompts):
    return Reviser(engine, prompts, VIEW).sample([8, 6, 3], SEED)


def tokens_of(chains):
    return [[[a.solution.tokens for a in chain] for chain in group] for group in chains]


def test_a_chain_of_one_answer_is_a_sample(long, engine, prompts):
    found = Reviser(engine, prompts, VIEW).sample([1, 1, 1], SEED)
    assert_same(long, [[chain[0].solution for chain in group] for group in found], engine.sample(prompts, 3, SEED))


def test_chains_have_the_lengths_asked_for(chains):
    assert [[len(chain) for chain in group] for group in chains] == [[8, 6, 3]] * 5


def test_the_head_of_a_chain_is_the_shorter_chain(engine, prompts, chains):
    shorter = Reviser(engine, prompts, VIEW).sample([4, 2], SEED)
    for group, long_group in zip(tokens_of(shorter), tokens_of(chains), strict=True):
        assert group == [long_group[0][:4], long_group[1][:2]], "a longer or a further chain changed an answer"


def test_a_chain_that_is_told_to_end_is_the_head_of_the_whole_one(engine, prompts, chains):
    """Chains of a question and questions end at different places, one question at once."""

    def stop(question, answer):
        return question == 0 or len(answer.solution.tokens) % 2 == 0

    found = Reviser(engine, prompts, VIEW).sample([8, 6, 3], SEED, stop)
    lengths = set()
    for q, (group, whole) in enumerate(zip(found, chains, strict=True)):
        for chain, full in zip(group, whole, strict=True):
            ends = [stop(q, answer) for answer in full]
            length = 1 + ends.index(True) if True in ends else len(full)
            assert tokens_of([[chain]]) == tokens_of([[full[:length]]])
            lengths.add(length)
    assert len(lengths) > 2, "the rule ends all chains alike and tests nothing"


@pytest.mark.parametrize("restate", [False, True])
def test_what_is_in_view_is_read_anew_for_every_answer(engine, prompts, restate):
    reviser = Reviser(engine, prompts, dataclasses.replace(VIEW, restate=restate))
    found = reviser.sample([6, 3], SEED)
    total = 0
    for prompt, group in zip(prompts, found, strict=True):
        total += len(prompt.tokens)
        for chain in group:
            for place, answer in enumerate(chain):
                again = (len(prompt.tokens) - 1) * (restate and answer.shown > 0)
                total += len(answer.solution.tokens) + len(in_view(engine, chain, place)) + again
    assert reviser.tokens(found) == total


def test_at_most_four_answers_are_in_view(chains):
    shown = [[a.shown for a in chain] for group in chains for chain in group]
    assert max(map(max, shown)) == 4, "these chains never come to four answers"
    for row in shown:
        assert all(count <= min(4, place) for place, count in enumerate(row))
    # Fewer only where the question leaves no room for four.
    assert sum(row[:5] == [0, 1, 2, 3, 4] for row in shown) >= 5


class Letters(NoText):
    """A tokenizer of letters."""

    eos_id = 0

    def encode_batch(self, texts):
        return [[ord(letter) for letter in text] for text in texts]


@pytest.mark.parametrize("restate", [False, True])
def test_only_whole_answers_leave_the_view(restate):
    question, answers = (1, 2), ["abc", "d", "", "efg", "h"]
    again = question if restate else ()
    context = Context(Letters(256), 4, restate=restate)
    last = [(100, 0), (0,), (101, 102, 103, 0), (104, 0)]

    def shown(room):
        view = context.view(question, answers, room + len(again))
        assert view.tokens == (sum(last[len(last) - view.answers :], ()) + again if view.answers else ())
        return view.answers

    assert [shown(room) for room in (100, 9, 8, 7, 6, 5, 2, 1, 0)] == [4, 4, 3, 3, 2, 1, 1, 0, 0]
    assert context.view(question, [], 100).tokens == (), "a question is not put twice for nothing"
    assert Context(Letters(256), 2).view(question, answers, 100).answers == 2


@functools.partial(jax.jit, static_argnames="config")
def all_logits(params, row, config):
    hidden = transformer.forward(params, row, jnp.arange(LIMIT)[None], config)
    return heads.logits(params, hidden, config)[0]


def test_going_on_greedily_is_what_a_full_pass_says(long, engine, prompts):
    rng, eos = np.random.default_rng(0), engine.tokenizer.eos_id
    begun = [[Begun(tuple(rng.integers(4, 400, n).tolist()), 0, 1) for n in (0, 7, 30, 41)] for _ in prompts[:2]]
    found = engine.resume(prompts[:2], begun, SEED, temperature=0.0, max_tokens=12)
    for prompt, rows, solutions in zip(prompts, begun, found, strict=False):
        for row, solution in zip(rows, solutions, strict=True):
            before, tokens = prompt.tokens + row.tokens, solution.tokens
            assert eos not in tokens[:-1]
            assert len(tokens) == 12 or tokens[-1] == eos
            assert solution.tokens_sampled == len(tokens)
            padded = jnp.asarray([before + tokens + (0,) * (LIMIT - len(before) - len(tokens))], jnp.int32)
            logits = np.asarray(all_logits(long.policy.params, padded, long.policy.config))
            for place, token in enumerate(tokens, len(before) - 1):
                # The likeliest of all, or as likely but for rounding, once of each.
                assert logits[place].max() - logits[place, token] <= 2 * long.errors.token


def test_answers_do_not_depend_on_company_or_devices(long, prompts, chains):
    """In the other order, in batches of other sizes, and on other devices, all at once."""
    other = long.engine(devices=min(8, jax.device_count()), rows=3)
    reverse = Reviser(other, prompts[::-1], VIEW).sample([8, 6, 3], SEED)
    assert tokens_of(reverse[::-1]) == tokens_of(chains)


def test_the_same_view_draws_afresh_in_the_next_round(engine, prompts):
    rows = [Begun((40, 50, 60), 0, k) for k in range(12)]
    [found] = engine.resume(prompts[:1], [rows], SEED)
    assert len({s.tokens for s in found}) > 6, "rounds share their random numbers"


def test_log_probabilities_are_of_the_new_tokens(long, engine, prompts, chains):
    chain = chains[0][0]
    for place in (1, 3, 5):
        answer = chain[place]
        before = in_view(engine, chain, place)
        [[numbers]] = engine.logprobs(prompts[:1], [[before + answer.solution.tokens]])
        assert abs(numbers[len(before) :].sum() - answer.solution.logprob) <= long.errors.solution


def in_view(engine, chain, place):
    """Return the tokens between the question and an answer."""
    texts = [a.text for a in chain[place - chain[place].shown : place]]
    return tuple(t for ids in engine.tokenizer.encode_batch(texts) for t in (*ids, engine.tokenizer.eos_id))


@pytest.mark.parametrize("history", [True, False])
def test_an_answer_is_scored_at_its_end_after_what_was_in_view(long, engine, prompts, chains, history):
    """The reference is a full pass over one answer at a time; a score from elsewhere in the row would differ."""
    scored = Reviser(engine, prompts, VIEW, history=history).score(chains)
    model = long.verifier

    @jax.jit
    def full_pass(row, begin, end):
        hidden = transformer.forward(model.params, row, jnp.arange(LIMIT)[None], model.config)
        logprob = value_head.token_logprobs(model.params, hidden, row, model.config)
        inside = (jnp.arange(LIMIT) >= begin) & (jnp.arange(LIMIT) < end)
        least = jnp.where(inside[None], logprob, 0.0).min(axis=1, keepdims=True)
        value = heads.value(model.params, hidden[:, end - 1][:, None], least)
        return jax.nn.sigmoid(value)[0, 0]

    def score(prompt, before, tokens):
        row = prompt.tokens + before + tokens
        padded = jnp.asarray([row + (0,) * (LIMIT - len(row))], jnp.int32)
        return float(full_pass(padded, len(row) - len(tokens), len(row)))

    checked = 0
    for prompt, group in zip(prompts[:2], scored, strict=False):
        for chain in group:
            for place, a in enumerate(chain):
                if a.solution.finished:
                    before = in_view(engine, chain, place) if history else ()
                    assert a.score == pytest.approx(
                        score(prompt, before, a.solution.tokens), rel=0, abs=long.errors.score
                    )
                    checked += 1
    assert checked > 6


def test_too_long_a_question_is_said_so(tiny):
    engine = tiny.engine(max_tokens=60)
    with pytest.raises(UserError, match="shorten the prompt"):
        Reviser(engine, tiny.prompts(engine), VIEW).sample([2], SEED)


def test_a_chain_needs_an_answer(engine, prompts):
    with pytest.raises(UserError, match="at least one answer"):
        Reviser(engine, prompts, VIEW).sample([2, 0], SEED)
