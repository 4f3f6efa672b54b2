"""One token from logits, against the distributions written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import rounding
from ttcjax.config import SamplerConfig
from ttcjax.sample import methods

LOGITS = np.array([1.0, 3.0, -2.0, 0.5, 2.0, 2.9, -1.0, 0.0], np.float32)
CONFIGS = {
    "plain": SamplerConfig(),
    "cold": SamplerConfig(temperature=0.5),
    "hot": SamplerConfig(temperature=2.0),
    "top_k": SamplerConfig(top_k=3),
    "top_p": SamplerConfig(top_p=0.8),
    "all": SamplerConfig(temperature=1.5, top_k=5, top_p=0.7),
}
FALSE_ALARM = 1e-4
"""Chance that a correct sampler fails one chi-square test, had its seed not been fixed."""


def distribution(logits, config):
    """What the filters mean, for one row without ties: softmax at a temperature, then top-k, then top-p."""
    p = np.exp(logits.astype(np.float64) / config.temperature)
    falling = np.argsort(-p)
    if config.top_k:
        p[falling[config.top_k :]] = 0
    p /= p.sum()
    enough = int(np.searchsorted(np.cumsum(p[falling]), config.top_p)) + 1 if config.top_p < 1 else len(p)
    p[falling[enough:]] = 0
    return p / p.sum()


@pytest.mark.parametrize("name", CONFIGS)
def test_filters_equal_the_distribution_written_out(name):
    got = np.asarray(methods.filtered_probabilities(jnp.asarray(LOGITS)[None], CONFIGS[name]))[0]
    # Of each: the logit by the temperature, less the largest, both below 12; its exponential; the sum of 8; the ratio.
    error = rounding.of(2 * 12 + 4 + 8 + 1)
    np.testing.assert_allclose(got / got.sum(), distribution(LOGITS, CONFIGS[name]), rtol=error)


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_drawn_as_often_as_they_should_be(name):
    config, draws = CONFIGS[name], 20_000
    logits = jnp.asarray(np.broadcast_to(LOGITS, (draws, len(LOGITS))))
    keys = jax.random.split(jax.random.key(5), draws)
    tokens, logprobs = jax.jit(methods.draw, static_argnums=2)(logits, keys, config)
    want = distribution(LOGITS, config)
    seen = np.bincount(tokens, minlength=len(LOGITS))
    assert not seen[want == 0].any(), "a token outside the filters was drawn"
    possible = want > 0
    assert scipy.stats.chisquare(seen[possible], draws * want[possible]).pvalue > FALSE_ALARM
    # Whatever the sampler did, the log-probability is the model's own.
    model = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
    error = rounding.of_log_softmax(8, np.abs(LOGITS).max())
    np.testing.assert_allclose(logprobs, model[np.asarray(tokens)], rtol=0, atol=error)


def test_a_large_vocabulary_is_drawn_from_as_it_should_be():
    """Blocks of the vocabulary, one of them cut short, one without any possible token."""
    draws, rng = 200_000, np.random.default_rng(1)
    row = rng.normal(size=1000).astype(np.float32) * 1.5
    row[256:384] = -np.inf
    keys = jax.random.split(jax.random.key(6), draws)
    one = lambda key: methods.draw(jnp.asarray(row)[None], key[None], SamplerConfig())[0][0]  # noqa: E731
    seen = np.bincount(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=4096))(keys), minlength=1000)
    want = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
    assert not seen[want == 0].any(), "an impossible token was drawn"
    likely = want * draws > 5
    assert (
        scipy.stats.chisquare(*(np.r_[x[likely], x[~likely].sum()] for x in (seen, want * draws))).pvalue > FALSE_ALARM
    )


def test_greedy_is_the_argmax_and_ignores_keys_and_filters():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(16, 50)), jnp.float32)
    config = SamplerConfig(temperature=0.0, top_k=2, top_p=0.1)
    first, logprobs = methods.draw(logits, jax.random.split(jax.random.key(0), 16), config)
    second, _ = methods.draw(logits, jax.random.split(jax.random.key(1), 16), config)
    np.testing.assert_array_equal(first, np.argmax(logits, axis=1))
    np.testing.assert_array_equal(first, second)
    wide = np.asarray(logits, np.float64)
    want = wide.max(axis=1) - np.log(np.exp(wide).sum(axis=1))
    np.testing.assert_allclose(logprobs, want, rtol=0, atol=rounding.of_log_softmax(50, np.abs(wide).max()))


def test_filters_that_keep_all_change_no_draw():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 50)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    plain, _ = methods.draw(logits, keys, SamplerConfig())
    for config in (SamplerConfig(top_k=0, top_p=1.0), SamplerConfig(top_k=50), SamplerConfig(top_k=1000)):
        np.testing.assert_array_equal(methods.draw(logits, keys, config)[0], plain)


def test_a_row_depends_on_its_own_key_and_logits_alone():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 50)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    together, _ = methods.draw(logits, keys, SamplerConfig())
    some = jnp.array([40, 3, 17])
    np.testing.assert_array_equal(methods.draw(logits[some], keys[some], SamplerConfig())[0], together[some])


@pytest.mark.parametrize("likely", [0, 20, 39])
def test_impossible_tokens_are_never_drawn(likely):
    """Logits so far apart that all but one token underflow to probability zero."""
    logits = jnp.asarray(np.where(np.arange(40) == likely, 0.0, -1e4), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4096)
    tokens, _ = methods.draw(jnp.broadcast_to(logits, (4096, 40)), keys, SamplerConfig())
    assert (tokens == likely).all()


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_ends_of_the_uniform_numbers_draw_possible_tokens(uniform, monkeypatch):
    """The first and the last token have probability zero: no rounding may reach them."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, dtype: jnp.asarray(uniform, dtype))
    for size in (3, 1001):
        # Thirds, whose sums round up as well as down.
        logits = jnp.asarray(np.r_[-np.inf, np.full(size, np.log(1 / 3)), -np.inf], jnp.float32)
        token, _ = methods.draw(logits[None], jax.random.split(jax.random.key(0), 1), SamplerConfig())
        assert int(token[0]) == (1 if uniform == 0 else size)


