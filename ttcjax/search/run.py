"""A strategy on real models: one compiled program searches many questions at once."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.model import cache
from ttcjax.model.params import Params
from ttcjax.sample import programs, queue
from ttcjax.sample.engine import Engine, Prompt, Request, Solution
from ttcjax.sample.state import Rows, decode
from ttcjax.search.base import Strategy
from ttcjax.verify import prm


@struct.dataclass
class SearchState:
    """Rows, and what the verifier has read of each."""

    rows: Rows
    reading: prm.Reading
    verified: jax.Array
    """`[B]` int32: tokens the verifier has read at this place of the batch, dropped ones included."""
    ahead: jax.Array
    """`[B]` int32: tokens of rollouts drawn at this place of the batch, not among `rows.sampled`."""


@dataclass(frozen=True)
class EngineOps:
    """`SearchOps` over a policy and a verifier; lives inside one traced program."""

    policy: Params
    verifier: Params
    policy_prefix: cache.PrefixCache
    verifier_prefix: cache.PrefixCache
    plan: programs.Plan
    factors_2: jax.Array | None = None
    """Of the temperature; see `methods.factors`."""

    @property
    def questions(self) -> int:
        return self.policy_prefix.length_Q.shape[0]

    @property
    def max_steps(self) -> int:
        return self.plan.max_steps

    @property
    def _verifier_config(self) -> ModelConfig:
        assert self.plan.verifier is not None
        return self.plan.verifier

    def done(self, state: SearchState) -> jax.Array:
        return state.rows.done

    def steps(self, state: SearchState) -> jax.Array:
        return state.rows.steps

    def _decode(self, rows: Rows, round_Q: jax.Array, sampler: SamplerConfig, *, one_step: bool) -> Rows:
        return decode(
            self.policy,
            self.policy_prefix,
            rows,
            jnp.repeat(round_Q, self.plan.n),
            self.plan.policy,
            sampler,
            self.plan.stops,
            max_new=sampler.max_step_tokens if one_step else self.plan.slots - 1,
            one_step=one_step,
            factors_2=self.factors_2,
        )

    @property
    def _no_round(self) -> jax.Array:
        return jnp.zeros((self.questions,), jnp.int32)

    def extend_step(self, state: SearchState, round_Q: jax.Array) -> SearchState:
        rows = self._decode(state.rows, round_Q, self.plan.sampler, one_step=True)
        return dataclasses.replace(state, rows=rows)

    def extend_full(self, state: SearchState) -> SearchState:
        rows = self._decode(state.rows, self._no_round, self.plan.sampler, one_step=False)
        return dataclasses.replace(state, rows=rows)

    def score_step(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        rows = state.rows
        reading = prm.read_on(
            self.verifier,
            self.verifier_prefix,
            state.reading,
            rows.tokens,
            rows.length,
            self._verifier_config,
            chunk=self.plan.sampler.verifier_chunk,
        )
        verified = state.verified + rows.length - state.reading.read
        score_B = prm.score(self.verifier, reading, self._verifier_config)
        return dataclasses.replace(state, reading=reading, verified=verified), score_B

    def lookahead(self, state: SearchState, k: int) -> tuple[SearchState, jax.Array]:
        greedy = dataclasses.replace(self.plan.sampler, temperature=0.0)

        def step(_: jax.Array, rows: Rows) -> Rows:
            return self._decode(rows, self._no_round, greedy, one_step=True)

        rows = jax.lax.fori_loop(0, k, step, state.rows)
        there, score_B = self.score_step(dataclasses.replace(state, rows=rows))
        # Rows and readings go back to where they stood, but for their caches: what a rollout wrote there lies at and
        # past the ends of rows, where every slot is written again before it is read. So no cache is kept aside.
        back = SearchState(
            rows=dataclasses.replace(state.rows, cache=there.rows.cache, broken=there.rows.broken),
            reading=dataclasses.replace(state.reading, cache=there.reading.cache),
            verified=there.verified,
            ahead=state.ahead + rows.sampled - state.rows.sampled,
        )
        return back, score_B

    def score_all(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        rows = state.rows
        scores = programs.score_rows(self.verifier, self.verifier_prefix, rows.tokens, rows.length, self.plan)
        return dataclasses.replace(state, verified=state.verified + rows.length), scores

    def fork(self, state: SearchState, parent_B: jax.Array) -> SearchState:
        return SearchState(
            rows=state.rows.fork(parent_B),
            reading=state.reading.fork(parent_B),
            verified=state.verified,
            ahead=state.ahead,
        )


@struct.dataclass
class Found:
    """Results of a search in B rows."""

    rows: programs.Sampled
    step_scores: jax.Array
    """`[B, R]` float32; entries past a row's steps are 0."""
    verified: jax.Array
    """`[B]` int32."""
    ahead: jax.Array
    """`[B]` int32."""


_Carry = tuple[queue.Queue, SearchState, jax.Array, jax.Array, cache.PrefixCache, cache.PrefixCache, Found]
"""Queue, state, step scores, each question's round, the prefixes of policy and verifier, results."""


