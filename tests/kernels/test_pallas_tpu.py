"""The TPU kernels in interpret mode, their block sizes, and the choice and checks of the ops.

Unused slots hold NaN here, as does memory that nothing has been written to.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from tests import rounding
from tests.plain_attention import assert_attends
from tests.rounding import on_grid
from ttcjax.kernels.shared_prefix_attention import api, block_sizes, pallas_tpu, xla
from ttcjax.kernels.shared_prefix_attention.block_sizes import BlockSizes

INTERPRET = pltpu.InterpretParams()
KERNEL = functools.partial(pallas_tpu.shared_prefix_attention, interpret=INTERPRET)
ATTEND = functools.partial(pallas_tpu.attend, scale=0.3, interpret=INTERPRET)


def inputs(seed, Q=3, N=2, C=1, K=2, G=2, E=16, P=40, S=24, length=None, dtype="float32"):
    rng = np.random.default_rng(seed)
    B, H = Q * N, K * G
    shapes = [(B, C, H, E), (Q, K, P, E), (Q, K, P, E), (B, K, S, E), (B, K, S, E)]
    q, prefix_k, prefix_v, suffix_k, suffix_v = (on_grid(rng.normal(size=shape)) for shape in shapes)
    length = rng.integers(0, P + 1, Q) if length is None else np.asarray(length)
    slot = rng.integers(0, S - C + 1, (B, 1)) + np.arange(C)[None]
    prefix_pad = (np.arange(P)[None] >= length[:, None])[:, None, :, None]
    suffix_pad = (np.arange(S)[None] > slot.max(axis=1)[:, None])[:, None, :, None]
    prefix_k, prefix_v = (np.where(prefix_pad, np.nan, x) for x in (prefix_k, prefix_v))
    suffix_k, suffix_v = (np.where(suffix_pad, np.nan, x) for x in (suffix_k, suffix_v))
    q, prefix_k, prefix_v, suffix_k, suffix_v = (
        jnp.asarray(x, dtype) for x in (q, prefix_k, prefix_v, suffix_k, suffix_v)
    )
    return q, prefix_k, prefix_v, jnp.asarray(length, jnp.int32), suffix_k, suffix_v, jnp.asarray(slot, jnp.int32)


CASES = {
    # Two blocks of each cache, the last of both ragged; no, some and all prefix slots used.
    "decode": (
        {"Q": 3, "N": 4, "G": 4, "E": 64, "P": 200, "S": 150, "length": [0, 77, 200]},
        {},
        (1, 1, 16, 128),
        (2, 2, 4, 128),
    ),
    "one_group": (
        {"Q": 3, "N": 2, "G": 1, "E": 128, "P": 130, "S": 40, "length": [1, 0, 130]},
        {},
        (1, 2, 2, 128),
        (3, 1, 1, 40),
    ),
    # 96 queries a question in blocks of 64, the second ragged; a chunk that begins in the middle of the suffix.
    "chunk": (
        {"Q": 2, "N": 4, "C": 3, "G": 8, "E": 16, "P": 140, "S": 136, "length": [140, 5]},
        {"soft_cap": 2.0},
        (2, 1, 64, 128),
        (2, 2, 24, 128),
    ),
    # Windows that end within the suffix, so that some queries see no prefix and others only its end.
    "window": (
        {"Q": 2, "N": 3, "C": 4, "G": 2, "E": 16, "P": 260, "S": 140, "length": [260, 30]},
        {"window": 40, "soft_cap": 3.0},
        (1, 2, 16, 128),
        (2, 1, 8, 128),
    ),
}


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("decode", "float32"),
        ("one_group", "bfloat16"),
        ("chunk", "bfloat16"),
        ("window", "float32"),
    ],
)
def test_equals_the_attention_written_out(case, dtype):
    """The kernel, block by block, is the attention written out, and NaN in unused slots stays there."""
    shape, options, prefix_blocks, suffix_blocks = CASES[case]
    given_inputs = inputs(0, dtype=dtype, **shape)
    blocks = {"prefix_blocks": BlockSizes(*prefix_blocks), "suffix_blocks": BlockSizes(*suffix_blocks)}
    got = KERNEL(*given_inputs, scale=0.3, **options, **blocks)
    assert got.dtype == jnp.dtype(dtype), "the output has the queries' dtype"
    assert_attends(got, given_inputs, scale=0.3, **options)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from(
        [
            ({"Q": 1, "N": 1, "C": 1, "K": 1, "G": 1, "E": 8, "P": 1, "S": 1}, None),
            ({"Q": 2, "N": 3, "C": 2, "K": 1, "G": 3, "E": 8, "P": 33, "S": 5}, None),
            ({"Q": 1, "N": 5, "C": 3, "K": 3, "G": 2, "E": 64, "P": 129, "S": 17}, 6),
        ]
    ),
)
def test_equals_it_with_the_tables_blocks(seed, shape):
    """Few shapes, since each compiles; lengths, slots and numbers are free."""
    shape, window = shape
    given_inputs = inputs(seed, **shape)
    assert_attends(KERNEL(*given_inputs, scale=0.3, window=window), given_inputs, scale=0.3, window=window)


def test_large_scores_stay_finite():
    """Scores of thousands overflow any softmax whose two parts do not share their largest score.

    Times a power of two they stay on a grid, four apart: without error, so that no weight hangs on their last bits.
    """
    q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(5)
    given_inputs = (q * 16, prefix_k * 16, prefix_v, length, suffix_k * 16, suffix_v, slot)
    assert_attends(KERNEL(*given_inputs, scale=1.0), given_inputs, scale=1.0)


def part_inputs(seed, Z=2, K=2, Y=4, T=9, E=16):
    rng = np.random.default_rng(seed)
    q, k, v = (jnp.asarray(on_grid(rng.normal(size=(Z, K, n, E))), jnp.float32) for n in (Y, T, T))
    return q, k, v, jnp.zeros((Z, Y), jnp.int32), jnp.full((Z, Y), T, jnp.int32)


@pytest.mark.parametrize("empty", ["first", "second"])
def test_an_empty_part_changes_no_bit(empty):
    """Prefixes of length zero, and windows that end before the prefix, are where merges go wrong."""
    q, k, v, low, high = part_inputs(0)
    nan, nothing = jnp.full_like(k, jnp.nan), jnp.zeros_like(high)
    alone = ATTEND(q, k, v, low, high)
    if empty == "first":
        state = ATTEND(q, nan, nan, low, nothing, finish=False)
        both = ATTEND(q, k, v, low, high, state)
    else:
        state = ATTEND(q, k, v, low, high, finish=False)
        both = ATTEND(q, nan, nan, low, nothing, state)
    np.testing.assert_array_equal(both, alone)


def test_two_parts_make_the_whole():
    """Slots split between two calls give what one call over all of them gives, row by row."""
    q, k, v, low, high = part_inputs(1)
    split = jnp.asarray([[0, 3, 9, 5], [1, 8, 2, 9]], jnp.int32)
    both = ATTEND(q, k, v, split, high, ATTEND(q, k, v, low, split, finish=False))
    whole = ATTEND(q, k, v, low, high)
    # Both as in `plain_attention.attention`: scores are exact but for the scale, and below 5; 9 slots.
    error = 2 * rounding.of(2 * (8 * 5 + 9 + 10)) * np.abs(v).max()
    np.testing.assert_allclose(both, whole, rtol=0, atol=error)


def test_a_query_that_sees_nothing_gives_zero():
    """No slot in either part: zero, not 0 / 0."""
    q, k, v, low, high = part_inputs(2)
    state = ATTEND(q, k, v, low, low, finish=False)
    got = ATTEND(q, k, v, low, high.at[0, 1].set(0), state)
    assert (got[0, :, 1] == 0).all()
    assert np.isfinite(got).all()
    assert (got[1] != 0).all(), "only that query"


@pytest.mark.parametrize(("C", "dtype"), [(1, "float32"), (5, "bfloat16"), (20, "float32")])
@pytest.mark.parametrize("S", [48, 41])
def test_write_suffix_equals_scatter(C, dtype, S):
    """Chunks within, across and past the ends of blocks and cache; what is not written keeps its bits."""
    B, K, E = 7, 2, 16
    rng = np.random.default_rng(C)
    k, v = (jnp.asarray(rng.normal(size=(B, K, S, E)), dtype).at[:, :, -3:].set(jnp.nan) for _ in range(2))
    new_k, new_v = (jnp.asarray(rng.normal(size=(B, C, K, E)), dtype) for _ in range(2))
    start = jnp.asarray([0, 14, 16, 31, 40, 41, 60], jnp.int32)
    # The interpreter of TPUs returns a written argument with its last block padded; the plain one cuts it off.
    interpret = INTERPRET if S % 16 == 0 else True
    got = pallas_tpu.write_suffix(k, v, new_k, new_v, start, interpret=interpret)
    want = xla.write_suffix(k, v, new_k, new_v, start)
    for name, a, b in zip(("keys", "values"), got, want, strict=True):
        np.testing.assert_array_equal(a.astype(jnp.float32), b.astype(jnp.float32), err_msg=name)


class TestBlockSizes:
    """The table's blocks fit every generation, and a block that does not fit is refused in words."""

    @pytest.mark.parametrize("chip", [None, "v4", "v5e", "v5p", "v6e", "7x"])
    @pytest.mark.parametrize("itemsize", [2, 4])
    def test_chosen_blocks_are_allowed(self, chip, itemsize):
        for rows in (1, 6, 64, 257):
            for heads in (1, 3, 8, 16):
                for queries in (1, 4, 63, 512, 5000):
                    for slots in (1, 97, 513, 2048):
                        for head_size in (8, 64, 128, 256):
                            shape = (rows, heads, queries, slots, head_size, itemsize, chip)
                            blocks = block_sizes.choose(*shape)
                            block_sizes.check(blocks, *shape)
                            assert rows % blocks.rows == heads % blocks.heads == 0, "a block would reach past the end"

    def test_decoding_reads_long_blocks(self):
        """2 MB or so a grid step at a size worth it, or the cost of steps shows."""
        blocks = block_sizes.choose(64, 8, 4, 513, 128, 2, "v5e")
        assert blocks.rows * blocks.heads * blocks.slots * 128 * 2 >= 2**19

    def test_all_samples_read_a_prefix_block_together(self):
        """64 samples of 8 query heads a key head: with several query blocks each prefix block is read again."""
        for chip in ("v5e", "v5p", "v6e"):
            assert block_sizes.choose(1, 8, 64 * 8, 2048, 128, 2, chip).queries == 64 * 8

    @pytest.mark.parametrize(
        ("blocks", "words"),
        [
            (BlockSizes(3, 1, 16, 128), "rows must divide 4"),
            (BlockSizes(1, 1, 8, 128), "queries must be a multiple of 16, or all 40"),
            (BlockSizes(1, 1, 40, 100), "slots must be a multiple of 128, or all 300"),
        ],
    )
    def test_blocks_that_do_not_fit_the_shapes(self, blocks, words):
        with pytest.raises(ValueError, match=words):
            block_sizes.check(blocks, 4, 2, 40, 300, 64, 4)

    def test_blocks_that_do_not_fit_the_memory(self):
        with pytest.raises(ValueError, match=r"need \d+\.\d MB of VMEM .* give smaller blocks, or implementation"):
            block_sizes.check(BlockSizes(4, 8, 512, 512), 4, 8, 512, 512, 128, 4)


