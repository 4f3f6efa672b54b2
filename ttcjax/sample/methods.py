"""Drawing one token from logits: greedy, temperature, top-k, top-p."""

from __future__ import annotations

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
        kth = jax.lax.top_k(probabilities, config.top_k)[0][:, -1:]
        probabilities = jnp.where(probabilities >= kth, probabilities, 0.0)
    if config.top_p < 1.0:
        falling = jnp.flip(jnp.sort(probabilities, axis=-1), axis=-1)
        before = jnp.cumsum(falling, axis=-1) - falling
        kept = before < config.top_p * falling.sum(axis=-1, keepdims=True)
        least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
        probabilities = jnp.where(probabilities >= least, probabilities, 0.0)
    return probabilities


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
        cumulative = jnp.cumsum(filtered_probabilities(logits_BV, config), axis=-1)
        uniform_B = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys_B)
        # The first token past the threshold has a positive share; a uniform below 1 times the total keeps
        # the threshold below the last sum, whatever the rounding.
        threshold_B1 = jnp.minimum(uniform_B[:, None] * cumulative[:, -1:], jnp.nextafter(cumulative[:, -1:], 0.0))
        token_B = jnp.argmax(cumulative > threshold_B1, axis=-1).astype(jnp.int32)
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)
