"""The op's one signature, with its static checks."""

from __future__ import annotations

import jax

from ttcjax.kernels.shared_prefix_attention import xla


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
    """Attend to a prefix shared by the N rows of a question and to each row's own suffix.

    Row `b` belongs to question `b // N`, N = B / Q. A query at suffix slot `s` sees the first
    `prefix_length` prefix slots and suffix slots `0 .. s`; its position is `prefix_length + s`.

    Args:
        q_BCHE: Queries, head `h` reading key/value head `h // (H / K)`.
        prefix_k_QKPE: Keys of the prefixes; slots from `prefix_length` on must be finite.
        prefix_v_QKPE: Values of the prefixes; likewise.
        prefix_length_Q: Used prefix slots, 0 to P.
        suffix_k_BKSE: Keys of the suffixes, the queries' own included; unused slots must be finite.
        suffix_v_BKSE: Values of the suffixes; likewise.
        slot_BC: Suffix slot of each query, 0 to S - 1.
        scale: Factor on the scores.
        soft_cap: Scores become `soft_cap * tanh(score / soft_cap)`.
        window: Positions a query sees, its own included; `None` for all.

    Returns:
        Attended values `[B, C, H, E]` in the queries' dtype; scores and softmax are float32.

    Raises:
        ValueError: Shapes do not fit together.
    """
    B, C, H, E = q_BCHE.shape
    Q, K, P, _ = prefix_k_QKPE.shape
    S = suffix_k_BKSE.shape[2]
    expected = {
        "prefix_k": (prefix_k_QKPE.shape, (Q, K, P, E)),
        "prefix_v": (prefix_v_QKPE.shape, (Q, K, P, E)),
        "prefix_length": (prefix_length_Q.shape, (Q,)),
        "suffix_k": (suffix_k_BKSE.shape, (B, K, S, E)),
        "suffix_v": (suffix_v_BKSE.shape, (B, K, S, E)),
        "slot": (slot_BC.shape, (B, C)),
    }
    for name, (shape, want) in expected.items():
        if shape != want:
            raise ValueError(f"shared_prefix_attention: {name} has shape {shape}, expected {want}")
    if B % Q or H % K:
        raise ValueError(f"shared_prefix_attention: {Q} questions must divide {B} rows, {K} heads divide {H}")
    return xla.shared_prefix_attention(
        q_BCHE,
        prefix_k_QKPE,
        prefix_v_QKPE,
        prefix_length_Q,
        suffix_k_BKSE,
        suffix_v_BKSE,
        slot_BC,
        scale=scale,
        soft_cap=soft_cap,
        window=window,
    )
