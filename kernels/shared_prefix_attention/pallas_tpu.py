"""Shared-prefix attention as a Pallas TPU kernel: one kernel, called for the prefixes and then for the suffixes.

The kernel is flash attention that can stop short of the division and go on from where another call stopped: what
stands between is, for each query, the weighted sum of the values seen so far, the largest score and the sum of
weights. For the prefixes the queries of all rows of a question stand side by side, so a block of the prefix's
keys is read once for all of them; for the suffixes each row has its own keys. Going on is exact, whichever of
the two is empty.

Blocks past the slots that some query sees are neither read nor computed: the numbers of the first and last
block are there before the kernel starts, and block indices outside them are clamped to them, which repeats an
index and so starts no copy.

Mosaic takes arrays as they lie in row-major order, and a cache in any other order is copied whole before every
call. The scatter that XLA writes a cache with prefers another order; `write_suffix` writes it where it lies.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ttcjax.kernels.shared_prefix_attention import block_sizes
from ttcjax.kernels.shared_prefix_attention.block_sizes import LANES, BlockSizes
from ttcjax.kernels.shared_prefix_attention.reference import MASKED


def state_width(head_size: int) -> int:
    """Return the lanes W of a state `[..., W]`: the sums of values, padded, then the largest score and the sum."""
    return block_sizes.padded(head_size, LANES) + LANES


def _attention_kernel(
    first_ref: Any,
    end_ref: Any,
    _: Any,
    q_ref: Any,
    bounds_ref: Any,
    k_ref: Any,
    v_ref: Any,
    *refs: Any,
    blocks: BlockSizes,
    scale: float,
    soft_cap: float | None,
    finish: bool,
) -> None:
    """One grid step: some rows and heads, a block of queries, a block of slots.

    The sums stay in VMEM over the steps of a query block, which are the innermost ones.
    """
    *before, out_ref, mixed_ref, stats_ref = refs
    E, step = q_ref.shape[-1], pl.program_id(3)
    start = step * blocks.slots
    tail = block_sizes.padded(E, LANES)

    @pl.when(step == 0)
    def _() -> None:
        if before:
            mixed_ref[...] = before[0][..., :E]
            stats_ref[...] = before[0][..., tail : tail + 2]
        else:
            mixed_ref[...] = jnp.zeros_like(mixed_ref)
            lane = jax.lax.broadcasted_iota(jnp.int32, stats_ref.shape, 3)
            stats_ref[...] = jnp.where(lane == 0, MASKED, 0.0)

    # Products of float32 take one pass of bfloat16 unless asked otherwise.
    precision = jax.lax.Precision.HIGHEST if q_ref.dtype == jnp.float32 else None
    dot = functools.partial(jax.lax.dot_general, precision=precision, preferred_element_type=jnp.float32)

    def row(r: int) -> None:
        at = (pl.program_id(0) * blocks.rows + r) * pl.num_programs(2) + pl.program_id(2)
        first, end = first_ref[at], end_ref[at]

        @pl.when((start < end) & (start + blocks.slots > first))
        def _() -> None:
            scores_KYT = dot(q_ref[r], k_ref[r], (((2,), (2,)), ((0,), (0,)))) * scale
            if soft_cap is not None:
                scores_KYT = soft_cap * jnp.tanh(scores_KYT / soft_cap)
            bounds_Y2 = bounds_ref[r]
            slot_YT = start + jax.lax.broadcasted_iota(jnp.int32, scores_KYT.shape[1:], 1)
            seen_YT = (slot_YT >= bounds_Y2[:, :1]) & (slot_YT < bounds_Y2[:, 1:])
            # Infinite where masked, while the top is finite: such a weight is 0 even before any slot was seen.
            scores_KYT = jnp.where(seen_YT[None], scores_KYT, -jnp.inf)
            stats_KY2 = stats_ref[r]
            old_top_KY1, old_total_KY1 = stats_KY2[..., :1], stats_KY2[..., 1:]
            top_KY1 = jnp.maximum(old_top_KY1, scores_KYT.max(axis=-1, keepdims=True))
            weights_KYT = jnp.exp(scores_KYT - top_KY1)
            shrink_KY1 = jnp.exp(old_top_KY1 - top_KY1)
            total_KY1 = shrink_KY1 * old_total_KY1 + weights_KYT.sum(axis=-1, keepdims=True)
            # Slots that no query sees may hold NaN, which a weight of zero does not stop.
            v_KTE = v_ref[r]
            slot_KTE = start + jax.lax.broadcasted_iota(jnp.int32, v_KTE.shape, 1)
            v_KTE = jnp.where((slot_KTE >= first) & (slot_KTE < end), v_KTE, jnp.zeros_like(v_KTE))
            new_KYE = dot(weights_KYT.astype(v_KTE.dtype), v_KTE, (((2,), (1,)), ((0,), (0,))))
            mixed_ref[r] = shrink_KY1 * mixed_ref[r] + new_KYE
            lane = jax.lax.broadcasted_iota(jnp.int32, stats_KY2.shape, 2)
            stats_ref[r] = jnp.where(lane == 0, top_KY1, total_KY1)

    for r in range(blocks.rows):
        row(r)

    @pl.when(step == pl.num_programs(3) - 1)
    def _() -> None:
        if finish:
            # The weight of the largest score is 1: a smaller sum is that of no weight at all.
            total = jnp.maximum(stats_ref[..., 1:], 1.0)
            out_ref[...] = (mixed_ref[...] / total).astype(out_ref.dtype)
        else:
            out_ref[..., :E] = mixed_ref[...]
            lane = jax.lax.broadcasted_iota(jnp.int32, (*stats_ref.shape[:-1], LANES), 3)
            out_ref[..., tail:] = jnp.where(lane == 0, stats_ref[..., :1], stats_ref[..., 1:])


def _in_hbm(cache: jax.Array, interpret: Any) -> jax.Array:
    """Keep the compiler from copying a whole cache into VMEM ahead of a kernel that reads what is used of it."""
    return cache if interpret else pltpu.with_memory_space_constraint(cache, pltpu.HBM)


@functools.partial(jax.jit, static_argnames=("scale", "soft_cap", "finish", "blocks", "interpret"))
def attend(
    q_ZKYE: jax.Array,
    k_ZKTE: jax.Array,
    v_ZKTE: jax.Array,
    low_ZY: jax.Array,
    high_ZY: jax.Array,
    before_ZKYW: jax.Array | None = None,
    *,
    scale: float,
    soft_cap: float | None = None,
    finish: bool = True,
    blocks: BlockSizes | None = None,
    interpret: Any = False,
) -> jax.Array:
    """Attend each query to its slots `low .. high - 1`, and to what `before` has seen.

    Args:
        q_ZKYE: Queries.
        k_ZKTE: Keys; slots that no query of a row sees may hold anything.
        v_ZKTE: Values; likewise.
        low_ZY: First slot a query sees, int32; may be negative.
        high_ZY: One past the last slot a query sees, int32; a query with `high <= low` sees none.
        before_ZKYW: State of the same queries over other slots, from a call that did not finish.
        scale: Factor on the scores.
        soft_cap: Scores become `soft_cap * tanh(score / soft_cap)`.
        finish: Divide by the sum of weights; otherwise return the state.
        blocks: Block sizes; chosen by `block_sizes.choose` by default.
        interpret: As for `pallas_call`.

    Returns:
        `[Z, K, Y, E]` in the queries' dtype, 0 for a query that has seen no slot; or the state `[Z, K, Y, W]` in
        float32, W as of `state_width`.

    Raises:
        ValueError: The blocks do not fit the shapes, or not into VMEM.
    """
    Z, K, Y, E = q_ZKYE.shape
    T = k_ZKTE.shape[2]
    chip, itemsize = block_sizes.generation(), q_ZKYE.dtype.itemsize
    if blocks is None:
        blocks = block_sizes.choose(Z, K, Y, T, E, itemsize, chip)
    block_sizes.check(blocks, Z, K, Y, T, E, itemsize, chip)
    steps_Y, steps_T, W = pl.cdiv(Y, blocks.queries), pl.cdiv(T, blocks.slots), state_width(E)

    # What the queries of a block see between them: for each row, and as block numbers for a block of rows.
    low_ZY, high_ZY = jnp.maximum(low_ZY, 0), jnp.minimum(high_ZY, T)
    sees_ZY = low_ZY < high_ZY
    padding = ((0, 0), (0, steps_Y * blocks.queries - Y))
    first_ZY = jnp.pad(jnp.where(sees_ZY, low_ZY, T), padding, constant_values=T)
    end_ZY = jnp.pad(jnp.where(sees_ZY, high_ZY, 0), padding)
    first_ZJ = first_ZY.reshape((Z, steps_Y, blocks.queries)).min(axis=-1)
    end_ZJ = end_ZY.reshape((Z, steps_Y, blocks.queries)).max(axis=-1)
    by_block = (Z // blocks.rows, blocks.rows, steps_Y)
    block_first = first_ZJ.reshape(by_block).min(axis=1) // blocks.slots
    block_last = (end_ZJ.reshape(by_block).max(axis=1) - 1) // blocks.slots
    ends = jnp.stack([jnp.minimum(block_first, steps_T - 1), jnp.maximum(block_last, 0)]).reshape(-1)

    def q_index(z: Any, k: Any, y: Any, t: Any, *_: Any) -> Any:
        return z, k, y, 0

    def kv_index(z: Any, k: Any, y: Any, t: Any, first: Any, end: Any, ends: Any) -> Any:
        at = z * steps_Y + y
        # With no slot to see the first lies after the last, and one block is read in vain.
        return z, k, jnp.minimum(jnp.maximum(t, ends[at]), ends[Z // blocks.rows * steps_Y + at]), 0

    q_block = (blocks.rows, blocks.heads, blocks.queries)
    kv_spec = pl.BlockSpec((blocks.rows, blocks.heads, blocks.slots, E), kv_index)
    state_spec = pl.BlockSpec((*q_block, W), q_index)
    out = jax.ShapeDtypeStruct((Z, K, Y, E), q_ZKYE.dtype) if finish else None
    out = out or jax.ShapeDtypeStruct((Z, K, Y, W), jnp.float32)
    before = () if before_ZKYW is None else (before_ZKYW,)
    reads = 1 if steps_T == 1 else steps_Y
    moved = 2 * Z * K * T * E * itemsize * reads + 8 * Z * Y
    return pl.pallas_call(
        functools.partial(_attention_kernel, blocks=blocks, scale=scale, soft_cap=soft_cap, finish=finish),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(Z // blocks.rows, K // blocks.heads, steps_Y, steps_T),
            in_specs=[
                pl.BlockSpec((*q_block, E), q_index),
                pl.BlockSpec((blocks.rows, blocks.queries, 2), lambda z, k, y, t, *_: (z, y, 0)),
                kv_spec,
                kv_spec,
                *(state_spec for _ in before),
            ],
            out_specs=pl.BlockSpec((*q_block, E), q_index) if finish else state_spec,
            scratch_shapes=[pltpu.VMEM((*q_block, E), jnp.float32), pltpu.VMEM((*q_block, 2), jnp.float32)],
        ),
        out_shape=out,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * Z * K * Y * T * E,
            transcendentals=Z * K * Y * T * (1 if soft_cap is None else 2),
            bytes_accessed=moved + sum(x.size * x.dtype.itemsize for x in (q_ZKYE, out, *before)),
        ),
        interpret=interpret,
        name="attend",
    )(
        first_ZJ.reshape(-1),
        end_ZJ.reshape(-1),
        ends,
        q_ZKYE,
        jnp.stack([low_ZY, high_ZY], axis=-1),
        _in_hbm(k_ZKTE, interpret),
        _in_hbm(v_ZKTE, interpret),
        *before,
    )


@functools.partial(
    jax.jit, static_argnames=("scale", "soft_cap", "window", "prefix_blocks", "suffix_blocks", "interpret")
)
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
    prefix_blocks: BlockSizes | None = None,
    suffix_blocks: BlockSizes | None = None,
    interpret: Any = False,
) -> jax.Array:
    """The op of `api.shared_prefix_attention` on a TPU; unused slots may hold anything.

    Args beyond those of the op:
        prefix_blocks: Block sizes for the prefixes, whose rows are the questions; `None` takes the table's.
        suffix_blocks: Block sizes for the suffixes.
        interpret: As for `pallas_call`.

    Raises:
        ValueError: The blocks do not fit the shapes, or not into VMEM.
    """
    B, C, H, E = q_BCHE.shape
    Q, K = prefix_k_QKPE.shape[:2]
    N, G = B // Q, H // K
    part = functools.partial(attend, scale=scale, soft_cap=soft_cap, interpret=interpret)

    # [Q, K, N * C * G, E]: the queries of all rows of a question side by side.
    q_QKYE = q_BCHE.reshape((Q, N * C, K, G, E)).transpose((0, 2, 1, 3, 4)).reshape((Q, K, N * C * G, E))
    slot_QY = jnp.repeat(slot_BC.reshape((Q, N * C)), G, axis=1)
    high_QY = jnp.broadcast_to(prefix_length_Q[:, None], slot_QY.shape)
    low_QY = jnp.zeros_like(high_QY) if window is None else high_QY + slot_QY - (window - 1)
    state_QKYW = part(q_QKYE, prefix_k_QKPE, prefix_v_QKPE, low_QY, high_QY, finish=False, blocks=prefix_blocks)

    # [B, K, C * G, ...]: row by row.
    state_BKXW = state_QKYW.reshape((Q, K, N, C * G, -1)).transpose((0, 2, 1, 3, 4)).reshape((B, K, C * G, -1))
    q_BKXE = q_BCHE.reshape((B, C, K, G, E)).transpose((0, 2, 1, 3, 4)).reshape((B, K, C * G, E))
    slot_BX = jnp.repeat(slot_BC, G, axis=1)
    low_BX = jnp.zeros_like(slot_BX) if window is None else slot_BX - (window - 1)
    out = part(q_BKXE, suffix_k_BKSE, suffix_v_BKSE, low_BX, slot_BX + 1, state_BKXW, blocks=suffix_blocks)
    return out.reshape((B, K, C, G, E)).transpose((0, 2, 1, 3, 4)).reshape((B, C, H, E))


_WRITTEN = 8
"""Slots of a block that is read, changed and written back: the rows of a tile."""


def _write_kernel(
    start_ref: Any,
    new_k_ref: Any,
    new_v_ref: Any,
    k_ref: Any,
    v_ref: Any,
    k_out: Any,
    v_out: Any,
    *,
    count: int,
    last: int,
) -> None:
    """One grid step: replace those of a row's slots `start .. start + count - 1` that lie in one block."""
    start = start_ref[pl.program_id(0)]
    block = jnp.minimum(start // _WRITTEN + pl.program_id(1), last)
    slot = block * _WRITTEN + jax.lax.broadcasted_iota(jnp.int32, k_ref.shape, 2)
    fresh = (slot >= start) & (slot < start + count)
    k_out[...] = jnp.where(fresh, new_k_ref[...], k_ref[...])
    v_out[...] = jnp.where(fresh, new_v_ref[...], v_ref[...])


@functools.partial(jax.jit, static_argnames=("interpret",))
def write_suffix(
    k_BKSE: jax.Array,
    v_BKSE: jax.Array,
    new_k_BCKE: jax.Array,
    new_v_BCKE: jax.Array,
    start_B: jax.Array,
    *,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
    """The op of `api.write_suffix` on a TPU: in place, a block of slots a row and step."""
    B, K, S, E = k_BKSE.shape
    C, itemsize = new_k_BCKE.shape[1], k_BKSE.dtype.itemsize
    # A chunk that starts with the last slot of its first block reaches into the most blocks. Those past the end
    # of the cache are the last block again, which is written a second time as it was the first.
    blocks, last = pl.cdiv(C - 1, _WRITTEN) + 1, (S - 1) // _WRITTEN
    new_slots = 1 if C == 1 else _WRITTEN

    def by_block(new_BCKE: jax.Array) -> jax.Array:
        """New rows at the places they take in the blocks `[B, K, blocks * 8, E]`, or the one for all places."""
        new_BKCE = jnp.swapaxes(new_BCKE, 1, 2)
        if C == 1:
            return new_BKCE
        block_BJ = jnp.minimum(start_B[:, None] // _WRITTEN + jnp.arange(blocks)[None], last)
        slot_BJR = block_BJ[:, :, None] * _WRITTEN + jnp.arange(_WRITTEN)[None, None]
        at = jnp.clip(slot_BJR.reshape((B, -1)) - start_B[:, None], 0, C - 1)
        return jnp.take_along_axis(new_BKCE, at[:, None, :, None], axis=2)

    def cache_index(b: Any, j: Any, start: Any) -> Any:
        return b, 0, jnp.minimum(start[b] // _WRITTEN + j, last), 0

    spec = pl.BlockSpec((1, K, _WRITTEN, E), cache_index)
    new_spec = pl.BlockSpec((1, K, new_slots, E), lambda b, j, _: (b, 0, j, 0))
    k_BKSE, v_BKSE = pl.pallas_call(
        functools.partial(_write_kernel, count=C, last=last),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(B, blocks),
            in_specs=[new_spec, new_spec, spec, spec],
            out_specs=[spec, spec],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k_BKSE, v_BKSE)],
        input_output_aliases={3: 0, 4: 1},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=0, transcendentals=0, bytes_accessed=B * K * blocks * (4 * _WRITTEN + 2 * new_slots) * E * itemsize
        ),
        interpret=interpret,
        name="write_suffix",
    )(start_B, by_block(new_k_BCKE), by_block(new_v_BCKE), _in_hbm(k_BKSE, interpret), _in_hbm(v_BKSE, interpret))
    # Kept in HBM, the kernel's results must not be those of the whole program: XLA's own checks would stop it.
    return jax.lax.optimization_barrier((k_BKSE, v_BKSE))
