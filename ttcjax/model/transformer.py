"""The forward pass over whole sequences, and what stands before and after the layers of every pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import ModelConfig
from ttcjax.kernels.shared_prefix_attention.reference import masked_attention
from ttcjax.model.layer import apply_layer, rms_norm
from ttcjax.model.params import Params
from ttcjax.model.rotary import rotary


def compute_dtype(config: ModelConfig) -> Any:
    """Return the dtype of activations."""
    return jnp.dtype(config.dtype)


def layer_is_local(config: ModelConfig) -> np.ndarray:
    """Return `[L]` booleans: whether a layer sees only the sliding window."""
    return np.array([config.is_local(i) for i in range(config.num_layers)], bool)


def embed(params: Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
    """Return embeddings `[..., D]` of `tokens` `[...]`."""
    x = params["embed"].astype(compute_dtype(config))[tokens]
    if config.embed_scale:
        x = x * jnp.asarray(config.d_model**0.5, x.dtype)
    return x


def final_norm(params: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    """Normalise the residual stream for the heads."""
    return rms_norm(x, params["final_norm"], config)


def query_scale(config: ModelConfig) -> float:
    """Return the factor on attention scores."""
    return config.query_scale if config.query_scale is not None else config.head_dim**-0.5


_QUERY_BLOCK = 256
"""Queries of a long sequence that attend at once: scores `[H, T, T]` of 2,000 tokens would fill a gigabyte."""


def _attend(q_BTHE: jax.Array, k: jax.Array, v: jax.Array, allowed_BTT: jax.Array, config: ModelConfig) -> jax.Array:
    """Attend `[B, T, H, E]`, a block of queries after the other where the sequence is long."""
    scale, soft_cap = query_scale(config), config.attn_soft_cap
    T = q_BTHE.shape[1]
    if T <= _QUERY_BLOCK or T % _QUERY_BLOCK:
        return masked_attention(q_BTHE, k, v, allowed_BTT, scale=scale, soft_cap=soft_cap)

    def one(start: jax.Array) -> jax.Array:
        q, allowed = (jax.lax.dynamic_slice_in_dim(x, start, _QUERY_BLOCK, axis=1) for x in (q_BTHE, allowed_BTT))
        return masked_attention(q, k, v, allowed, scale=scale, soft_cap=soft_cap)

    blocks = jax.lax.map(one, jnp.arange(0, T, _QUERY_BLOCK))
    return jnp.moveaxis(blocks, 0, 1).reshape(q_BTHE.shape)


def forward(
    params: Params,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    config: ModelConfig,
    *,
    segment_ids_BT: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
    return_kv: bool = False,
) -> Any:
    """Run the transformer over whole sequences, causally.

    Args:
        params: Tree laid out by `params.spec`; its layers may also be a list (`params.unstack_layers`).
        tokens_BT: Token ids `[B, T]`.
        positions_BT: Rotary positions `[B, T]`; they restart at every packed example.
        config: Shape of the model.
        segment_ids_BT: Packed examples `[B, T]`: tokens attend within their own id only; 0 is padding.
        dropout_key: Turns dropout on.
        return_kv: Also return the rotated keys and values of every layer, to fill a cache.

    Returns:
        Normalised hidden states `[B, T, D]`; with `return_kv`, a pair of those and `(k, v)`, each
        `[L, B, T, K, E]`, or L arrays where the layers are a list.
    """
    T = tokens_BT.shape[1]
    x = embed(params, tokens_BT, config)
    cos, sin = rotary(config, positions_BT)
    index = jnp.arange(T)
    causal_1TT = (index[:, None] >= index[None, :])[None]
    allowed_BTT = causal_1TT
    if segment_ids_BT is not None:
        allowed_BTT = causal_1TT & (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :])
    local_L = layer_is_local(config)
    window_BTT = allowed_BTT
    if config.sliding_window is not None:
        window_BTT = allowed_BTT & (index[:, None] - index[None, :] < config.sliding_window)[None]
    mixed_layers = bool(local_L.any()) and not bool(local_L.all())

    def block(x: jax.Array, scanned: tuple[Params, jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        layer, is_local, number = scanned
        if mixed_layers:
            allowed = jnp.where(is_local, window_BTT, allowed_BTT)
            c, s = jnp.where(is_local, cos[1], cos[0]), jnp.where(is_local, sin[1], sin[0])
        else:
            kind = int(local_L.all())
            allowed, c, s = (allowed_BTT, window_BTT)[kind], cos[kind], sin[kind]
        keys = (None, None)
        if dropout_key is not None:
            first, second = jax.random.split(jax.random.fold_in(dropout_key, number))
            keys = (first, second)

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
            return _attend(q, k, v, allowed, config), (k, v) if return_kv else None

        return apply_layer(layer, x, c, s, config, attend, keys)

    if config.remat:
        block = jax.checkpoint(block)
    layers = params["layers"]
    if isinstance(layers, list):
        pairs = []
        for i, layer in enumerate(layers):
            x, pair = block(x, (layer, jnp.asarray(local_L[i]), jnp.asarray(i)))
            pairs.append(pair)
        kv = tuple(zip(*pairs, strict=True)) if return_kv else None
    else:
        x, kv = jax.lax.scan(block, x, (layers, jnp.asarray(local_L), jnp.arange(config.num_layers)))
    hidden = final_norm(params, x, config)
    return (hidden, kv) if return_kv else hidden
