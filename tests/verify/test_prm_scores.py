"""What the value head learns from: packed examples against single ones."""

import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.model import heads
from ttcjax.verify import value_head


def test_least_logprob_of_packed_examples_equals_a_loop():
    rng = np.random.default_rng(0)
    logprob = -rng.random((3, 12)).astype(np.float32)
    segments = np.array([[1] * 5 + [2] * 7, [1] * 12, [1] * 3 + [2] * 4 + [0] * 5])
    solution = (rng.random((3, 12)) < 0.6).astype(np.int32)
    got = value_head.packed_least_logprob(jnp.array(logprob), jnp.array(segments), jnp.array(solution))
    for r in range(3):
        for t in range(12):
            seen = [logprob[r, s] for s in range(t + 1) if segments[r, s] == segments[r, t] and solution[r, s]]
            assert got[r, t] == min([0.0, *seen]), "a prompt, another example or a later token was counted"


def test_a_likelihood_head_refuses_to_run_blind_and_a_plain_one_to_look():
    plain = {"value": {"w": jnp.ones(16), "b": jnp.zeros(())}}
    looking = {"value": plain["value"] | {"likelihood": jnp.ones(())}}
    with pytest.raises(ValueError, match="least_logprob"):
        heads.value(looking, jnp.ones((1, 16)))
    with pytest.raises(ValueError, match="least_logprob"):
        heads.value(plain, jnp.ones((1, 16)), jnp.zeros(1))
