"""The ops' one signature each, with their checks and the choice of implementation."""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ttcjax.kernels.shared_prefix_attention import pallas_tpu, reference, xla

Implementation = Literal["auto", "xla", "pallas_tpu", "reference"]
"""`auto` is `pallas_tpu` in programs compiled for a TPU and `xla` in all others."""


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
    implementation: Implementation = "auto",
) -> jax.Array:
    """Attend to a prefix shared by the N rows of a question and to each row's own suffix.

    Row `b` belongs to question `b // N`, N = B / Q. A query at suffix slot `s` sees the first
    `prefix_length` prefix slots and suffix slots `0 .. s`; its position is `prefix_length + s`.

    Lengths and slots are not looked at, which inside a program would cost time: `check_inputs` does it outside.

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
        implementation: `reference` and `pallas_tpu` let unused slots hold anything, and `pallas_tpu` runs on
            TPUs only, on each device by itself (under `shard_map`, as `parallel.data_parallel` has it).

    Returns:
        Attended values `[B, C, H, E]` in the queries' dtype; scores and softmax are float32.

    Raises:
        ValueError: Shapes, dtypes or settings do not fit together.
    """
    args = (q_BCHE, prefix_k_QKPE, prefix_v_QKPE, prefix_length_Q, suffix_k_BKSE, suffix_v_BKSE, slot_BC)
    _check_static(*args, scale=scale, soft_cap=soft_cap, window=window)
    fns = {
        "xla": xla.shared_prefix_attention,
        "pallas_tpu": pallas_tpu.shared_prefix_attention,
        "reference": reference.shared_prefix_attention,
    }
    _check_implementation("shared_prefix_attention", implementation)
    fns = {name: functools.partial(fn, scale=scale, soft_cap=soft_cap, window=window) for name, fn in fns.items()}
    if implementation != "auto":
        return fns[implementation](*args)
    # Not a look at the default backend: programs are compiled for TPUs on hosts that have none.
    return jax.lax.platform_dependent(*args, tpu=fns["pallas_tpu"], default=fns["xla"])


