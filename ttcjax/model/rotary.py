"""Angles of rotary positions, stretched in each of the ways that published models are.

A model's frequencies do not change with the length of a text, since keys stay in caches. `dynamic` and `longrope`,
which elsewhere look at the length of the text at hand, look here at `max_seq_len`: lower it to the pretraining context
for what they are below it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import ModelConfig, RopeScaling


def rotary(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cosines and sines `[2, ..., E/2]` for `positions` `[...]`; row 1 is for local layers.

    Angles are formed in float32.
    """
    own = config.local_rope_theta is not None
    scalings = (config.rope_scaling, RopeScaling() if own else config.rope_scaling)
    thetas = (config.rope_theta, config.local_rope_theta or config.rope_theta)
    rows = [_inverse_frequencies(config, theta, scaling) for theta, scaling in zip(thetas, scalings, strict=True)]
    frequencies = jnp.asarray(np.stack(rows), jnp.float32)
    frequencies = frequencies.reshape((2,) + (1,) * positions.ndim + (-1,))
    angles = positions.astype(jnp.float32)[None, ..., None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    factors = [attention_factor(config, scaling) for scaling in scalings]
    if factors == [1.0, 1.0]:
        return cos, sin
    factors = jnp.asarray(factors, jnp.float32).reshape((2,) + (1,) * (positions.ndim + 1))
    return cos * factors, sin * factors


def attention_factor(config: ModelConfig, scaling: RopeScaling) -> float:
    """Return the factor on cosines and sines, by which queries and keys grow with the stretch.

    YaRN (Peng et al. 2023, section 3.4) has 0.1 ln(s) + 1 for a stretch s, LongRoPE (Ding et al. 2024)
    sqrt(1 + ln(s) / ln(original context)).
    """
    if scaling.kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1.0:
        return 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_position))


def _inverse_frequencies(config: ModelConfig, theta: float, scaling: RopeScaling) -> np.ndarray:
    """Rotary inverse frequencies `[E/2]`, stretched as `scaling` says."""
    E, original = config.head_dim, scaling.original_max_position
    if scaling.kind == "dynamic" and config.max_seq_len > original and E > 2:
        # NTK-aware: a larger base, by which the lowest frequency alone is divided by the whole stretch.
        stretch = scaling.factor * config.max_seq_len / original - (scaling.factor - 1)
        theta = theta * stretch ** (E / (E - 2))
    inverse = theta ** -(np.arange(0, E, 2, dtype=np.float64) / E)
    if scaling.kind == "linear":
        inverse = inverse / scaling.factor
    elif scaling.kind == "llama3":
        # Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between blended.
        wavelength = 2 * np.pi / inverse
        low = original / scaling.low_freq_factor
        high = original / scaling.high_freq_factor
        kept = np.clip((low / wavelength - 1) / (low / high - 1), 0.0, 1.0)
        inverse = kept * inverse + (1 - kept) * inverse / scaling.factor
    elif scaling.kind == "yarn":
        kept = 1 - _yarn_ramp(E, theta, scaling)
        inverse = kept * inverse + (1 - kept) * inverse / scaling.factor
    elif scaling.kind == "longrope":
        divisors = scaling.long_factor if config.max_seq_len > original else scaling.short_factor
        inverse = inverse / np.asarray(divisors, np.float64)
    return inverse


def _yarn_ramp(head_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """Return for each frequency `[E/2]` how much of it is stretched: 0 for fast ones, 1 for slow ones."""

    def dimension(turns: float) -> float:
        """Return the index at which a frequency turns so often over the pretraining context."""
        return head_dim * math.log(scaling.original_max_position / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast or 32.0), dimension(scaling.beta_slow or 1.0)
    if scaling.truncate is None or scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    return np.clip((np.arange(head_dim // 2) - low) / (high - low or 0.001), 0.0, 1.0)
