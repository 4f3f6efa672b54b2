"""The process-reward model on the device: scores of steps, each token read once.

A verifier with `value_likelihood` also follows the log-probability of the least likely token of each solution
so far. Zero stands for "none yet": no log-probability is above it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ttcjax.config import ModelConfig
from ttcjax.model import cache, heads
from ttcjax.model.params import Params, unstack_layers


def token_logprobs(params: Params, hidden_BTD: jax.Array, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Log-probability `[B, T]` of each token given those before it; 0 for the first, which has none here."""
    rest = heads.token_logprob(params, hidden_BTD[:, :-1], tokens_BT[:, 1:], config)
    return jnp.pad(rest, ((0, 0), (1, 0)))


def packed_least_logprob(logprob_BT: jax.Array, segment_ids_BT: jax.Array, solution_BT: jax.Array) -> jax.Array:
    """Return the log-probability `[B, T]` of the least likely solution token so far in each packed example.

    Args:
        logprob_BT: From `token_logprobs`.
        segment_ids_BT: Packed examples.
        solution_BT: 1 on tokens of solutions, 0 on prompts and padding.
    """
    first_BT = jnp.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def join(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return a[0] | b[0], jnp.where(b[0], b[1], jnp.minimum(a[1], b[1]))

    counted_BT = jnp.where(solution_BT > 0, logprob_BT, 0.0)
    return jax.lax.associative_scan(join, (first_BT, counted_BT), axis=1)[1]


def score_new_tokens(
    params: Params,
    prefix: cache.PrefixCache,
    suffix: cache.SuffixCache,
    tokens_BS: jax.Array,
    read_B: jax.Array,
    least_B: jax.Array,
    length_B: jax.Array,
    config: ModelConfig,
    chunk: int,
) -> tuple[cache.SuffixCache, jax.Array, jax.Array]:
    """Read the tokens `read .. length - 1` of each row and score the last of them.

    Args:
        params: Verifier parameters, with a value head.
        prefix: The verifier's cache of the prompts.
        suffix: The verifier's cache of slots `0 .. read - 1` of each row.
        tokens_BS: Rows of tokens; slot 0 belongs to the prompt.
        read_B: Slots read before.
        least_B: Log-probability of the least likely token read before, 0 at the start.
        length_B: Slots set; at most `read + chunk - 1`, or `chunk` at the start.
        config: Shape of the verifier.
        chunk: Tokens read at once.

    Returns:
        The extended cache, the least log-probability `[B]` up to `length`, and the scores `[B]`, probabilities
        in (0, 1). A row with nothing new gets the score of its last token again.
    """
    B, S = tokens_BS.shape
    # The newest token read before is read again: its hidden state says how likely the first new one was.
    start_B = jnp.maximum(read_B - 1, 0)
    slots_BC = start_B[:, None] + jnp.arange(chunk)[None]
    tokens_BC = jnp.take_along_axis(tokens_BS, jnp.minimum(slots_BC, S - 1), axis=1)
    layers = unstack_layers(params, config)
    hidden_BCD, suffix = cache.extend(params, layers, tokens_BC, start_B, prefix, suffix, config)
    newest_B = length_B - 1 - start_B
    hidden_BD = hidden_BCD[jnp.arange(B), newest_B]
    if config.value_likelihood:
        new_BC = (slots_BC >= jnp.maximum(read_B, 1)[:, None]) & (slots_BC < length_B[:, None])
        logprob_BC = jnp.where(new_BC, token_logprobs(params, hidden_BCD, tokens_BC, config), 0.0)
        least_B = jnp.minimum(least_B, logprob_BC.min(axis=1))
    return suffix, least_B, jax.nn.sigmoid(heads.value(params, hidden_BD, config, least_B))


def score_tokens(params: Params, prefix: cache.PrefixCache, tokens_BS: jax.Array, config: ModelConfig) -> jax.Array:
    """Return the score `[B, S]` of every token of whole rows, probabilities in (0, 1); slot 0 is the prompt's."""
    B, S = tokens_BS.shape
    layers = unstack_layers(params, config)
    suffix = cache.empty_suffix(config, B, S)
    start_B = jnp.zeros((B,), jnp.int32)
    hidden_BSD, _ = cache.extend(params, layers, tokens_BS, start_B, prefix, suffix, config)
    least_BS = None
    if config.value_likelihood:
        least_BS = jax.lax.cummin(token_logprobs(params, hidden_BSD, tokens_BS, config), axis=1)
    return jax.nn.sigmoid(heads.value(params, hidden_BSD, config, least_BS))


def at_step_ends(values_BS: jax.Array, ends_BS: jax.Array, max_steps: int) -> jax.Array:
    """Gather per-token values into `[B, max_steps]`, one a step end, the rest 0."""
    step_BS = jnp.where(ends_BS, jnp.cumsum(ends_BS, axis=1) - 1, max_steps)
    rows_B1 = jnp.arange(values_BS.shape[0])[:, None]
    return jnp.zeros((values_BS.shape[0], max_steps), values_BS.dtype).at[rows_B1, step_BS].set(values_BS, mode="drop")
