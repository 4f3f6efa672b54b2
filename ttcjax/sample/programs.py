"""The engine's compiled programs, and the shapes they share with programs built on them."""

from __future__ import annotations

from dataclasses import dataclass

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


def start(prompts: Prompts, seed: jax.Array, first_sample: jax.Array, plan: Plan) -> sampling.Rows:
    """Return `plan.n` rows for each prompt that have sampled nothing."""
    n = plan.n
    keys_B = sampling.row_keys(
        seed,
        jnp.repeat(prompts.number, n),
        jnp.tile(first_sample.astype(jnp.uint32) + jnp.arange(n, dtype=jnp.uint32), prompts.number.shape[0]),
    )
    unused_B = jnp.repeat(prompts.unused, n)
    return sampling.start(jnp.repeat(prompts.last, n), keys_B, unused_B, plan.slots, plan.policy)


def result(rows: sampling.Rows) -> Sampled:
    """Return of the rows what leaves the device."""
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
        start(prompts, seed, first_sample, plan),
        jnp.int32(0),
        plan.policy,
        plan.sampler,
        plan.stops,
        max_new=plan.slots - 1,
        one_step=False,
    )
    return result(rows)


def score(params: Params, prompts: Prompts, tokens_BS: jax.Array, length_B: jax.Array, *, plan: Plan) -> jax.Array:
    """Score the steps of whole rows: `[B, R]`, entries past a row's steps 0."""
    assert plan.verifier is not None
    prefix = cache.prefill(params, prompts.prefix, prompts.prefix_length, plan.verifier)
    values_BS = prm.score_tokens(params, prefix, tokens_BS, plan.verifier)
    return prm.at_step_ends(values_BS, step_ends(tokens_BS, length_B, plan.stops), plan.max_steps)


def step_ends(tokens_BS: jax.Array, length_B: jax.Array, stops: sampling.Stops) -> jax.Array:
    """Return which slots end a step; slot 0 belongs to the prompt."""
    slots = jnp.arange(tokens_BS.shape[1])[None]
    return sampling.is_step_end(tokens_BS, stops) & (slots > 0) & (slots < length_B[:, None])
