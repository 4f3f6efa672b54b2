"""Attention over a shared prefix in NumPy's float64, row by row, and how far float32 may lie from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import rounding


def attention(
    inputs: tuple[Any, ...], *, scale: float, soft_cap: float | None = None, window: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the attention `[B, C, H, E]` and the largest error of its elements in an implementation.

    Inputs must be `rounding.on_grid`, so that products of queries and keys add up without error. What then rounds is

    - each score s, a few times (scale, cap, what is subtracted): its weight, an exponential, is `8 |s|` roundings off,
      unless there is no cap and the scale is a power of two, where none of these rounds;
    - the sums of n weights and of n weighted values, blocks of them scaled anew: n and about ten more;

    each above and below the fraction bar, and relative to the attention over absolute values. With values of bfloat16
    each weight and the output round to that, and parts and their sum at most four times more. Weights that are no
    normal number in float32 are lost.

    Args:
        inputs: As `api.shared_prefix_attention` takes them.
        scale: Factor on the scores.
        soft_cap: As there.
        window: As there.
    """
    dtype = str(inputs[0].dtype)
    length, slot = np.asarray(inputs[3]), np.asarray(inputs[6])
    q, prefix_k, prefix_v, suffix_k, suffix_v = (np.asarray(inputs[i]).astype(np.float64) for i in (0, 1, 2, 4, 5))
    B, C, H, _ = q.shape
    out, error = np.zeros(q.shape), np.zeros(q.shape)
    per_question, group = B // len(prefix_k), H // prefix_k.shape[1]
    for b, c, h in np.ndindex(B, C, H):
        question, head, used, end = b // per_question, h // group, int(length[b // per_question]), int(slot[b, c]) + 1
        k = np.concatenate([prefix_k[question, head, :used], suffix_k[b, head, :end]])
        v = np.concatenate([prefix_v[question, head, :used], suffix_v[b, head, :end]])
        if window is not None:
            k, v = k[-window:], v[-window:]
        scores = k @ q[b, c, h] * scale
        if soft_cap is not None:
            scores = soft_cap * np.tanh(scores / soft_cap)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        out[b, c, h] = weights @ v
        exact = soft_cap is None and np.log2(scale).is_integer()
        roundings = 2 * (len(k) + 10 + (0 if exact else 8 * np.abs(scores).max()))
        relative = rounding.of(roundings) + (rounding.of(6, "bfloat16") if dtype == "bfloat16" else 0)
        error[b, c, h] = relative * (weights @ np.abs(v)) + np.finfo(np.float32).tiny * np.abs(v).sum(axis=0)
    return out, error


def assert_attends(got: Any, inputs: tuple[Any, ...], **options: Any) -> None:
    """Check an implementation's output against `attention`."""
    want, error = attention(inputs, **options)
    off = np.abs(np.asarray(got).astype(np.float64) - want)
    assert np.isfinite(off).all(), "what is unused was read, or something overflowed"
    worst = np.unravel_index(np.argmax(off - error), off.shape)
    assert (off <= error).all(), f"off by {off[worst]:.2g} at {worst}, where rounding explains {error[worst]:.2g}"
