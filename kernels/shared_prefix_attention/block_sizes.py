"""Block sizes of the Pallas kernel, by TPU generation, dtype, head size and shape class.

A block is what one grid step holds in VMEM: the keys and values of some slots, for some rows and key/value
heads, and the queries that read them. Two classes of shapes have different limits. `narrow` attention has few
queries a key (a row's own suffix while decoding): it waits for memory, so a block should be one long copy.
`wide` attention has many (a prefix that all samples of a question read): it is busy computing, and a block of
queries should be large enough that reading the keys again for the next block costs less than the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jax.experimental.pallas import tpu as pltpu

ShapeClass = Literal["narrow", "wide"]

LANES, SUBLANES = 128, 8
"""A vector register of a TPU; arrays in VMEM are padded to it, or to 2 and 4 times the sublanes of small dtypes."""
WIDE_QUERIES = 64
"""Queries a key/value head from which on attention is `wide`."""
MOST_ROWS = 8
"""Rows of a block; their programs stand one after another in the kernel."""


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of one block; each at most the axis it splits.

    Rows must divide the rows and heads the key/value heads; the other two need not divide anything.
    """

    rows: int
    heads: int
    """Key/value heads."""
    queries: int
    """Queries a row and key/value head: all, or a multiple of 16."""
    slots: int
    """Key slots: all, or a multiple of 128."""


@dataclass(frozen=True)
class Target:
    """Size up to which blocks are grown."""

    queries: int
    slots: int
    key_bytes: int
    """Bytes of the keys of one block, and as many of its values: heads and then rows are added up to here."""


DEFAULT: dict[ShapeClass, Target] = {
    "narrow": Target(queries=512, slots=256, key_bytes=1 << 20),
    "wide": Target(queries=512, slots=512, key_bytes=1 << 19),
}
"""For v5e, v4 and every generation that has no line of its own: a grid step costs about 0.35 microseconds, in
which v5e reads 290 KB; 2 MB a step keep that cost near a tenth. 512 queries a key do 512 operations a byte read,
twice what v5e needs to be busy."""
TARGETS: dict[tuple[str, ShapeClass], Target] = {
    # Two to three times the bandwidth of v5e, for the same cost of a step.
    ("v5p", "narrow"): Target(queries=512, slots=512, key_bytes=2 << 20),
    ("v6e", "narrow"): Target(queries=512, slots=512, key_bytes=2 << 20),
    # 560 operations a byte before v6e is busy.
    ("v6e", "wide"): Target(queries=1024, slots=512, key_bytes=1 << 19),
    ("7x", "narrow"): Target(queries=512, slots=512, key_bytes=2 << 20),
    ("7x", "wide"): Target(queries=1024, slots=512, key_bytes=1 << 19),
}
"""Derived from the published bandwidth and speed of each generation, not measured."""

VMEM_BUDGET = {"v2": 8 << 20, "v3": 8 << 20, "v4": 12 << 20}
"""Bytes of VMEM a block may take; see `DEFAULT_BUDGET`."""
DEFAULT_BUDGET = 14 << 20
"""16 MB are what a kernel may take unless the compiler is told otherwise, on generations that have four to eight
times as much; the rest is left to the compiler's own temporaries."""


def generation() -> str | None:
    """Return the TPU generation that is traced for (`v5e`, `v5p`, ...), or `None` where that is not known.

    It is known on a TPU, and under `shard_map` over a mesh of TPUs, whether they are there or not.
    """
    return str(pltpu.get_tpu_info().chip_version) if pltpu.is_tpu_device() else None


