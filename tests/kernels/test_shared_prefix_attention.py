"""The XLA path of shared-prefix attention and the one written out, both against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_attention import assert_attends
from tests.rounding import on_grid
from ttcjax.kernels.shared_prefix_attention import api, reference, xla

# Compiled whole: op by op, the same calls take many times longer.
REFERENCE, XLA, API = (
    jax.jit(module.shared_prefix_attention, static_argnames=("scale", "soft_cap", "window"))
    for module in (reference, xla, api)
)


def inputs(seed, Q=3, N=2, C=2, K=2, G=2, E=4, P=5, S=7):
    rng = np.random.default_rng(seed)
    B, H = Q * N, K * G
    shapes = [(B, C, H, E), (Q, K, P, E), (Q, K, P, E), (B, K, S, E), (B, K, S, E)]
    q, prefix_k, prefix_v, suffix_k, suffix_v = (
        jnp.asarray(on_grid(rng.normal(size=shape)), jnp.float32) for shape in shapes
    )
    length = jnp.asarray(rng.integers(0, P + 1, Q), jnp.int32)
    slot = jnp.asarray(rng.integers(0, S - C + 1, (B, 1)) + np.arange(C)[None], jnp.int32)
    return q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot


@pytest.mark.parametrize("implementation", [REFERENCE, XLA], ids=["reference", "xla"])
@pytest.mark.parametrize(("soft_cap", "window"), [(None, None), (2.0, None), (None, 3), (1.5, 4)])
def test_equals_numpy(implementation, soft_cap, window):
    for seed in range(3):
        given_inputs, options = inputs(seed), {"scale": 0.5, "soft_cap": soft_cap, "window": window}
        assert_attends(implementation(*given_inputs, **options), given_inputs, **options)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from(
        [
            {"Q": 1, "N": 1, "C": 1, "K": 1, "G": 1, "P": 1},
            {"Q": 3, "N": 1, "C": 3, "K": 1, "G": 3, "P": 6},
            {"Q": 1, "N": 3, "C": 1, "K": 2, "G": 1, "P": 4},
            {"Q": 2, "N": 3, "C": 2, "K": 2, "G": 2, "P": 3},
        ]
    ),
)
def test_the_op_attends_at_any_lengths_and_slots(seed, shape):
    """Few shapes, since each compiles; lengths, slots and numbers are free."""
    given_inputs = inputs(seed, **shape)
    assert_attends(API(*given_inputs, scale=0.3), given_inputs, scale=0.3)


@pytest.mark.parametrize("length", [0, 5])
def test_empty_prefix_and_first_suffix_slot(length):
    """With no prefix and one suffix slot, the softmax has one term: the output is that value."""
    q, prefix_k, prefix_v, _, suffix_k, suffix_v, _ = inputs(4, C=1)
    lengths, slot = jnp.full((3,), length), jnp.zeros((6, 1), jnp.int32)
    given_inputs = (q, prefix_k, prefix_v, lengths, suffix_k, suffix_v, slot)
    for implementation in (XLA, REFERENCE):
        got = implementation(*given_inputs, scale=1.0)
        assert_attends(got, given_inputs, scale=1.0)
        if length == 0:  # A weight of 1, exactly.
            np.testing.assert_array_equal(got[:, 0], jnp.repeat(suffix_v[:, :, 0], 2, axis=1))


def test_large_scores_stay_finite():
    """Scores of a thousand would overflow any softmax that does not subtract the joint maximum.

    Times a power of two they stay on a grid, four apart: without error, so that no weight hangs on their last bits.
    """
    q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(5, P=40, S=40)
    given_inputs = (q * 16, prefix_k * 16, prefix_v, length, suffix_k * 16, suffix_v, slot)
    for implementation in (XLA, REFERENCE):
        assert_attends(implementation(*given_inputs, scale=1.0), given_inputs, scale=1.0)


def test_wrong_shapes_are_named():
    q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(6)
    with pytest.raises(ValueError, match="suffix_v has shape"):
        api.shared_prefix_attention(q, prefix_k, prefix_v, length, suffix_k, suffix_v[:, :1], slot, scale=1.0)
