"""Searches under a verifier that is fed marks of its own, against a beam search told with lists on the host."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.engine import capacity
from ttcjax.engine.requests import Begun, Model
from ttcjax.model import heads, transformer
from ttcjax.search.ops import search
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.verify.token_pair import STEP_END, TokenPair

GOOD, BAD, SEED, LONGEST = 40, 90, 3, 400
JUDGES = {
    "the step's end": TokenPair(GOOD, BAD),
    "a mark after it": TokenPair(GOOD, BAD, marks=(STEP_END, 50), at=1),
    "turns and a template": TokenPair(GOOD, BAD, marks=(50, 51, GOOD, 52), at=1, template="Judge: {prompt}"),
}


@pytest.fixture(scope="module", params=JUDGES)
def asked(request, tiny):
    """An engine whose verifier has room for marks, and some prompts."""
    engine = tiny.engine(verifier=asking(tiny, JUDGES[request.param]))
    return engine, tiny.prompts(engine, count=6)


def asking(tiny, judge, limit=LONGEST):
    """Return a language model with the trunk of `tiny.verifier` and a vocabulary head, asked in some way."""
    trunk = {name: leaf for name, leaf in tiny.verifier.params.items() if name != "value"}
    return Model(trunk, dataclasses.replace(tiny.verifier.config, max_seq_len=limit), judge=judge)


def make_reference(tiny, judge):
    """Return a function from a prompt and tokens to the scores of the steps that have ended, and the tokens read."""
    model, ends = asking(tiny, judge), tiny.step_ends

    @jax.jit
    def all_logits(tokens):
        hidden = transformer.forward(model.params, tokens, jnp.arange(256)[None], model.config)
        return heads.logits(model.params, hidden, model.config)[0]

    def scores(prompt, row):
        fed, marks = list(prompt.read), []
        for token in row:
            if token in ends:
                marks.append(len(fed) + judge.at)
                fed += [token if mark == STEP_END else mark for mark in judge.marks]
            else:
                fed.append(token)
        logits = np.asarray(all_logits(jnp.asarray([fed + [0] * (256 - len(fed))], jnp.int32)), np.float64)
        two = np.exp(logits[marks][:, [judge.good, judge.bad]])
        return (two[:, 0] / two.sum(axis=1)).tolist(), len(fed) - len(prompt.read) + 1

    return scores


def by_hand(tiny, engine, prompt, strategy, score):
    """Search with lists; a step is what a sample that goes on from a row writes until its first step end.

    Returns:
        Final rows, and what the verifier has read at each place.
    """
    n, longest, ends = strategy.n, engine.sampler.max_step_tokens, tiny.step_ends
    rows, done, read, total = [()] * n, [False] * n, [0] * n, [0] * n
    for round_ in range(strategy.max_rounds):
        live = [i for i in range(n) if not done[i]]
        if not live:
            break
        for i in live:
            left = dataclasses.replace(prompt, max_tokens=engine.sampler.max_tokens - len(rows[i]))
            [[solution]] = engine.resume([left], [[Begun(rows[i], i, round_)]], SEED)
            step = solution.tokens[:longest]
            until = next((k + 1 for k, token in enumerate(step) if token in ends), len(step))
            rows[i] = (*rows[i], *step[:until])
            done[i] = rows[i][-1] == tiny.tokenizer.eos_id or len(rows[i]) == engine.sampler.max_tokens
        judged = [score(prompt, row) for row in rows]
        worth = [[0.5, *scores][-1] for scores, _ in judged]
        for i in range(n):
            total[i] += judged[i][1] - read[i]
            read[i] = judged[i][1]
        going = [i for i in range(n) if not done[i]]
        best = sorted(going, key=lambda i: (-worth[i], i))[: -(-len(going) // strategy.width)]
        children = [i for i in best for _ in range(strategy.width)]
        children = (children + best[-1:] * len(going))[: len(going)]
        kept = [(rows[i], read[i]) for i in children]
        for i, (row, seen) in zip(going, kept, strict=True):
            rows[i], read[i] = row, seen
    return rows, total


def test_a_beam_search_is_what_lists_say(tiny, asked):
    engine, prompts = asked
    score, strategy = make_reference(tiny, engine.judge), Beam(4, 2)
    several = 0
    for prompt, found in zip(prompts, search(engine, strategy, prompts, SEED), strict=True):
        rows, read = by_hand(tiny, engine, prompt, strategy, score)
        assert [s.tokens for s in found.candidates] == rows, "another row was kept or continued"
        assert [s.tokens_verified for s in found.candidates] == read, "marks are not counted, or read twice"
        for s in found.candidates:
            want, _ = score(prompt, s.tokens)
            assert s.step_scores == pytest.approx(want, rel=0, abs=tiny.errors.token)
            several += len(want) > 1
    assert several > 4, "searches of one step test little"


def test_scores_of_a_search_are_those_of_whole_solutions(tiny, asked):
    engine, prompts = asked
    strategy = Lookahead(4, 2, k=2)
    found = [outcome.candidates for outcome in search(engine, strategy, prompts, SEED)]
    spread = []
    for group, whole in zip(found, engine.score(prompts, found), strict=True):
        for s, scored in zip(group, whole, strict=True):
            assert s.step_scores == pytest.approx(scored.step_scores, rel=0, abs=tiny.errors.token)
            steps = sum(token in tiny.step_ends for token in s.tokens)
            assert scored.tokens_verified == engine.judge.reads(1 + len(s.tokens), steps)
            spread += s.step_scores
    assert np.std(spread) > 0.05, "the scores hardly differ: a test of nothing"


def test_marks_are_no_part_of_the_policys_text(tiny, asked):
    """The same samples under every verifier, and a prompt of the policy's own."""
    engine, prompts = asked
    assert [p.tokens for p in prompts] == [p.tokens for p in tiny.prompts(tiny.engine(), count=6)]
    samples = engine.sample(prompts, 2, SEED)
    plain = tiny.engine().sample(prompts, 2, SEED)
    assert [[s.tokens for s in row] for row in samples] == [[s.tokens for s in row] for row in plain]
    assert [[s.tokens for s in row] for row in engine.score(prompts, samples)] == [
        [s.tokens for s in row] for row in plain
    ]


