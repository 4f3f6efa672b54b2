"""Heads: what must not depend on where a row stands in its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from ttcjax.model import heads


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13, 14, 15, 16, 30])
def test_the_normaliser_of_a_row_has_the_same_bits_at_every_place(rows):
    """Searches and samples differ between numbers of devices otherwise: a row then stands at another place."""
    jitted = jax.jit(heads.log_normaliser)
    drawn = np.random.default_rng(0).normal(0, 3, (300, 33)).astype(np.float32)
    for logits in drawn:
        found = np.asarray(jitted(jnp.broadcast_to(logits, (rows, 33))))
        assert len({*found.tolist()}) == 1, found


def test_the_normaliser_is_that_of_the_reference_at_any_scale():
    logits = np.random.default_rng(1).normal(0, 1, (4, 7, 50)) * np.array([1e-3, 1, 30, 3e4])[:, None, None]
    logits[0, 0, :-1] = -np.inf
    found = heads.log_normaliser(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(found, logsumexp(logits.astype(np.float32), axis=-1), rtol=1e-6)


def test_the_normaliser_of_logits_that_are_no_distribution_is_not_finite():
    logits = jnp.asarray([[np.nan, 0], [np.inf, 0], [-np.inf, -np.inf], [np.inf, -np.inf]], jnp.float32)
    assert not np.isfinite(heads.log_normaliser(logits)).any()
