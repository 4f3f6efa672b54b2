"""Losses against numpy in float64, and their gradients at the awkward places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax.train import losses


def _reference_cross_entropy(logits, targets, weights):
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    logsumexp = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
    picked = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return ((logsumexp - picked) * weights).sum(), ((logits.argmax(-1) == targets) * weights).sum()


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 11)).astype(np.float32) * 5
    return logits, rng.integers(0, 11, (3, 8)).astype(np.int32), rng.integers(0, 2, (3, 8)).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 1e4])
def test_cross_entropy_equals_numpy_at_any_scale(sample, scale):
    logits, targets, weights = sample
    logits = logits * np.float32(scale)
    loss, hits = losses.token_cross_entropy(*map(jnp.asarray, (logits, targets, weights)))
    want, want_hits = _reference_cross_entropy(logits, targets, weights)
    each = rounding.of_log_softmax(logits.shape[-1], float(np.abs(logits).max()))
    np.testing.assert_allclose(loss, want, rtol=0, atol=weights.sum() * each + rounding.of(weights.size) * want)
    assert hits == want_hits


def test_positions_without_weight_give_no_gradient_even_where_logits_are_nan(sample):
    logits, targets, weights = map(jnp.asarray, sample)
    poisoned = jnp.where(weights[..., None] > 0, logits, jnp.nan)
    loss, _ = losses.token_cross_entropy(poisoned, targets, weights)
    # The same operations on the same numbers, or on zeros.
    assert loss == losses.token_cross_entropy(logits, targets, weights)[0]


@pytest.mark.parametrize("max_logits", [1, 100, 10_000])
def test_slicing_the_head_changes_neither_loss_nor_gradient(sample, max_logits):
    _, targets, weights = map(jnp.asarray, sample)
    hidden, w = jax.random.normal(jax.random.key(0), (3, 8, 5)), jax.random.normal(jax.random.key(1), (5, 11))

    def loss(w, hidden, limit):
        return losses.next_token(lambda h: h @ w, hidden, targets, weights, vocab_size=11, max_logits=limit)[0]

    whole = jax.value_and_grad(loss, argnums=(0, 1))(w, hidden, 2**30)
    sliced = jax.value_and_grad(loss, argnums=(0, 1))(w, hidden, max_logits)
    # Every number is a sum over 24 positions of the softmax of 11 logits, of 5 products each.
    of_all = jax.jit(lambda both: jax.value_and_grad(loss, argnums=(0, 1))(*both, 2**30))
    allowed = rounding.noise(of_all, (w, hidden), 24 + 11 + 5)
    assert allowed < 1e-3, "a slice that is lost would not be seen"
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(sliced), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def test_slicing_bounds_the_logits_held_at_once(sample):
    _, targets, weights = map(jnp.asarray, sample)
    widths = []

    def head(hidden):
        widths.append(hidden.shape[1])
        return jnp.zeros((*hidden.shape[:2], 11))

    losses.next_token(head, jnp.zeros((3, 8, 5)), targets, weights, vocab_size=11, max_logits=3 * 2 * 11)
    assert set(widths) == {2}, "each slice should hold 2 of the 8 positions"


def test_step_loss_equals_numpy_for_soft_labels():
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(4, 6)) * 3, rng.random((4, 6))
    weights = rng.integers(0, 2, (4, 6)).astype(float)
    p = 1 / (1 + np.exp(-values))
    expected = (-(labels * np.log(p) + (1 - labels) * np.log(1 - p)) * weights).sum()
    hits = (((p > 0.5) == (labels > 0.5)) * weights).sum()
    got = losses.step_binary(*(jnp.asarray(x, jnp.float32) for x in (values, labels, weights)))
    # A sum of 24 positive numbers, each of an exponential, a logarithm and a few sums.
    np.testing.assert_allclose(got, (expected, hits), rtol=rounding.of(24 + 10))


def test_step_loss_of_extreme_values_is_finite_and_linear():
    values = jnp.asarray([1e4, -1e4])
    loss, _ = losses.step_binary(values, jnp.asarray([0.0, 1.0]), jnp.ones(2))
    assert loss == 2e4, "the logarithm of 1 is all that is added"
    gradient = jax.grad(lambda v: losses.step_binary(v, jnp.asarray([0.0, 1.0]), jnp.ones(2))[0])(values)
    np.testing.assert_array_equal(gradient, [1.0, -1.0])


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.7])
def test_step_loss_gradient_is_sigmoid_minus_label(value):
    """A new value head starts at exactly 0, where max and abs have corners."""
    gradient = jax.grad(lambda v: losses.step_binary(v, jnp.float32(0.3), jnp.float32(1))[0])(jnp.float32(value))
    # The sigmoid of a few roundings, the label of one and the difference of one, all below 1.
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-value)) - 0.3, rtol=0, atol=rounding.of(8))
