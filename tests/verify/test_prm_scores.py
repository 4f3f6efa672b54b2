"""The verifier on the device: pieces against whole rows, packed examples against single ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax.config import ModelConfig
from ttcjax.model import cache, heads, params, transformer
from ttcjax.verify import value_head

PLAIN = ModelConfig(vocab_size=30, num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=24)
LIKELIHOOD = dataclasses.replace(PLAIN, value_likelihood=True, tie_embeddings=False)


def verifier(config):
    """Parameters drawn by NumPy: compiling `params.init` takes longer than all the tests here."""
    rng = np.random.default_rng(0)

    def leaf(spec):
        spread = spec.fan_in**-0.5 if spec.init == "normal" else 0.1
        return jnp.asarray((spec.init in ("ones", "norm_scale")) + spread * rng.normal(size=spec.shape), spec.dtype)

    tree = jax.tree.map(leaf, params.spec(config, ("value",)))
    tree["value"]["w"] = jnp.asarray(rng.normal(size=config.d_model), jnp.float32)
    return params.unstack_layers(tree)


LONGEST = 16
"""Slots of the full passes: one program for all rows."""


@functools.partial(jax.jit, static_argnames="config")
def full_pass(tree, tokens, config):
    hidden = transformer.forward(tree, tokens, jnp.arange(LONGEST)[None], config)[0]
    logprobs = jax.nn.log_softmax(heads.logits(tree, hidden, config)) if config.value_likelihood else None
    return heads.value(tree, hidden, PLAIN), logprobs


def naive_scores(tree, config, prompt, row):
    """Score every token of a row from one full pass, with the least log-probability found by a loop."""
    tokens = jnp.concatenate([prompt, row])[None]
    value, logprobs = full_pass(tree, jnp.pad(tokens, ((0, 0), (0, LONGEST - tokens.shape[1]))), config)
    value = value[: tokens.shape[1]]
    if config.value_likelihood:
        logprobs = np.asarray(logprobs)
        least, out = 0.0, []
        for t in range(len(tokens[0])):
            if t >= len(prompt):
                least = min(least, float(logprobs[t - 1, int(tokens[0, t])]))
            out.append(least)
        value = value + tree["value"]["likelihood"] * jnp.maximum(jnp.array(out), heads.LEAST_LOGPROB)
    return np.asarray(jax.nn.sigmoid(value))[len(prompt) - 1 :]


@pytest.fixture(scope="module", params=[PLAIN, LIKELIHOOD], ids=["plain", "likelihood"])
def case(request):
    config = request.param
    tree = verifier(config)
    prompts = jax.random.randint(jax.random.key(2), (2, 6), 0, 30)
    lengths = [6, 4]  # of the prompts, the token in slot 0 included
    rows = jax.random.randint(jax.random.key(3), (4, 9), 0, 30)
    prefix_length = jnp.array(lengths) - 1
    last = jnp.array([prompts[q, n - 1] for q, n in enumerate(lengths)])
    tokens = jnp.concatenate([jnp.repeat(last, 2)[:, None], rows], axis=1)
    prefix = jax.jit(cache.prefill, static_argnums=3)(tree, prompts, prefix_length, config)
    whole = [prompts[b // 2, : lengths[b // 2]] for b in range(4)]
    want = [naive_scores(tree, config, prompt, row) for prompt, row in zip(whole, rows, strict=True)]
    allowed = max(
        rounding.noise(functools.partial(naive_scores, config=config, prompt=prompt, row=row), tree, config.d_ff)
        for prompt, row in zip(whole, rows, strict=True)
    )
    return config, tree, prefix, tokens, whole, want, allowed


def test_whole_rows_equal_a_full_pass(case):
    config, tree, prefix, tokens, _, want, allowed = case
    got = jax.jit(value_head.score_tokens, static_argnums=4)(tree, prefix, tokens, jnp.ones(4, jnp.int32), config)
    for b in range(4):
        np.testing.assert_allclose(got[b], want[b], rtol=0, atol=allowed)


def test_tokens_that_were_given_do_not_count_as_unlikely(case):
    """Earlier answers stand in the row but were not this one's choice: the score is as if they were the prompt's."""
    config, tree, prefix, tokens, prompts, _, allowed = case
    begin = [1, 4, 2, 7]
    got = jax.jit(value_head.score_tokens, static_argnums=4)(tree, prefix, tokens, jnp.array(begin), config)
    for b, (first, prompt) in enumerate(zip(begin, prompts, strict=True)):
        given = jnp.concatenate([prompt, tokens[b, 1:first]])
        want = naive_scores(tree, config, given, tokens[b, first:])
        np.testing.assert_allclose(got[b][first - 1 :], want, rtol=0, atol=allowed)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_reading_on_in_ragged_pieces_equals_a_full_pass(case, chunk):
    """Each round reads what is new, one row nothing at all; the score of the newest token must not notice."""
    config, tree, prefix, tokens, _, want, allowed = case
    reading = value_head.start_reading(config, 4, tokens.shape[1])
    read_on = jax.jit(functools.partial(value_head.read_on, config=config, chunk=chunk))
    for lengths in ([4, 2, 5, 3], [6, 6, 5, 7], [10, 7, 9, 8]):
        reading = read_on(tree, prefix, reading, tokens, jnp.array(lengths))
        assert reading.read.tolist() == lengths
        score = value_head.score(tree, reading, config)
        for b in range(4):
            np.testing.assert_allclose(score[b], want[b][lengths[b] - 1], rtol=0, atol=allowed)


def test_forked_rows_read_on_from_their_parents(case):
    """Rows 0 and 1 share a prompt; row 1 becomes a copy of row 0 half-way."""
    config, tree, prefix, tokens, _, want, allowed = case
    read_on = jax.jit(functools.partial(value_head.read_on, config=config, chunk=3))
    reading = read_on(
        tree, prefix, value_head.start_reading(config, 4, tokens.shape[1]), tokens, jnp.array([4, 2, 5, 3])
    )
    parent = jnp.array([0, 0, 2, 3])
    reading = read_on(tree, prefix, reading.fork(parent), tokens[parent], jnp.array([7, 6, 5, 3]))
    score = value_head.score(tree, reading, config)
    for b, (row, slot) in enumerate([(0, 6), (0, 5), (2, 4), (3, 2)]):
        np.testing.assert_allclose(score[b], want[row][slot], rtol=0, atol=allowed)


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


def test_a_likelihood_head_refuses_to_run_blind():
    with pytest.raises(ValueError, match="least_logprob"):
        heads.value(verifier(LIKELIHOOD), jnp.ones((1, 16)), LIKELIHOOD)


def test_step_ends_are_gathered_in_order():
    values = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    ends = jnp.array([[False, True, False, True], [False, False, True, True]])
    got = value_head.at_step_ends(values, ends, 3)
    np.testing.assert_array_equal(got, np.array([[0.2, 0.4, 0.0], [0.7, 0.8, 0.0]], np.float32))
    np.testing.assert_array_equal(value_head.at_step_ends(values, ends, 1), np.array([[0.2], [0.7]], np.float32))
