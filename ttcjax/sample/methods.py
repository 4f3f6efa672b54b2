"""Drawing one token from logits: greedy, temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ttcjax.config import SamplerConfig


def filtered_probabilities(logits_BV: jax.Array, config: SamplerConfig) -> jax.Array:
    """Return the distribution tokens are drawn from, not normalised: zero outside top-k and top-p.

    Top-k comes first, then top-p over what it left, both after the temperature. Tokens tied with the k-th
    stay in; top-p keeps the smallest set, by falling probability, that holds at least `top_p`.
    """
    scaled = logits_BV / config.temperature
    probabilities = jnp.exp(scaled - scaled.max(axis=-1, keepdims=True))
    if 0 < config.top_k < logits_BV.shape[-1]:
        probabilities = _keep(probabilities, lambda kept: kept.sum(axis=-1, dtype=jnp.int32), jnp.int32(config.top_k))
    if config.top_p < 1.0:
        enough_B1 = config.top_p * probabilities.sum(axis=-1, keepdims=True)
        mass = lambda kept: jnp.where(kept, probabilities, 0.0).sum(axis=-1)  # noqa: E731
        probabilities = _keep(probabilities, mass, enough_B1[:, 0])
    return probabilities


def _keep(probabilities_BV: jax.Array, size: Callable[[jax.Array], jax.Array], enough: jax.Array) -> jax.Array:
    """Zero all but the most likely tokens, of which as few are kept as make `size(kept)` at least `enough`.

    The threshold is found bit by bit, from the highest: floats from 0 up are ordered as their bits are. That
    takes 31 sums where sorting a vocabulary would take many times as long.
    """
    bits_BV = jax.lax.bitcast_convert_type(probabilities_BV, jnp.int32)

    def narrow(i: jax.Array, threshold_B: jax.Array) -> jax.Array:
        raised_B = threshold_B | (jnp.int32(1) << (30 - i))
        return jnp.where(size(bits_BV >= raised_B[:, None]) >= enough, raised_B, threshold_B)

    threshold_B = jax.lax.fori_loop(0, 31, narrow, jnp.zeros(probabilities_BV.shape[:1], jnp.int32))
    return jnp.where(bits_BV >= threshold_B[:, None], probabilities_BV, 0.0)


_BLOCK = 128
"""Tokens of the vocabulary that are summed before the draw looks into them one by one."""


def _invert(probabilities_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """Return the token `[B]` at which the cumulative distribution passes `uniform` times its total.

    A block of tokens is chosen by the blocks' sums, then a token within it: cumulative sums over a whole
    vocabulary cost many times more.
    """
    B, V = probabilities_BV.shape
    padded = jnp.pad(probabilities_BV, ((0, 0), (0, -V % _BLOCK))) if V % _BLOCK else probabilities_BV
    blocks = padded.reshape((B, -1, _BLOCK))
    sums = blocks.sum(axis=-1)
    cumulative = jnp.cumsum(sums, axis=-1)
    # A uniform below 1 times the total keeps the threshold below the last sum, whatever the rounding. Where sums
    # are rounded in another order than one after the other, they may pass it at an entry of no share.
    threshold_B1 = jnp.minimum(uniform_B[:, None] * cumulative[:, -1:], jnp.nextafter(cumulative[:, -1:], 0.0))
    block_B1 = jnp.argmax((cumulative > threshold_B1) & (sums > 0), axis=-1)[:, None]
    before_B1 = jnp.where(block_B1 > 0, jnp.take_along_axis(cumulative, jnp.maximum(block_B1 - 1, 0), axis=-1), 0.0)
    inner = jnp.take_along_axis(blocks, block_B1[..., None], axis=1)[:, 0]
    past = (before_B1 + jnp.cumsum(inner, axis=-1) > threshold_B1) & (inner > 0)
    # Where the sum within the block rounds below the block's own, its last possible token is the one.
    last = _BLOCK - 1 - jnp.argmax(jnp.flip(inner > 0, axis=-1), axis=-1)
    offset_B = jnp.where(past.any(axis=-1), jnp.argmax(past, axis=-1), last)
    return (block_B1[:, 0] * _BLOCK + offset_B).astype(jnp.int32)


def draw(logits_BV: jax.Array, keys_B: jax.Array, config: SamplerConfig) -> tuple[jax.Array, jax.Array]:
    """Draw a token a row.

    One uniform number a row inverts the cumulative distribution: a row's token depends on its own key and
    logits alone, and costs one random number, not V.

    Args:
        logits_BV: Float32 logits.
        keys_B: A key a row.
        config: Temperature (0 is greedy), top-k and top-p.

    Returns:
        Tokens `[B]` and their log-probabilities `[B]` under the model itself, that is at temperature 1 and
        unfiltered.
    """
    if config.temperature == 0.0:
        token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    else:
        uniform_B = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys_B)
        token_B = _invert(filtered_probabilities(logits_BV, config), uniform_B)
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)
