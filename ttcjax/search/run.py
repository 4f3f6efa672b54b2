"""A strategy on real models: one compiled program searches many questions at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ttcjax.config import ModelConfig
from ttcjax.model import cache
from ttcjax.model.params import Params
from ttcjax.sample import programs
from ttcjax.sample.engine import Engine, Prompt, Solution
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


@dataclass(frozen=True)
class EngineOps:
    """`SearchOps` over a policy and a verifier; lives inside one traced program."""

    policy: Params
    verifier: Params
    policy_prefix: cache.PrefixCache
    verifier_prefix: cache.PrefixCache
    plan: programs.Plan

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

    def start(self, prompts: programs.Prompts, seed: jax.Array) -> SearchState:
        rows = programs.start(prompts, seed, jnp.uint32(0), self.plan)
        reading = prm.start_reading(self._verifier_config, rows.length.shape[0], self.plan.slots)
        return SearchState(rows=rows, reading=reading, verified=jnp.zeros_like(rows.length))

    def done(self, state: SearchState) -> jax.Array:
        return state.rows.done

    def steps(self, state: SearchState) -> jax.Array:
        return state.rows.steps

    def _decode(self, state: SearchState, search_round: jax.Array, max_new: int, one_step: bool) -> SearchState:
        rows = decode(
            self.policy,
            self.policy_prefix,
            state.rows,
            search_round,
            self.plan.policy,
            self.plan.sampler,
            self.plan.stops,
            max_new=max_new,
            one_step=one_step,
        )
        return dataclasses.replace(state, rows=rows)

    def extend_step(self, state: SearchState, search_round: jax.Array) -> SearchState:
        return self._decode(state, search_round, self.plan.sampler.max_step_tokens, one_step=True)

    def extend_full(self, state: SearchState) -> SearchState:
        return self._decode(state, jnp.int32(0), self.plan.slots - 1, one_step=False)

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

    def score_all(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        rows = state.rows
        values_BS = prm.score_tokens(self.verifier, self.verifier_prefix, rows.tokens, self._verifier_config)
        ends_BS = programs.step_ends(rows.tokens, rows.length, self.plan.stops)
        return dataclasses.replace(state, verified=state.verified + rows.length), prm.at_step_ends(
            values_BS, ends_BS, self.max_steps
        )

    def fork(self, state: SearchState, parent_B: jax.Array) -> SearchState:
        return SearchState(
            rows=state.rows.fork(parent_B),
            reading=state.reading.fork(parent_B),
            verified=state.verified,
        )


def _program(
    policy: Params,
    verifier: Params,
    prompts: programs.Prompts,
    seed: jax.Array,
    *,
    plan: programs.Plan,
    strategy: Strategy,
) -> tuple[programs.Sampled, jax.Array, jax.Array]:
    """Run a strategy for every prompt at once; return rows, step scores `[B, R]` and tokens verified `[B]`."""
    assert plan.verifier is not None
    ops = EngineOps(
        policy=policy,
        verifier=verifier,
        policy_prefix=cache.prefill(policy, prompts.prefix, prompts.prefix_length, plan.policy),
        verifier_prefix=cache.prefill(verifier, prompts.prefix, prompts.prefix_length, plan.verifier),
        plan=plan,
    )
    result = strategy.search(ops, ops.start(prompts, seed))
    return programs.result(result.state.rows), result.step_scores, result.state.verified


def search(engine: Engine, strategy: Strategy, prompts: Sequence[Prompt], seed: int) -> list[list[Solution]]:
    """Run a strategy on every prompt; return the `strategy.n` final candidates of each, with step scores.

    Raises:
        UserError: The engine has no verifier, or a prompt leaves no room for a solution.
    """
    engine.require_verifier()
    engine.check_lengths(prompts, engine.sampler.max_tokens)
    plan = engine.plan(strategy.n, engine.sampler.max_tokens + 1)
    run = functools.partial(_program, plan=plan, strategy=strategy)
    program = engine.program(("search", strategy, plan), run, split=(False, False, True, False))
    found: list[list[Solution]] = [[] for _ in prompts]
    for indices, batch in engine.batches(prompts, plan.n):
        out, scores, verified = program(engine.policy, engine.verifier, batch, np.uint32(seed))
        scores, verified = np.asarray(scores), np.asarray(verified)
        for q, (i, solutions) in enumerate(zip(indices, engine.solutions(out, plan.n), strict=False)):
            rows = range(q * plan.n, (q + 1) * plan.n)
            found[i] = [
                engine.with_scores(s, scores[row], int(verified[row])) for row, s in zip(rows, solutions, strict=True)
            ]
        engine.on_batch(len(indices) * plan.n)
    return found