def test_several_verifiers_judge_the_same_samples(tiny):
    """What one says does not depend on the others."""
    engine = tiny.engine()
    prompts = tiny.prompts(engine, count=3)
    samples = engine.sample(prompts, 3, SEED)
    judges = [asking(tiny, judge) for judge in JUDGES.values()]
    found = []
    for verifier in (tiny.verifier, tiny.plain_verifier, *judges):
        other = tiny.engine(verifier=verifier)
        asked = tiny.prompts(other, count=3)
        scored = other.score(asked, samples)
        found.append([s.step_scores for row in scored for s in row])
    assert all(len({len(scores) for scores in each}) == 1 for each in zip(*found, strict=True))
    assert len({str(scores) for scores in found}) == len(found), "two verifiers say the same"
    assert [s.step_scores for row in engine.score(prompts, samples) for s in row] == found[0]


def test_room_is_left_for_marks(tiny):
    """A prompt that fits with its solution, and not with a mark after every token of it."""
    limit = len(tiny.prompts(tiny.engine(), count=1)[0].tokens) + 24
    for judge, fits in ((JUDGES["the step's end"], True), (JUDGES["a mark after it"], False)):
        engine = tiny.engine(verifier=asking(tiny, judge, limit))
        prompts = tiny.prompts(engine, count=1)
        if fits:
            assert search(engine, Beam(4, 2), prompts, SEED)
        else:
            with pytest.raises(ValueError, match=f"more than the model's limit of {limit} together"):
                search(engine, Beam(4, 2), prompts, SEED)


def test_memory_is_planned_for_what_is_fed(tiny):
    plain, marked = (
        tiny.engine(verifier=asking(tiny, JUDGES[name])).capacity.fit(64, 4, 25, forks=True)
        for name in ("the step's end", "a mark after it")
    )
    assert plain.rows == marked.rows
    # 24 tokens may each be followed by a mark; rows that fork hold two caches.
    more = 2 * marked.rows * 24 * capacity.token_bytes(tiny.verifier.config)
    assert marked.memory.suffixes - plain.memory.suffixes == more
