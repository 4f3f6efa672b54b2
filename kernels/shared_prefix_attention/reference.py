"""Attention written out: the meaning that every faster path is tested against."""

from __future__ import annotations

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Score of a masked slot: finite, so that a row with no slot at all stays free of NaN."""


def masked_attention(
    q_BTHE: jax.Array,
    k_BSKE: jax.Array,
    v_BSKE: jax.Array,
    allowed_BTS: jax.Array,
    *,
    scale: float,
    soft_cap: float | None = None,
) -> jax.Array:
    """Return softmax attention `[B, T, H, E]` with scores and softmax in float32.

    Args:
        q_BTHE: Queries; head `h` reads key/value head `h // (H / K)`.
        k_BSKE: Keys.
        v_BSKE: Values.
        allowed_BTS: Which slots a query may see; axis B may have size 1.
        scale: Factor on the scores.
        soft_cap: Scores become `soft_cap * tanh(score / soft_cap)`.
    """
    B, T, H, E = q_BTHE.shape
    K = k_BSKE.shape[2]
    q_BTKGE = q_BTHE.reshape((B, T, K, H // K, E))
    scores = jnp.einsum("BTKGE,BSKE->BKGTS", q_BTKGE, k_BSKE, preferred_element_type=jnp.float32) * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(allowed_BTS[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKE.dtype)
    mixed = jnp.einsum("BKGTS,BSKE->BTKGE", weights, v_BSKE)
    return mixed.reshape((B, T, H, E))


def shared_prefix_attention(
    q_BCHE: jax.Array,
    prefix_k_QKPE: jax.Array,
    prefix_v_QKPE: jax.Array,
    prefix_length_Q: jax.Array,
    suffix_k_BKSE: jax.Array,
    suffix_v_BKSE: jax.Array,
    slot_BC: jax.Array,
    *,
    scale: float,
    soft_cap: float | None = None,
    window: int | None = None,
) -> jax.Array:
    """The op of `api.shared_prefix_attention` by copying every prefix to its rows and attending once."""
    B, Q = q_BCHE.shape[0], prefix_k_QKPE.shape[0]
    P, S = prefix_k_QKPE.shape[2], suffix_k_BKSE.shape[2]

    def joined(prefix: jax.Array, suffix: jax.Array) -> jax.Array:
        rows = jnp.concatenate([jnp.repeat(prefix, B // Q, axis=0), suffix], axis=2)
        return jnp.swapaxes(rows, 1, 2).astype(jnp.float32)

    length_B = jnp.repeat(prefix_length_Q, B // Q)
    # Positions of all slots; an unused prefix slot lies after every query.
    prefix_BP = jnp.where(jnp.arange(P)[None] < length_B[:, None], jnp.arange(P)[None], jnp.iinfo(jnp.int32).max)
    position_BS = jnp.concatenate([prefix_BP, length_B[:, None] + jnp.arange(S)[None]], axis=1)
    query_BC = length_B[:, None] + slot_BC
    allowed_BCS = position_BS[:, None] <= query_BC[:, :, None]
    if window is not None:
        allowed_BCS &= query_BC[:, :, None] - position_BS[:, None] < window
    k, v = joined(prefix_k_QKPE, suffix_k_BKSE), joined(prefix_v_QKPE, suffix_v_BKSE)
    # A slot that no query sees may hold anything, NaN included; a weight of zero would not stop a NaN.
    seen_BS = allowed_BCS.any(axis=1)[:, :, None, None]
    k, v = jnp.where(seen_BS, k, 0.0), jnp.where(seen_BS, v, 0.0)
    out = masked_attention(q_BCHE.astype(jnp.float32), k, v, allowed_BCS, scale=scale, soft_cap=soft_cap)
    return out.astype(q_BCHE.dtype)
