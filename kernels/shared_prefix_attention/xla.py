"""Shared-prefix attention in plain XLA: two parts, merged exactly by their log-sum-exp."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ttcjax.kernels.shared_prefix_attention.reference import MASKED


def _scores(q: jax.Array, k: jax.Array, allowed: jax.Array, scale: float, soft_cap: float | None) -> jax.Array:
    """Masked float32 scores `[..., X, S]` of queries `[..., X, E]` and keys `[..., S, E]`."""
    scores = jnp.einsum("...XE,...SE->...XS", q, k, preferred_element_type=jnp.float32) * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    return jnp.where(allowed, scores, MASKED)


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
    """The op of `api.shared_prefix_attention`; the prefix part is one matrix product over a question's rows."""
    B, C, H, E = q_BCHE.shape
    Q, K, P, _ = prefix_k_QKPE.shape
    S, N, G = suffix_k_BKSE.shape[2], B // Q, H // K
    dtype = q_BCHE.dtype
    q_BKXE = q_BCHE.reshape((B, C, K, G, E)).transpose((0, 2, 1, 3, 4)).reshape((B, K, C * G, E))

    slots_S = jnp.arange(S)
    own_BCS = slots_S[None, None] <= slot_BC[:, :, None]
    if window is not None:
        own_BCS &= slot_BC[:, :, None] - slots_S[None, None] < window
    own_B1XS = jnp.repeat(own_BCS, G, axis=1)[:, None]
    own = _scores(q_BKXE, suffix_k_BKSE, own_B1XS, scale, soft_cap)

    # Queries of all rows of a question side by side: [Q, K, N * X, E].
    q_QKYE = q_BKXE.reshape((Q, N, K, C * G, E)).transpose((0, 2, 1, 3, 4)).reshape((Q, K, N * C * G, E))
    seen = (jnp.arange(P)[None] < prefix_length_Q[:, None])[:, None, None]
    if window is not None:
        query_QY = prefix_length_Q[:, None] + jnp.repeat(slot_BC.reshape((Q, N * C)), G, axis=1)
        seen = seen & (query_QY[:, None, :, None] - jnp.arange(P)[None, None, None] < window)
    shared_QKYP = _scores(q_QKYE, prefix_k_QKPE, seen, scale, soft_cap)

    def by_row(x: jax.Array) -> jax.Array:
        x = x.reshape((Q, K, N, C * G, *x.shape[3:]))
        return jnp.moveaxis(x, 2, 1).reshape((B, K, C * G, *x.shape[4:]))

    # A query always sees its own slot, so the joint maximum is a real score and the sum at least one.
    top_BKX = jnp.maximum(by_row(shared_QKYP.max(axis=-1)), own.max(axis=-1))
    top_QKY = jnp.moveaxis(top_BKX.reshape((Q, N, K, C * G)), 1, 2).reshape((Q, K, N * C * G))
    own_weights = jnp.exp(own - top_BKX[..., None])
    shared_weights = jnp.exp(shared_QKYP - top_QKY[..., None])
    total_BKX = own_weights.sum(axis=-1) + by_row(shared_weights.sum(axis=-1))
    mixed = jnp.einsum("BKXS,BKSE->BKXE", own_weights.astype(dtype), suffix_v_BKSE)
    mixed = mixed + by_row(jnp.einsum("QKYP,QKPE->QKYE", shared_weights.astype(dtype), prefix_v_QKPE))
    mixed = mixed / total_BKX[..., None].astype(dtype)
    return mixed.reshape((B, K, C, G, E)).transpose((0, 2, 1, 3, 4)).reshape((B, C, H, E))


def write_suffix(
    k_BKSE: jax.Array, v_BKSE: jax.Array, new_k_BCKE: jax.Array, new_v_BCKE: jax.Array, start_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The op of `api.write_suffix` as a scatter."""
    B, C = new_k_BCKE.shape[:2]
    rows_B1, slot_BC = jnp.arange(B)[:, None], start_B[:, None] + jnp.arange(C)[None]
    k_BKSE = k_BKSE.at[rows_B1, :, slot_BC].set(new_k_BCKE, mode="drop")
    v_BKSE = v_BKSE.at[rows_B1, :, slot_BC].set(new_v_BCKE, mode="drop")
    return k_BKSE, v_BKSE