def padded(size: int, to: int) -> int:
    """Return the first multiple of `to` that is not below `size`."""
    return -(-size // to) * to


def vmem_bytes(blocks: BlockSizes, head_size: int, itemsize: int) -> int:
    """Return an upper estimate of the VMEM that a grid step takes, in bytes.

    Args:
        blocks: The block's sizes.
        head_size: E.
        itemsize: Bytes of an element of queries, keys and values.
    """
    lanes, sublanes = padded(head_size, LANES), SUBLANES * 4 // itemsize
    pairs = blocks.rows * blocks.heads
    queries, slots = padded(blocks.queries, sublanes), padded(blocks.slots, LANES)
    keys_values = 2 * pairs * slots * lanes * itemsize
    q_out_bounds = 2 * pairs * queries * lanes * itemsize + blocks.rows * queries * LANES * 4
    state = pairs * queries * (lanes + LANES) * 4
    # Scores and weights in float32, the weights again in the values' dtype; the values with unseen slots zeroed;
    # the products that are added to the sums.
    temporary = blocks.heads * (queries * slots * (8 + itemsize) + slots * lanes * itemsize + queries * lanes * 4)
    # While one block is worked on, the next is read and the last is written; the sums stand once more.
    return 2 * (keys_values + q_out_bounds + state) + state + temporary


def check(
    blocks: BlockSizes,
    rows: int,
    heads: int,
    queries: int,
    slots: int,
    head_size: int,
    itemsize: int,
    chip: str | None = None,
) -> None:
    """Refuse blocks that do not fit the shapes, or not into VMEM; arguments as for `choose`.

    Raises:
        ValueError: It says which size to change, and to what.
    """
    what = f"shared_prefix_attention: {blocks}"
    if rows % blocks.rows or heads % blocks.heads:
        raise ValueError(f"{what}: rows must divide {rows}, heads {heads}")
    if blocks.queries % 16 and blocks.queries != queries:
        raise ValueError(f"{what}: queries must be a multiple of 16, or all {queries}")
    if blocks.slots % LANES and blocks.slots != slots:
        raise ValueError(f"{what}: slots must be a multiple of {LANES}, or all {slots}")
    budget = VMEM_BUDGET.get(chip or "", DEFAULT_BUDGET)
    needed = vmem_bytes(blocks, head_size, itemsize)
    if needed > budget:
        raise ValueError(
            f"{what} with heads of {head_size} elements of {itemsize} bytes need {needed / 2**20:.1f} MB of VMEM and "
            f'there are {budget / 2**20:.0f}: give smaller blocks, or implementation="xla"'
        )


def _divisor(of: int, at_most: int) -> int:
    return next(d for d in range(max(1, min(of, at_most)), 0, -1) if of % d == 0)


def choose(
    rows: int, heads: int, queries: int, slots: int, head_size: int, itemsize: int, chip: str | None = None
) -> BlockSizes:
    """Return the block sizes for attention of `[rows, heads, queries, E]` to `[rows, heads, slots, E]`.

    Starts from the table's line and takes fewer rows and heads, then slots, then queries, until the block fits
    into VMEM or is as small as blocks are.

    Args:
        rows: Rows that have keys of their own: questions, or rows of a batch.
        heads: Key/value heads.
        queries: Queries a row and key/value head.
        slots: Key slots.
        head_size: E.
        itemsize: Bytes of an element of queries, keys and values.
        chip: TPU generation, as from `generation`.
    """
    kind: ShapeClass = "wide" if queries >= WIDE_QUERIES else "narrow"
    target = TARGETS.get((chip or "", kind), DEFAULT[kind])
    budget = VMEM_BUDGET.get(chip or "", DEFAULT_BUDGET)
    slot_bytes = padded(head_size, LANES) * itemsize
    most_queries, most_slots, key_bytes = target.queries, target.slots, target.key_bytes
    while True:
        block_queries, block_slots = min(queries, most_queries), min(slots, most_slots)
        pairs = max(1, key_bytes // (slot_bytes * padded(block_slots, SUBLANES)))
        block_heads = _divisor(heads, pairs)
        block_rows = _divisor(rows, min(pairs // heads, MOST_ROWS)) if block_heads == heads else 1
        blocks = BlockSizes(block_rows, block_heads, block_queries, block_slots)
        if vmem_bytes(blocks, head_size, itemsize) <= budget:
            return blocks
        if block_rows * block_heads > 1:
            key_bytes = min(key_bytes, pairs * slot_bytes * padded(block_slots, SUBLANES)) // 2
        elif block_slots > LANES:
            most_slots = padded(block_slots // 2, LANES)
        elif block_queries > 16:
            most_queries = padded(block_queries // 2, 16)
        else:
            return blocks
