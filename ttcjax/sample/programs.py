"""The compiled programs of the engine: what runs on the device for one batch of questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.model import cache
from ttcjax.model.params import Params
from ttcjax.sample import state as sampling
from ttcjax.verify import prm


@struct.dataclass
class Prompts:
    """Q prompts of a batch, padded."""

    prefix: jax.Array
    """`[Q, P]` int32: every prompt but its last token, padded on the right."""
    prefix_length: jax.Array
    """`[Q]` int32."""
    last: jax.Array
    """`[Q]` int32: the last token of each prompt, slot 0 of its rows."""
    number: jax.Array
    """`[Q]` uint32: `state.question_number`, the question's part of random keys."""
    unused: jax.Array
    """`[Q]` bool: padding, for which nothing is sampled."""


@struct.dataclass
class Sampled:
    """What sampling leaves of B rows; see `state.Rows`."""

    tokens: jax.Array
    length: jax.Array
    finished: jax.Array
    logprob: jax.Array
    sampled: jax.Array


@dataclass(frozen=True)
class Plan:
    """What is static in a program: model shapes and limits."""

    policy: ModelConfig
    sampler: SamplerConfig
    stops: sampling.Stops
    n: int
    """Rows a question."""
    slots: int
    """S: tokens a row can hold, the prompt's last token included."""
    verifier: ModelConfig | None = None
    max_steps: int = 0


def _start(prompts: Prompts, seed: jax.Array, first_sample: jax.Array, plan: Plan) -> sampling.Rows:
    n = plan.n
    keys_B = sampling.row_keys(
        seed,
        jnp.repeat(prompts.number, n),
        jnp.tile(first_sample.astype(jnp.uint32) + jnp.arange(n, dtype=jnp.uint32), prompts.number.shape[0]),
    )
    unused_B = jnp.repeat(prompts.unused, n)
    return sampling.start(jnp.repeat(prompts.last, n), keys_B, unused_B, plan.slots, plan.policy)


def _result(rows: sampling.Rows) -> Sampled:
    return Sampled(
        tokens=rows.tokens,
        length=rows.length,
        finished=rows.finished,
        logprob=rows.logprob,
        sampled=rows.sampled,
    )


def sample(params: Params, prompts: Prompts, seed: jax.Array, first_sample: jax.Array, *, plan: Plan) -> Sampled:
    """Sample `plan.n` solutions of each prompt to their ends."""
    prefix = cache.prefill(params, prompts.prefix, prompts.prefix_length, plan.policy)
    rows = sampling.decode(
        params,
        prefix,
        _start(prompts, seed, first_sample, plan),
        jnp.int32(0),
        plan.policy,
        plan.sampler,
        plan.stops,
        max_new=plan.slots - 1,
        one_step=False,
    )
    return _result(rows)


def score(params: Params, prompts: Prompts, tokens_BS: jax.Array, length_B: jax.Array, *, plan: Plan) -> jax.Array:
    """Score the steps of whole rows: `[B, R]`, entries past a row's steps 0."""
    assert plan.verifier is not None
    prefix = cache.prefill(params, prompts.prefix, prompts.prefix_length, plan.verifier)
    values_BS = prm.score_tokens(params, prefix, tokens_BS, plan.verifier)
    return prm.at_step_ends(values_BS, _step_ends(tokens_BS, length_B, plan.stops), plan.max_steps)


def _step_ends(tokens_BS: jax.Array, length_B: jax.Array, stops: sampling.Stops) -> jax.Array:
    """Which slots end a step; slot 0 belongs to the prompt."""
    slots = jnp.arange(tokens_BS.shape[1])[None]
    return sampling.is_step_end(tokens_BS, stops) & (slots > 0) & (slots < length_B[:, None])


@struct.dataclass
class SearchState:
    """Rows, and how far the verifier has read each."""

    rows: sampling.Rows
    verifier_cache: cache.SuffixCache
    """Holds slots `0 .. read - 1`."""
    read: jax.Array
    """`[B]` int32."""
    verified: jax.Array
    """`[B]` int32: tokens the verifier has read at this place of the batch, dropped ones included."""


@dataclass(frozen=True)
class EngineOps:
    """`ttcjax.search.base.SearchOps` over a policy and a verifier; lives inside one traced program."""

    policy: Params
    verifier: Params
    policy_prefix: cache.PrefixCache
    verifier_prefix: cache.PrefixCache
    plan: Plan

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

    def start(self, prompts: Prompts, seed: jax.Array) -> SearchState:
        rows = _start(prompts, seed, jnp.uint32(0), self.plan)
        none = jnp.zeros_like(rows.length)
        verifier_cache = cache.empty_suffix(self._verifier_config, none.shape[0], self.plan.slots)
        return SearchState(rows=rows, verifier_cache=verifier_cache, read=none, verified=none)

    def done(self, state: SearchState) -> jax.Array:
        return state.rows.done

    def steps(self, state: SearchState) -> jax.Array:
        return state.rows.steps

    def _decode(self, state: SearchState, search_round: jax.Array, max_new: int, one_step: bool) -> SearchState:
        rows = sampling.decode(
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
        return state.replace(rows=rows)

    def extend_step(self, state: SearchState, search_round: jax.Array) -> SearchState:
        return self._decode(state, search_round, self.plan.sampler.max_step_tokens, one_step=True)

    def extend_full(self, state: SearchState) -> SearchState:
        return self._decode(state, jnp.int32(0), self.plan.slots - 1, one_step=False)

    def score_step(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        rows = state.rows
        verifier_cache, score_B = prm.score_new_tokens(
            self.verifier,
            self.verifier_prefix,
            state.verifier_cache,
            rows.tokens,
            state.read,
            rows.length,
            self._verifier_config,
            # The first chunk also holds the prompt's last token.
            chunk=self.plan.sampler.max_step_tokens + 1,
        )
        verified = state.verified + rows.length - state.read
        return state.replace(verifier_cache=verifier_cache, read=rows.length, verified=verified), score_B

    def score_all(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        rows = state.rows
        values_BS = prm.score_tokens(self.verifier, self.verifier_prefix, rows.tokens, self._verifier_config)
        ends_BS = _step_ends(rows.tokens, rows.length, self.plan.stops)
        return state.replace(verified=state.verified + rows.length), prm.at_step_ends(
            values_BS, ends_BS, self.max_steps
        )

    def fork(self, state: SearchState, parent_B: jax.Array) -> SearchState:
        return SearchState(
            rows=state.rows.fork(parent_B),
            verifier_cache=cache.fork(state.verifier_cache, parent_B),
            read=state.read[parent_B],
            verified=state.verified,
        )


def search(
    policy: Params, verifier: Params, prompts: Prompts, seed: jax.Array, *, plan: Plan, strategy: Any
) -> tuple[Sampled, jax.Array, jax.Array]:
    """Run a strategy for every prompt at once.

    Returns:
        The rows, their step scores `[B, R]`, and the tokens `[B]` the verifier read at each place.
    """
    assert plan.verifier is not None
    ops = EngineOps(
        policy=policy,
        verifier=verifier,
        policy_prefix=cache.prefill(policy, prompts.prefix, prompts.prefix_length, plan.policy),
        verifier_prefix=cache.prefill(verifier, prompts.prefix, prompts.prefix_length, plan.verifier),
        plan=plan,
    )
    result = strategy.search(ops, ops.start(prompts, seed))
    return _result(result.state.rows), result.step_scores, result.state.verified