def write_suffix(
    k_BKSE: jax.Array,
    v_BKSE: jax.Array,
    new_k_BCKE: jax.Array,
    new_v_BCKE: jax.Array,
    start_B: jax.Array,
    *,
    implementation: Implementation = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Write the keys and values of the next tokens of every row: suffix slots `start .. start + C - 1`.

    In place where the caches are not used again. On TPUs it leaves them in the order that
    `shared_prefix_attention` reads; after a scatter, each call there would first copy the caches whole.

    Args:
        k_BKSE: Keys of the suffixes.
        v_BKSE: Values of the suffixes.
        new_k_BCKE: Keys of C tokens a row.
        new_v_BCKE: Values of C tokens a row.
        start_B: Slot of each row's first token, from 0; slots past the end of the cache are not written.
        implementation: `reference` is `xla` here.

    Returns:
        Keys and values `[B, K, S, E]`.

    Raises:
        ValueError: Shapes or dtypes do not fit together.
    """
    B, K, _, E = k_BKSE.shape
    C = new_k_BCKE.shape[1]
    expected = {
        "v": (v_BKSE.shape, k_BKSE.shape),
        "new_k": (new_k_BCKE.shape, (B, C, K, E)),
        "new_v": (new_v_BCKE.shape, (B, C, K, E)),
        "start": (start_B.shape, (B,)),
    }
    _check_shapes("write_suffix", expected)
    _check_dtypes("write_suffix", {"k": k_BKSE, "v": v_BKSE, "new_k": new_k_BCKE, "new_v": new_v_BCKE})
    _check_implementation("write_suffix", implementation)
    args = (k_BKSE, v_BKSE, new_k_BCKE, new_v_BCKE, start_B)
    if implementation == "auto":
        return jax.lax.platform_dependent(*args, tpu=pallas_tpu.write_suffix, default=xla.write_suffix)
    return (pallas_tpu if implementation == "pallas_tpu" else xla).write_suffix(*args)


def check_inputs(
    q_BCHE: jax.Array,
    prefix_k_QKPE: jax.Array,
    prefix_v_QKPE: jax.Array,
    prefix_length_Q: jax.Array,
    suffix_k_BKSE: jax.Array,
    suffix_v_BKSE: jax.Array,
    slot_BC: jax.Array,
) -> None:
    """Check the numbers that `shared_prefix_attention` takes as they are; copies them to the host.

    Args:
        q_BCHE: As there, like all that follow; must be finite.
        prefix_k_QKPE: Slots before `prefix_length` must be finite.
        prefix_v_QKPE: Likewise.
        prefix_length_Q: Must lie in 0 to P.
        suffix_k_BKSE: Slots up to the last one of a row's queries must be finite.
        suffix_v_BKSE: Likewise.
        slot_BC: Must lie in 0 to S - 1.

    Raises:
        ValueError: The first of these that does not hold, where, and what it is; or the arrays are traced.
    """
    args = (q_BCHE, prefix_k_QKPE, prefix_v_QKPE, prefix_length_Q, suffix_k_BKSE, suffix_v_BKSE, slot_BC)
    if any(isinstance(x, Tracer) for x in args):
        raise ValueError("shared_prefix_attention: check_inputs reads numbers, so call it outside of jit")
    _check_static(*args, scale=1.0, soft_cap=None, window=None)
    P, S = prefix_k_QKPE.shape[2], suffix_k_BKSE.shape[2]
    length_Q, slot_BC_ = np.asarray(prefix_length_Q), np.asarray(slot_BC)
    for name, values, most in (("prefix_length", length_Q, P), ("slot", slot_BC_, S - 1)):
        wrong = np.argwhere((values < 0) | (values > most))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            raise ValueError(f"shared_prefix_attention: {name}{list(at)} is {values[at]}, not in 0 to {most}")
    used = {
        "q": (q_BCHE, np.ones((1, 1), bool)),
        "prefix_k": (prefix_k_QKPE, np.arange(P)[None] < length_Q[:, None]),
        "prefix_v": (prefix_v_QKPE, np.arange(P)[None] < length_Q[:, None]),
        "suffix_k": (suffix_k_BKSE, np.arange(S)[None] <= slot_BC_.max(axis=1)[:, None]),
        "suffix_v": (suffix_v_BKSE, np.arange(S)[None] <= slot_BC_.max(axis=1)[:, None]),
    }
    for name, (array, used_slots) in used.items():
        values = np.asarray(array).astype(np.float32)
        wrong = np.argwhere(~np.isfinite(values) & used_slots[:, None, :, None])
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            raise ValueError(f"shared_prefix_attention: {name}{list(at)} is in use and {values[at]}")


def _check_static(
    q_BCHE: jax.Array,
    prefix_k_QKPE: jax.Array,
    prefix_v_QKPE: jax.Array,
    prefix_length_Q: jax.Array,
    suffix_k_BKSE: jax.Array,
    suffix_v_BKSE: jax.Array,
    slot_BC: jax.Array,
    *,
    scale: float,
    soft_cap: float | None,
    window: int | None,
) -> None:
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
    _check_shapes("shared_prefix_attention", expected)
    if B % Q or H % K:
        raise ValueError(f"shared_prefix_attention: {Q} questions must divide {B} rows, {K} heads divide {H}")
    if min(B, C, H, E, P, S) == 0:
        raise ValueError(f"shared_prefix_attention: an axis of q {q_BCHE.shape} or of the {P} and {S} slots is empty")
    keys = {"prefix_k": prefix_k_QKPE, "prefix_v": prefix_v_QKPE, "suffix_k": suffix_k_BKSE, "suffix_v": suffix_v_BKSE}
    _check_dtypes("shared_prefix_attention", {"q": q_BCHE, **keys})
    for name, array in (("prefix_length", prefix_length_Q), ("slot", slot_BC)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"shared_prefix_attention: {name} has dtype {array.dtype}, expected integers")
    if not math.isfinite(scale):
        raise ValueError(f"shared_prefix_attention: scale must be finite, not {scale}")
    if soft_cap is not None and not 0 < soft_cap < math.inf:
        raise ValueError(f"shared_prefix_attention: soft_cap must be positive, or None for none, not {soft_cap}")
    if window is not None and window < 1:
        raise ValueError(f"shared_prefix_attention: window must be at least 1, or None for none, not {window}")


def _check_implementation(op: str, implementation: str) -> None:
    if implementation not in get_args(Implementation):
        raise ValueError(f"{op}: implementation {implementation!r} is none of {', '.join(get_args(Implementation))}")


def _check_shapes(op: str, expected: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    for name, (shape, want) in expected.items():
        if shape != want:
            raise ValueError(f"{op}: {name} has shape {shape}, expected {want}")


def _check_dtypes(op: str, arrays: dict[str, jax.Array]) -> None:
    """Require one floating dtype, that of the first array."""
    first, *_ = arrays.items()
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{op}: {name} has dtype {array.dtype}, expected a floating one")
        if array.dtype != first[1].dtype:
            raise ValueError(f"{op}: {name} has dtype {array.dtype} and {first[0]} {first[1].dtype}; cast one of them")