def test_tokens_tied_with_the_kth_stay_in():
    got = methods.filtered_probabilities(jnp.array([[2.0, 1.0, 1.0, 0.0]]), SamplerConfig(top_k=2))[0]
    assert (np.asarray(got) > 0).tolist() == [True, True, True, False]


logit_rows = st.lists(st.floats(-30, 30, width=32), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    row=logit_rows,
    temperature=st.sampled_from([0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 4, 12]),
    top_p=st.sampled_from([0.05, 0.5, 0.95, 1.0]),
)
def test_filtered_probabilities_keep_what_they_promise(row, temperature, top_k, top_p):
    logits = np.array(row, np.float32)
    plain = np.asarray(methods.filtered_probabilities(jnp.asarray(logits)[None], SamplerConfig(temperature)))[0]
    config = SamplerConfig(temperature, top_k, top_p)
    got = np.asarray(methods.filtered_probabilities(jnp.asarray(logits)[None], config))[0]
    kept = got > 0
    assert np.isfinite(got).all()
    assert kept[np.argmax(logits)], "the most likely token was filtered out"
    np.testing.assert_array_equal(got[kept], plain[kept], "filters must not change what they keep")
    if not kept.all():
        assert plain[~kept].max() <= plain[kept].min(), "a token was dropped before a less likely one"
    if top_k:
        assert (plain > got.min(initial=np.inf, where=kept)).sum() < top_k, "more than top-k and its ties was kept"
    after_k = plain.sum() if not top_k else np.sort(plain)[::-1][:top_k].sum()
    # Two sums of 12 numbers here, two there, and a product.
    assert got.sum() >= top_p * after_k * (1 - rounding.of(4 * 12 + 1)), "less than top-p was kept"
