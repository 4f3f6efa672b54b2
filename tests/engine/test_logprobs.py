"""Log-probabilities of given text, against a full pass over prompt and continuation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.engine.batching import row_bucket
from ttcjax.model import heads, transformer
from ttcjax.runtime.errors import UserError


@functools.partial(jax.jit, static_argnums=2)
def full_pass(params, tokens, config):
    hidden = transformer.forward(params, tokens[None], jnp.arange(len(tokens), dtype=jnp.int32)[None], config)
    return jax.nn.log_softmax(heads.logits(params, hidden[0], config))


def naive(model, tokens):
    """Log-probability of each token but the first, from one pass without a cache; padding comes after."""
    padded = np.zeros(-(-len(tokens) // 128) * 128, np.int32)
    padded[: len(tokens)] = tokens
    logprobs = np.asarray(full_pass(model.params, jnp.asarray(padded), model.config))
    return logprobs[np.arange(len(tokens) - 1), list(tokens[1:])]


def assert_near(got, want, error):
    np.testing.assert_allclose(got, want, rtol=0, atol=error, err_msg="a token's log-probability is another's")


@pytest.fixture(scope="module")
def continuations(tiny, prompts):
    rng = np.random.default_rng(0)
    return [[rng.integers(4, 500, rng.integers(1, 30)).tolist() for _ in range(3 + i % 2)] for i in range(len(prompts))]


@pytest.mark.parametrize("devices", [1, 8])
def test_continuations_equal_a_full_pass(tiny, prompts, continuations, devices):
    found = tiny.engine(devices=devices, rows=16).logprobs(prompts, continuations)
    for prompt, rows, got in zip(prompts, continuations, found, strict=True):
        assert [len(row) for row in got] == [len(row) for row in rows]
        for row, numbers in zip(rows, got, strict=True):
            want = naive(tiny.policy, (*prompt.tokens, *row))[len(prompt.tokens) - 1 :]
            assert_near(numbers, want, tiny.errors.token)


def test_prompts_equal_a_full_pass(tiny, engine, prompts):
    for prompt, numbers in zip(prompts, engine.prompt_logprobs(prompts), strict=True):
        assert_near(numbers, naive(tiny.policy, prompt.tokens), tiny.errors.token)


def test_long_rows_are_read_in_pieces_with_the_same_result(tiny, prompts):
    """More tokens than are read together, and than a whole number of pieces."""
    config = dataclasses.replace(tiny.policy.config, max_seq_len=512)
    model = dataclasses.replace(tiny.policy, config=config)
    longer = dataclasses.replace(tiny, policy=model)
    engine = longer.engine(rows=4)
    row = np.random.default_rng(1).integers(4, 500, 300).tolist()
    [[numbers]] = engine.logprobs(prompts[:1], [[row]])
    want = naive(model, (*prompts[0].tokens, *row))[len(prompts[0].tokens) - 1 :]
    assert_near(numbers, want, longer.errors.token)


def test_samples_have_the_log_probability_that_was_summed_while_they_were_drawn(tiny, engine, prompts):
    drawn = engine.sample(prompts, 2, 0)
    found = engine.logprobs(prompts, [[s.tokens for s in row] for row in drawn])
    for solutions, rows in zip(drawn, found, strict=True):
        for solution, numbers in zip(solutions, rows, strict=True):
            assert abs(solution.logprob - numbers.sum()) <= tiny.errors.solution


def test_what_is_too_long_is_refused(tiny, engine, prompts):
    limit = tiny.policy.config.max_seq_len
    with pytest.raises(UserError, match=f"more than the policy's limit of {limit}: shorten"):
        engine.logprobs(prompts[:1], [[[5] * limit]])


@pytest.mark.parametrize("length", [1, 32, 33, 128, 129, 192, 193, 256, 257, 1500, 1537, 2048])
def test_row_buckets_hold_their_rows(length):
    slots = row_bucket(length)
    assert slots >= length
    assert slots < (length + 32 if length <= 128 else 2 * length)