def _program(
    policy: Params,
    verifier: Params,
    prompts: programs.Prompts,
    seed: jax.Array,
    factors_2: jax.Array | None = None,
    *,
    plan: programs.Plan,
    strategy: Strategy,
) -> Found:
    """Run a strategy for every prompt; a group of rows whose question has ended goes on with the next one.

    The temperature is not the strategy's but what `factors_2` says (see `methods.factors`), by default the plan's.
    """
    assert plan.verifier is not None
    assert plan.group_rows == plan.n, "the rows of a question depend on each other"
    Q = prompts.last.shape[0]
    policy_prefixes = programs.prefill(policy, prompts, plan.policy, plan)
    verifier_prefixes = programs.prefill(verifier, prompts, plan.verifier, plan)

    def under_way(carry: _Carry) -> jax.Array:
        line, state, *_ = carry
        return ~state.rows.done.all() | queue.waiting(line, prompts.count)

    def turn(carry: _Carry) -> _Carry:
        line, state, step_scores, round_G, policy_prefix, verifier_prefix, found = carry
        before_G = line.question_G
        line, fresh_B = queue.hand_out(line, _by_question(state.rows.done, plan.n), prompts.count, plan.n)
        changed = (line.question_G != before_G).any()
        policy_prefix = cache.switch(policy_prefix, policy_prefixes, line.question_G, changed)
        verifier_prefix = cache.switch(verifier_prefix, verifier_prefixes, line.question_G, changed)
        state = SearchState(
            rows=programs.begin(state.rows, fresh_B, prompts, line.request_B, seed, plan),
            reading=prm.begin_reading(state.reading, fresh_B),
            verified=jnp.where(fresh_B, 0, state.verified),
            ahead=jnp.where(fresh_B, 0, state.ahead),
        )
        step_scores = jnp.where(fresh_B[:, None], 0.0, step_scores)
        round_G = jnp.where(fresh_B.reshape((plan.groups, plan.n))[:, 0], 0, round_G)

        ops = EngineOps(policy, verifier, policy_prefix, verifier_prefix, plan, factors_2)
        state, step_scores = strategy.round(ops, state, step_scores, round_G)
        round_G = round_G + 1
        over_B = jnp.repeat(round_G >= strategy.max_rounds, plan.n)
        rows = dataclasses.replace(state.rows, done=state.rows.done | over_B)
        state = dataclasses.replace(state, rows=rows)
        now = Found(programs.result(rows), step_scores, state.verified, state.ahead)
        found = queue.harvest(found, now, line.request_B, _by_question(rows.done, plan.n))
        return line, state, step_scores, round_G, policy_prefix, verifier_prefix, found

    rows = programs.idle_rows(plan)
    state = SearchState(
        rows=rows,
        reading=prm.start_reading(plan.verifier, plan.rows, plan.slots),
        verified=jnp.zeros((plan.rows,), jnp.int32),
        ahead=jnp.zeros((plan.rows,), jnp.int32),
    )
    step_scores = jnp.zeros((plan.rows, plan.max_steps), jnp.float32)
    line = queue.start(plan.groups, plan.rows, Q, plan.n)
    found = programs.no_results(Found(programs.result(rows), step_scores, state.verified, state.ahead), Q * plan.n)
    policy_prefix = cache.take(policy_prefixes, line.question_G)
    verifier_prefix = cache.take(verifier_prefixes, line.question_G)
    rounds = jnp.zeros_like(line.question_G)
    carry = (line, state, step_scores, rounds, policy_prefix, verifier_prefix, found)
    return jax.lax.while_loop(under_way, turn, carry)[-1]


def _by_question(done_B: jax.Array, n: int) -> jax.Array:
    """Return which rows `[B]` belong to questions of which all rows are done."""
    return jnp.repeat(done_B.reshape((-1, n)).all(axis=1), n)


def search(engine: Engine, strategy: Strategy, prompts: Sequence[Prompt], seed: int) -> list[list[Solution]]:
    """Run a strategy on every prompt; return the `strategy.n` final candidates of each, with step scores.

    Raises:
        UserError: The engine has no verifier, a prompt leaves no room for a solution, or a model's numbers are not
            finite.
    """
    engine.require_verifier()
    engine.check_lengths(prompts, engine.sampler.max_tokens)
    strategy = strategy.resolved()
    temperature = strategy.temperature
    # The program is the same at every temperature.
    strategy = dataclasses.replace(strategy, temperature=None)  # type: ignore[type-var]
    n, slots = strategy.n, engine.sampler.max_tokens + 1
    found: list[list[Solution]] = [[] for _ in prompts]
    requests = [Request(prompt, 0, n) for prompt in prompts]
    # Best-of-N is read whole at its end, other searches in chunks.
    chunk = engine.sampler.verifier_chunk if strategy.max_rounds > 1 else min(slots, cache.READ_TOGETHER)
    plans, most = {}, {}
    for length, count in collections.Counter(map(engine.bucket, prompts)).items():
        fit = engine.fit(length, n, slots, forks=True, read_together=chunk)
        plans[length], most[length] = engine.plan(n, slots, count, group_rows=n, fit=fit), fit.questions
    for members, batch in engine.batches(requests, most):
        plan, factors = engine.at_temperature(plans[batch.prefix.shape[1]], temperature)
        run = functools.partial(_program, plan=plan, strategy=strategy)
        program = engine.program(("search", strategy, plan), run, split=(False, False, True, False, False))
        out = program(engine.policy, engine.verifier, batch, np.uint32(seed), factors)
        scores, verified, ahead = (np.asarray(x) for x in (out.step_scores, out.verified, out.ahead))
        places = {member: q for q, member in enumerate(members)}
        for i, solutions in engine.solutions(out.rows, n, members, [prompt.id for prompt in prompts]):
            rows = range(places[i] * n, (places[i] + 1) * n)
            found[i] = [
                dataclasses.replace(
                    engine.with_scores(s, scores[row], int(verified[row]), prompts[i].id),
                    tokens_lookahead=int(ahead[row]),
                )
                for row, s in zip(rows, solutions, strict=True)
            ]
        engine.on_batch(n * sum(i is not None for i in members))
    return found
