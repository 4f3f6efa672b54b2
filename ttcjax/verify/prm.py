"""The process-reward model on the device: scores of steps, each token read once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ttcjax.config import ModelConfig
from ttcjax.model import cache, heads
from ttcjax.model.params import Params, unstack_layers


def score_new_tokens(
    params: Params,
    prefix: cache.PrefixCache,
    suffix: cache.SuffixCache,
    tokens_BS: jax.Array,
    read_B: jax.Array,
    length_B: jax.Array,
    config: ModelConfig,
    chunk: int,
) -> tuple[cache.SuffixCache, jax.Array]:
    """Read the tokens `read .. length - 1` of each row and score the last of them.

    Args:
        params: Verifier parameters, with a value head.
        prefix: The verifier's cache of the prompts.
        suffix: The verifier's cache of slots `0 .. read - 1` of each row.
        tokens_BS: Rows of tokens.
        read_B: Slots read before.
        length_B: Slots set; at most `read + chunk`.
        config: Shape of the verifier.
        chunk: Tokens read at once.

    Returns:
        The extended cache and the scores `[B]`, probabilities in (0, 1); a row with nothing new gets a
        score without meaning.
    """
    B, S = tokens_BS.shape
    slots_BC = jnp.minimum(read_B[:, None] + jnp.arange(chunk)[None], S - 1)
    tokens_BC = jnp.take_along_axis(tokens_BS, slots_BC, axis=1)
    layers = unstack_layers(params, config)
    hidden_BCD, suffix = cache.extend(params, layers, tokens_BC, read_B, prefix, suffix, config)
    newest_B = jnp.maximum(length_B - 1 - read_B, 0)
    hidden_BD = hidden_BCD[jnp.arange(B), newest_B]
    return suffix, jax.nn.sigmoid(heads.value(params, hidden_BD, config))


def score_tokens(params: Params, prefix: cache.PrefixCache, tokens_BS: jax.Array, config: ModelConfig) -> jax.Array:
    """Return the score `[B, S]` of every token of whole rows, probabilities in (0, 1)."""
    B, S = tokens_BS.shape
    layers = unstack_layers(params, config)
    suffix = cache.empty_suffix(config, B, S)
    start_B = jnp.zeros((B,), jnp.int32)
    hidden_BSD, _ = cache.extend(params, layers, tokens_BS, start_B, prefix, suffix, config)
    return jax.nn.sigmoid(heads.value(params, hidden_BSD, config))


def at_step_ends(values_BS: jax.Array, ends_BS: jax.Array, max_steps: int) -> jax.Array:
    """Gather per-token values into `[B, max_steps]`, one a step end, the rest 0."""
    step_BS = jnp.where(ends_BS, jnp.cumsum(ends_BS, axis=1) - 1, max_steps)
    rows_B1 = jnp.arange(values_BS.shape[0])[:, None]
    return jnp.zeros((values_BS.shape[0], max_steps), values_BS.dtype).at[rows_B1, step_BS].set(values_BS, mode="drop")