class TestApi:
    """Which implementation runs, and what is refused before it does."""

    def test_auto_is_the_xla_path_off_tpus(self):
        """CPU programs hold nothing of the kernel."""
        q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(0)
        given_inputs = (q, *(jnp.nan_to_num(x) for x in (prefix_k, prefix_v)), length)
        given_inputs = (*given_inputs, *(jnp.nan_to_num(x) for x in (suffix_k, suffix_v)), slot)
        auto = jax.jit(functools.partial(api.shared_prefix_attention, scale=0.3))
        assert "custom_call" not in auto.lower(*given_inputs).as_text()
        assert_attends(auto(*given_inputs), given_inputs, scale=0.3)

    def test_the_kernel_by_name(self):
        given_inputs = inputs(1)
        with pltpu.force_tpu_interpret_mode(INTERPRET):
            got = api.shared_prefix_attention(*given_inputs, scale=0.3, implementation="pallas_tpu")
        assert_attends(got, given_inputs, scale=0.3)

    def test_write_suffix_off_tpus(self):
        k, v = jnp.zeros((2, 1, 4, 8)), jnp.ones((2, 1, 4, 8))
        new = jnp.full((2, 1, 1, 8), 5.0)
        got_k, got_v = api.write_suffix(k, v, new, -new, jnp.asarray([1, 9], jnp.int32))
        np.testing.assert_array_equal(got_k[:, 0, :, 0], [[0, 5, 0, 0], [0, 0, 0, 0]])
        np.testing.assert_array_equal(got_v[:, 0, :, 0], [[1, -5, 1, 1], [1, 1, 1, 1]])
        with pytest.raises(ValueError, match="new_v has shape"):
            api.write_suffix(k, v, new, new[:1], jnp.asarray([1, 9], jnp.int32))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"q": lambda x: x.astype(jnp.bfloat16)}, "prefix_k has dtype float32 and q bfloat16"),
            ({"slot": lambda x: x.astype(jnp.float32)}, "slot has dtype float32, expected integers"),
            ({"prefix_k": lambda x: x[:, :, :0], "prefix_v": lambda x: x[:, :, :0]}, "empty"),
        ],
    )
    def test_wrong_arrays_are_named(self, change, words):
        names = ("q", "prefix_k", "prefix_v", "length", "suffix_k", "suffix_v", "slot")
        given_inputs = [change.get(name, lambda x: x)(x) for name, x in zip(names, inputs(2), strict=True)]
        with pytest.raises(ValueError, match=words):
            api.shared_prefix_attention(*given_inputs, scale=1.0)

    @pytest.mark.parametrize("options", [{"scale": float("nan")}, {"soft_cap": 0.0}, {"window": 0}])
    def test_wrong_settings_are_named(self, options):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            api.shared_prefix_attention(*inputs(2), **{"scale": 1.0, **options})

    def test_numbers_are_checked_on_request(self):
        """NaN is allowed in unused slots and named in used ones; lengths and slots must lie in the caches."""
        names = ("q", "prefix_k", "prefix_v", "prefix_length", "suffix_k", "suffix_v", "slot")
        good = dict(zip(names, inputs(3, length=[40, 0, 7]), strict=True))
        api.check_inputs(*good.values())
        bad = {
            r"prefix_length\[1\] is 41, not in 0 to 40": ("prefix_length", (1,), 41),
            r"slot\[2, 0\] is -1, not in 0 to 23": ("slot", (2, 0), -1),
            r"slot\[5, 0\] is 24": ("slot", (5, 0), 24),
            r"prefix_v\[2, 1, 6, 3\] is in use and nan": ("prefix_v", (2, 1, 6, 3), np.nan),
            r"suffix_k\[4, 0, 0, 15\] is in use and inf": ("suffix_k", (4, 0, 0, 15), np.inf),
            r"q\[0, 0, 0, 0\] is in use and nan": ("q", (0, 0, 0, 0), np.nan),
        }
        for words, (name, at, value) in bad.items():
            with pytest.raises(ValueError, match=words):
                api.check_inputs(*{**good, name: good[name].at[at].set(value)}.values())
        with pytest.raises(ValueError, match="outside of jit"):
            jax.jit(api.check_inputs)(*good.values())
