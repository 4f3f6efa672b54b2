"""The XLA path of shared-prefix attention against the one written out, and both against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    q, prefix_k, prefix_v, suffix_k, suffix_v = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    length = jnp.asarray(rng.integers(0, P + 1, Q), jnp.int32)
    slot = jnp.asarray(rng.integers(0, S - C + 1, (B, 1)) + np.arange(C)[None], jnp.int32)
    return q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot


def numpy_attention(q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot, scale, soft_cap, window):
    q, prefix_k, prefix_v, suffix_k, suffix_v = (
        np.asarray(x, np.float64) for x in (q, prefix_k, prefix_v, suffix_k, suffix_v)
    )
    B, C, H, _ = q.shape
    out = np.zeros(q.shape)
    per_question, group = B // len(prefix_k), H // prefix_k.shape[1]
    for b in range(B):
        question = b // per_question
        used = int(length[question])
        for c in range(C):
            s = int(slot[b, c])
            for h in range(H):
                k = np.concatenate([prefix_k[question, h // group, :used], suffix_k[b, h // group, : s + 1]])
                v = np.concatenate([prefix_v[question, h // group, :used], suffix_v[b, h // group, : s + 1]])
                if window is not None:
                    k, v = k[-window:], v[-window:]
                scores = k @ q[b, c, h] * scale
                if soft_cap is not None:
                    scores = soft_cap * np.tanh(scores / soft_cap)
                weights = np.exp(scores - scores.max())
                out[b, c, h] = weights @ v / weights.sum()
    return out


@pytest.mark.parametrize("implementation", [REFERENCE, XLA], ids=["reference", "xla"])
@pytest.mark.parametrize(("soft_cap", "window"), [(None, None), (2.0, None), (None, 3), (1.5, 4)])
def test_equals_numpy(implementation, soft_cap, window):
    for seed in range(3):
        given_inputs = inputs(seed)
        want = numpy_attention(*given_inputs, 0.5, soft_cap, window)
        got = implementation(*given_inputs, scale=0.5, soft_cap=soft_cap, window=window)
        np.testing.assert_allclose(got, want, atol=1e-5)


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
def test_xla_path_equals_reference(seed, shape):
    """Few shapes, since each compiles; lengths, slots and numbers are free."""
    given_inputs = inputs(seed, **shape)
    want = REFERENCE(*given_inputs, scale=0.3)
    np.testing.assert_allclose(API(*given_inputs, scale=0.3), want, atol=2e-5)


@pytest.mark.parametrize("length", [0, 5])
def test_empty_prefix_and_first_suffix_slot(length):
    """With no prefix and one suffix slot, the softmax has one term: the output is that value."""
    q, prefix_k, prefix_v, _, suffix_k, suffix_v, _ = inputs(4, C=1)
    lengths, slot = jnp.full((3,), length), jnp.zeros((6, 1), jnp.int32)
    got = XLA(q, prefix_k, prefix_v, lengths, suffix_k, suffix_v, slot, scale=1.0)
    if length == 0:
        np.testing.assert_allclose(got[:, 0], jnp.repeat(suffix_v[:, :, 0], 2, axis=1), atol=1e-6)
    want = REFERENCE(q, prefix_k, prefix_v, lengths, suffix_k, suffix_v, slot, scale=1.0)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_large_scores_stay_finite():
    """Scores of a thousand would overflow any softmax that does not subtract the joint maximum."""
    q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(5)
    got = XLA(q * 100, prefix_k * 100, prefix_v, length, suffix_k * 100, suffix_v, slot, scale=1.0)
    want = REFERENCE(q * 100, prefix_k * 100, prefix_v, length, suffix_k * 100, suffix_v, slot, scale=1.0)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_wrong_shapes_are_named():
    q, prefix_k, prefix_v, length, suffix_k, suffix_v, slot = inputs(6)
    with pytest.raises(ValueError, match="suffix_v has shape"):
        api.shared_prefix_attention(q, prefix_k, prefix_v, length, suffix_k, suffix_v[:, :1], slot, scale=1.0)
