"""Drawing one token from logits: greedy, temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import SamplerConfig
from ttcjax.model import heads

_LEAST, _FAR, _MOST = 2.0**-126, 2.0**100, 2.0**126
"""Numbers from the least to the most have an inverse in float32, and neither is rounded to 0."""


def factors(temperature: float) -> np.ndarray:
    """Return what makes logits of temperature 1 those of another, `[2]` float32, for `filtered_probabilities`.

    The first multiplies logits, the second their differences to the greatest. Both have a value in float32 at every
    temperature above 0; at 1 both are 1, so that nothing is rounded.
    """
    far = temperature > _FAR
    rest = min(temperature / _FAR, _MOST) if far else max(temperature, _LEAST)
    return np.array([1 / _FAR if far else 1.0, 1 / rest], np.float32)


def filtered_probabilities(
    logits_BV: jax.Array, config: SamplerConfig, factors_2: jax.Array | None = None
) -> jax.Array:
    """Return the distribution tokens are drawn from, not normalised: zero outside top-k and top-p.

    Top-k comes first, then top-p over what it left, both after the temperature. Top-k keeps exactly k tokens; top-p
    keeps the smallest set that holds at least `top_p`. Both go by falling logits, of equal ones by rising ids.

    Args:
        logits_BV: Float32 logits.
        config: Top-k, top-p, and the temperature where `factors_2` is not given.
        factors_2: What `factors` returns; traced, so that one program serves every temperature.
    """
    order_BV = _ordered(logits_BV)
    near, inverse = jnp.asarray(factors(config.temperature)) if factors_2 is None else factors_2
    scaled_BV = logits_BV * near
    # The greatest is subtracted first: only differences to it may become infinite, those of tokens of no chance.
    probabilities = jnp.exp((scaled_BV - scaled_BV.max(axis=-1, keepdims=True)) * inverse)
    if 0 < config.top_k < logits_BV.shape[-1]:
        count = lambda kept: kept.sum(axis=-1, dtype=jnp.int32)  # noqa: E731
        probabilities = jnp.where(_first(order_BV, count, jnp.int32(config.top_k)), probabilities, 0.0)
    if config.top_p < 1.0:
        # No set is enough when it is empty, however small `top_p`.
        enough_B = jnp.maximum(config.top_p * probabilities.sum(axis=-1), _LEAST)
        mass = lambda kept: jnp.where(kept, probabilities, 0.0).sum(axis=-1)  # noqa: E731
        probabilities = jnp.where(_first(order_BV, mass, enough_B), probabilities, 0.0)
    return probabilities


def _ordered(numbers: jax.Array) -> jax.Array:
    """Return integers in the order of float32 numbers, the same for both zeros."""
    bits = jax.lax.bitcast_convert_type(jnp.where(numbers == 0, 0.0, numbers), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(2**31 - 1), bits)


def _first(order_BV: jax.Array, size: Callable[[jax.Array], jax.Array], enough: jax.Array) -> jax.Array:
    """Return the first tokens by falling order and rising id, as few as make `size(kept)` at least `enough`.

    The limit is found bit by bit, from the highest. That takes 32 sums, and where tokens at the limit are equal as many
    more as ids have bits; sorting a vocabulary would take many times as long.

    Args:
        order_BV: int32.
        size: Of the tokens in a mask `[B, V]`, `[B]`; that of none is less than `enough`.
        enough: A number, or one a row.
    """
    B, V = order_BV.shape

    # From the least integer on: its one bit is the first to be cleared.
    def lower(i: jax.Array, limit_B: jax.Array) -> jax.Array:
        raised_B = limit_B ^ (jnp.int32(1) << (31 - i))
        return jnp.where(size(order_BV >= raised_B[:, None]) >= enough, raised_B, limit_B)

    limit_B1 = jax.lax.fori_loop(0, 32, lower, jnp.full((B,), -(2**31), jnp.int32))[:, None]
    ids_1V = jnp.arange(V, dtype=jnp.int32)[None]
    bits = (V - 1).bit_length()

    def kept(last_B: jax.Array) -> jax.Array:
        # Written out at each use: masks that are held in memory would be arrays of the size of the logits.
        return (order_BV > limit_B1) | ((order_BV == limit_B1) & (ids_1V <= last_B[:, None]))

    def further(i: jax.Array, last_B: jax.Array) -> jax.Array:
        # The last of the tied ids is the greatest that is not enough without itself.
        raised_B = last_B | (jnp.int32(1) << (bits - 1 - i))
        return jnp.where(size(kept(raised_B - 1)) >= enough, last_B, raised_B)

    def search(_: None) -> jax.Array:
        return jax.lax.fori_loop(0, bits, further, jnp.zeros((B,), jnp.int32))

    some_tied = ((order_BV == limit_B1).sum(axis=-1, dtype=jnp.int32) > 1).any()
    return kept(jax.lax.cond(some_tied, search, lambda _: jnp.full((B,), V, jnp.int32), None))


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
    # Where logits are not finite there is no possible token; an id outside the vocabulary would do harm elsewhere.
    return jnp.minimum(block_B1[:, 0] * _BLOCK + offset_B, V - 1).astype(jnp.int32)


def draw(
    logits_BV: jax.Array, keys_B: jax.Array, config: SamplerConfig, factors_2: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Draw a token a row.

    One uniform number a row inverts the cumulative distribution: a row's token depends on its own key and
    logits alone, and costs one random number, not V.

    Args:
        logits_BV: Float32 logits.
        keys_B: A key a row.
        config: Temperature (0 is greedy), top-k and top-p.
        factors_2: As in `filtered_probabilities`, where the temperature is another than 0.

    Returns:
        Tokens `[B]` and their log-probabilities `[B]` under the model itself, that is at temperature 1 and unfiltered;
        NaN where the logits are no distribution: with a NaN or plus infinity among them, or minus infinity alone.
    """
    if config.temperature == 0.0:
        token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    else:
        uniform_B = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys_B)
        token_B = _invert(filtered_probabilities(logits_BV, config, factors_2), uniform_B)
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    sound_B = jnp.isfinite(logits_BV.max(axis=-1))
    return token_B, jnp.where(sound_B, chosen_B - heads.log_normaliser(logits_BV), jnp.nan)
