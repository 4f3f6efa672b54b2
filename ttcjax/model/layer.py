"""One layer of the decoder, which the forward passes over whole sequences and over a cache share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import ModelConfig
from ttcjax.model.params import Params

_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def rms_norm(x: jax.Array, scale: jax.Array, config: ModelConfig) -> jax.Array:
    """Normalise the last axis to unit root mean square in float32, then scale."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_eps)
    # In float32 first: a bfloat16 scale would round where the offset is added.
    scale = (scale.astype(jnp.float32) + config.norm_offset).reshape((1,) * (x.ndim - 1) + scale.shape)
    return (x32 * inverse * scale).astype(x.dtype)


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate `x` `[..., heads, E]` by angles `[..., E/2]`; the halves of E form the pairs."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _project(x: jax.Array, w: jax.Array, contracted: int = 1) -> jax.Array:
    """Contract the last `contracted` axes of `x` with the first ones of `w`, as one matrix product."""
    lead, inner = x.shape[: x.ndim - contracted], x.shape[x.ndim - contracted :]
    flat = x.reshape((-1, int(np.prod(inner)))) @ w.astype(x.dtype).reshape((int(np.prod(inner)), -1))
    return flat.reshape(lead + w.shape[contracted:])


def _bias(x: jax.Array, params: Params, name: str) -> jax.Array:
    if name not in params:
        return x
    b = params[name].astype(x.dtype)
    return x + b.reshape((1,) * (x.ndim - b.ndim) + b.shape)


def _attention_inputs(
    layer: Params, x: jax.Array, cos: jax.Array, sin: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries `[..., H, E]`, keys and values `[..., K, E]` of the residual stream `x` `[..., D]`."""
    attention = layer["attention"]
    normed = rms_norm(x, attention["norm"], config)
    q = _bias(_project(normed, attention["q"]), attention, "q_bias")
    k = _bias(_project(normed, attention["k"]), attention, "k_bias")
    v = _bias(_project(normed, attention["v"]), attention, "v_bias")
    if config.qk_norm:
        q = rms_norm(q, attention["q_norm"], config)
        k = rms_norm(k, attention["k_norm"], config)
    return _rotate(q, cos, sin), _rotate(k, cos, sin), v


def _attention_output(layer: Params, mixed: jax.Array, config: ModelConfig) -> jax.Array:
    """Project attended values `[..., H, E]` back to `[..., D]`."""
    attention = layer["attention"]
    y = _bias(_project(mixed, attention["out"], contracted=2), attention, "out_bias")
    return rms_norm(y, attention["post_norm"], config) if config.post_norms else y


def _mlp(layer: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    """Return the gated MLP's contribution to the residual stream `x` `[..., D]`."""
    p = layer["mlp"]
    normed = rms_norm(x, p["norm"], config)
    gate = _ACTIVATIONS[config.activation](_bias(_project(normed, p["gate"]), p, "gate_bias"))
    y = _bias(_project(gate * _bias(_project(normed, p["up"]), p, "up_bias"), p["down"]), p, "down_bias")
    return rms_norm(y, p["post_norm"], config) if config.post_norms else y


def _dropout(x: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""Takes queries `[..., H, E]`, keys and values `[..., K, E]` of the new tokens, the first two rotated; returns attended
values `[..., H, E]`, and whatever is to be kept of the layer."""


def apply_layer(
    layer: Params,
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    config: ModelConfig,
    attend: Attend,
    dropout_keys: tuple[jax.Array | None, jax.Array | None] = (None, None),
) -> tuple[jax.Array, Any]:
    """Return the residual stream `[..., D]` after one layer, and what `attend` keeps of the layer.

    Args:
        layer: Parameters of the layer.
        x: The residual stream before it, `[..., D]`.
        cos: Cosines `[..., E/2]` of the rotary angles.
        sin: Sines `[..., E/2]`.
        config: Shape of the model.
        attend: Attention: what a token sees is all in which the passes differ.
        dropout_keys: Of the attention's and the MLP's contribution; without keys nothing is dropped.
    """
    q, k, v = _attention_inputs(layer, x, cos, sin, config)
    mixed, kept = attend(q, k, v)
    x = x + _dropout(_attention_output(layer, mixed, config), dropout_keys[0], config.dropout)
    x = x + _dropout(_mlp(layer, x, config), dropout_keys[1], config.dropout)
    return x, kept
