"""Lookahead on real models: rollouts are greedy, judged at their ends, and leave no trace."""

import dataclasses
import functools
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.search.test_run import assert_same
from tests.searching import candidates
from ttcjax.engine.engine import Prompt, Solution
from ttcjax.engine.requests import Request
from ttcjax.search import ops as run
from ttcjax.search.contract import DeviceStrategy, going_on
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.verify import select

BEAM, AHEAD, SEED = Beam(4, 2), Lookahead(4, 2, k=2), 3


@dataclass(frozen=True)
class Glance(DeviceStrategy):
    """Take a step and look where a rollout of `k` more leads."""

    k: int
    n: int = 4
    max_rounds = 1
    temperature: float | None = None

    @property
    def name(self):
        return "glance"

    def round(self, ops, state, carry, key_Q, round_Q):
        state, _ = ops.score_step(ops.extend_step(state, round_Q))
        state, _ = ops.lookahead(state, self.k)
        return state, carry, going_on(ops)


def test_a_rollout_is_greedy_and_judged_at_its_end(tiny, engine, prompts):
    """The same again from outside: sample greedily from the row, cut after k steps, score it all from its start."""
    k = 2
    ends, longest = tiny.step_ends, engine.sampler.max_step_tokens
    compared = rolled = 0
    for prompt, found in zip(prompts, run.search(engine, Glance(k), prompts, SEED, traced=True), strict=True):
        [only] = found.rounds
        for s, seen in zip(found.candidates, only.scores, strict=True):
            if not s.step_scores:
                continue
            rest = ()
            if not s.finished:
                room = engine.sampler.max_tokens - len(s.tokens)
                on = Prompt(prompt.id, (*prompt.tokens, *s.tokens), max_tokens=min(room, k * longest))
                [[greedy]] = engine.sample([on], 1, SEED, temperature=0.0)
                lengths = [i + 1 for i, token in enumerate(greedy.tokens) if token in ends]
                steps = np.diff([0, *lengths[:k]])
                if (len(steps) < k and not greedy.finished) or max(steps, default=0) > longest:
                    continue  # The rollout is cut within a step, where whole solutions have no score.
                rest = greedy.tokens[: lengths[min(k, len(lengths)) - 1]]
            [[whole]] = engine.score([prompt], [[Solution((*s.tokens, *rest), "", True, 0.0)]])
            assert seen == pytest.approx(whole.step_scores[-1], rel=0, abs=tiny.errors.score)
            assert s.tokens_lookahead == len(rest), "a rollout of another length"
            compared, rolled = compared + 1, rolled + bool(rest)
    assert compared > rolled > 4, "too few rollouts, or no row that had ended, to compare"


@pytest.fixture(scope="module")
def no_opinion(tiny):
    """An engine whose verifier scores everything alike; some steps are cut, in rollouts too."""
    params = tiny.plain_verifier.params
    blank = {**params, "value": jax.tree.map(jnp.zeros_like, params["value"])}
    verifier = dataclasses.replace(tiny.plain_verifier, params=blank)
    return tiny.engine(verifier=verifier, max_step_tokens=3)


def test_rollouts_leave_no_trace_in_what_follows(tiny, no_opinion, prompts):
    """Where all scores are equal, beams keep the same rows with rollouts and without; were a cache, a key or a count
    not as before, they would go on otherwise."""
    searches = (candidates(no_opinion, strategy, prompts, SEED) for strategy in (BEAM, AHEAD))
    for plain, ahead in zip(*searches, strict=True):
        assert sum(s.tokens_lookahead for s in ahead) > 0
        for p, a in zip(plain, ahead, strict=True):
            assert (a.tokens, a.finished, a.tokens_sampled) == (p.tokens, p.finished, p.tokens_sampled)
            assert abs(a.logprob - p.logprob) <= tiny.errors.solution
            assert a.step_scores == p.step_scores
            assert (p.tokens_lookahead, p.tokens_verified) == (0, p.tokens_sampled + 1)
            assert a.tokens_verified == p.tokens_verified + a.tokens_lookahead


@pytest.mark.parametrize("strategy", [BEAM, AHEAD, DVTS(4, 2)], ids=lambda strategy: strategy.name)
def test_a_verifier_with_no_opinion_leaves_a_majority_vote(no_opinion, prompts, strategy):
    found = candidates(no_opinion, strategy, prompts, SEED)
    answers = [[s.text[:3] if s.finished else None for s in row] for row in found]
    assert any(len(set(row) - {None}) > 1 for row in answers), "no question whose vote is contested"
    for row, given in zip(found, answers, strict=True):
        scores = [s.step_scores[-1] if s.step_scores else 0.0 for s in row]
        assert select.choose_one(given, scores, "weighted") == select.choose_one(given, scores, "majority")


def test_no_rollouts_are_a_beam_search(tiny, engine, prompts):
    assert_same(tiny, candidates(engine, Lookahead(4, 2, k=0), prompts, SEED), candidates(engine, BEAM, prompts, SEED))


def test_rollouts_decide_which_rows_are_kept(engine, prompts):
    """Else the tests above would pass for a search that never looks ahead."""
    beam, ahead = (candidates(engine, s, prompts, SEED) for s in (BEAM, AHEAD))
    assert sum([s.tokens for s in b] != [s.tokens for s in a] for b, a in zip(beam, ahead, strict=True)) >= 3


@pytest.mark.slow
def test_rollouts_copy_no_cache(engine, prompts):
    """A rollout writes into the rows' own caches, past their ends; nothing is kept aside."""
    Q, n, slots = 8, BEAM.n, engine.sampler.max_tokens + 1
    plan = engine.scheduler.plan(n, slots, Q // 2, group_rows=n)
    requests = [Request(prompt, 0, n) for prompt in prompts[:Q]]
    [(_, batch)] = engine.scheduler.batches(requests, {64: Q})
    # Leaves, not trees: what JAX puts in the place of arrays while it compiles does not suit a struct's types.
    leaves, tree = jax.tree.flatten((engine.policy, engine.verifier, batch, jnp.uint32(SEED)))
    copies, memory = {}, {}
    for strategy in (BEAM, AHEAD):
        program = functools.partial(run.program, plan=plan, strategy=strategy)
        compiled = jax.jit(lambda *x, program=program: program(*tree.unflatten(x))).lower(*leaves).compile()
        text, planned = compiled.as_text(), compiled.memory_analysis()
        assert text is not None
        assert planned is not None
        memory[strategy] = planned.temp_size_in_bytes
        copies[strategy] = 0
        for config in (engine.policy_config, engine.verifier_config):
            shape = re.escape(f"f32[{plan.rows},{config.num_kv_heads},{slots},{config.head_dim}]")
            copies[strategy] += len(re.findall(rf"= {shape}\S* copy\(", text))
    assert copies[BEAM] > 0, "what a copy looks like has changed: this test sees none"
    assert copies[AHEAD] <= copies[BEAM]
    size = 4 * plan.rows * engine.policy_config.num_kv_heads * slots * engine.policy_config.head_dim
    assert memory[AHEAD] - memory[BEAM] < size, "a rollout takes as much memory as another cache of one layer"
