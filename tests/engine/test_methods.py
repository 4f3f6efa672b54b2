"""One token from logits, against the distributions written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import rounding
from ttcjax.config import SamplerConfig
from ttcjax.engine import draw

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
    got = np.asarray(draw.filtered_probabilities(jnp.asarray(LOGITS)[None], CONFIGS[name]))[0]
    # Of each: the logit by the temperature, less the largest, both below 12; its exponential; the sum of 8; the ratio.
    error = rounding.of(2 * 12 + 4 + 8 + 1)
    np.testing.assert_allclose(got / got.sum(), distribution(LOGITS, CONFIGS[name]), rtol=error)


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_drawn_as_often_as_they_should_be(name):
    config, draws = CONFIGS[name], 20_000
    logits = jnp.asarray(np.broadcast_to(LOGITS, (draws, len(LOGITS))))
    keys = jax.random.split(jax.random.key(5), draws)
    tokens, logprobs = jax.jit(draw.draw, static_argnums=2)(logits, keys, config)
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
    one = lambda key: draw.draw(jnp.asarray(row)[None], key[None], SamplerConfig())[0][0]  # noqa: E731
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
    first, logprobs = draw.draw(logits, jax.random.split(jax.random.key(0), 16), config)
    second, _ = draw.draw(logits, jax.random.split(jax.random.key(1), 16), config)
    np.testing.assert_array_equal(first, np.argmax(logits, axis=1))
    np.testing.assert_array_equal(first, second)
    wide = np.asarray(logits, np.float64)
    want = wide.max(axis=1) - np.log(np.exp(wide).sum(axis=1))
    np.testing.assert_allclose(logprobs, want, rtol=0, atol=rounding.of_log_softmax(50, np.abs(wide).max()))


def test_filters_that_keep_all_change_no_draw():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 50)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    plain, _ = draw.draw(logits, keys, SamplerConfig())
    for config in (SamplerConfig(top_k=0, top_p=1.0), SamplerConfig(top_k=50), SamplerConfig(top_k=1000)):
        np.testing.assert_array_equal(draw.draw(logits, keys, config)[0], plain)


def test_a_row_depends_on_its_own_key_and_logits_alone():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 50)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    together, _ = draw.draw(logits, keys, SamplerConfig())
    some = jnp.array([40, 3, 17])
    np.testing.assert_array_equal(draw.draw(logits[some], keys[some], SamplerConfig())[0], together[some])


@pytest.mark.parametrize("likely", [0, 20, 39])
def test_impossible_tokens_are_never_drawn(likely):
    """Logits so far apart that all but one token underflow to probability zero."""
    logits = jnp.asarray(np.where(np.arange(40) == likely, 0.0, -1e4), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4096)
    tokens, _ = draw.draw(jnp.broadcast_to(logits, (4096, 40)), keys, SamplerConfig())
    assert (tokens == likely).all()


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_ends_of_the_uniform_numbers_draw_possible_tokens(uniform, monkeypatch):
    """The first and the last token have probability zero: no rounding may reach them."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, dtype: jnp.asarray(uniform, dtype))
    for size in (3, 1001):
        # Thirds, whose sums round up as well as down.
        logits = jnp.asarray(np.r_[-np.inf, np.full(size, np.log(1 / 3)), -np.inf], jnp.float32)
        token, _ = draw.draw(logits[None], jax.random.split(jax.random.key(0), 1), SamplerConfig())
        assert int(token[0]) == (1 if uniform == 0 else size)


@functools.partial(jax.jit, static_argnums=2)
def filtered_and_drawn(logits, keys, config):
    return draw.filtered_probabilities(logits, config), *draw.draw(logits, keys, config)


def check_filters(logits, got, config):
    """The kept tokens are the first by falling logit and rising id, as few as hold top-k and top-p, in float64."""
    logits = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        p = np.exp((logits - logits.max()) / config.temperature)
    falling = np.lexsort((np.arange(len(p)), -logits))
    falling = falling[: config.top_k or None]
    cumulative = np.cumsum(p[falling]) / p[falling].sum()
    kept = np.flatnonzero(got)
    # What float32 rounds to 0 cannot be drawn; to the last kept token the order has no gaps.
    possible = falling[p[falling] > 1e-37]
    count = len(kept) if len(kept) < len(possible) else len(possible)
    assert set(kept) - set(falling[p[falling] <= 1e-37]) == set(possible[:count]), "not the first tokens of the order"
    np.testing.assert_allclose(got[possible[:count]], p[possible[:count]], rtol=1e-4, atol=1e-30)
    if config.top_p == 1:
        assert count == len(possible), "top-k alone keeps k tokens"
    else:
        assert cumulative[count - 1] >= config.top_p - 1e-6 or count == len(possible), "less than top-p was kept"
        assert count == 1 or cumulative[count - 2] < config.top_p + 1e-6, "top-p was held by fewer tokens"


V = 131
"""Blocks of 128, of which the last is cut short."""
MAX = float(np.finfo(np.float32).max)


def extreme_rows():
    rng = np.random.default_rng(0)
    rows = {
        "normal": rng.normal(size=V) * 3,
        "ties": rng.integers(-2, 3, V).astype(float),
        "all equal": np.full(V, 2.0),
        "two levels": np.where(np.arange(V) % 7 == 0, 1.0, -1.0),
        "both zeros": np.where(np.arange(V) % 2, 0.0, -0.0),
        "largest": rng.choice([-MAX, MAX, 0.0], V),
        "one largest": np.where(np.arange(V) == 130, MAX, -MAX),
        "all least": np.full(V, -MAX),
        "half impossible": np.where(rng.random(V) < 0.5, -np.inf, rng.normal(size=V)),
        "last alone": np.where(np.arange(V) == 130, -5.0, -np.inf),
        "first alone": np.where(np.arange(V) == 0, 5.0, -np.inf),
        "far apart": rng.normal(size=V) * 1e30,
        "neighbours": 1 + rng.integers(0, 3, V) * 2.0**-23,
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


EXTREMES = [
    SamplerConfig(temperature=5e-324),
    SamplerConfig(temperature=1e-300, top_p=0.5),
    SamplerConfig(temperature=1e-38, top_k=2),
    SamplerConfig(temperature=1e-37, top_k=3, top_p=1e-38),
    SamplerConfig(temperature=0.5, top_p=5e-324),
    SamplerConfig(top_p=1e-38),
    SamplerConfig(top_p=0.25),
    SamplerConfig(top_p=1 - 2**-53),
    SamplerConfig(top_k=1),
    SamplerConfig(top_k=V - 1),
    SamplerConfig(top_k=10**30),
    SamplerConfig(temperature=3.0, top_k=40, top_p=0.7),
    SamplerConfig(temperature=1e38, top_k=1),
    SamplerConfig(temperature=1.7e308, top_p=0.5),
    SamplerConfig(temperature=1.7e308),
    SamplerConfig(temperature=0.0),
]


@pytest.mark.parametrize("config", EXTREMES, ids=lambda c: f"temperature {c.temperature}, {c.top_k}, {c.top_p}")
def test_extremes_of_settings_and_logits_draw_what_they_should(config):
    rows = extreme_rows()
    broken = [np.where(np.arange(V) == 77, bad, 1.0) for bad in (np.nan, np.inf)]
    broken += [np.full(V, bad) for bad in (np.nan, np.inf, -np.inf)]
    logits = np.stack([*rows.values(), *broken]).astype(np.float32)
    draws = 32
    many = np.repeat(logits, draws, axis=0)
    keys = jax.random.split(jax.random.key(3), len(many))
    p, tokens, logprobs = (np.asarray(x) for x in filtered_and_drawn(many, keys, config))
    assert ((tokens >= 0) & (tokens < V)).all(), "an id beyond the vocabulary"
    assert np.isnan(logprobs[len(rows) * draws :]).all(), "logits that are no distribution went unnoticed"
    assert not np.isnan(logprobs[: len(rows) * draws]).any()
    for i, (name, row) in enumerate(rows.items()):
        drawn = tokens[i * draws : (i + 1) * draws]
        if config.temperature == 0 or config.top_k == 1:
            assert (drawn == np.argmax(row)).all(), name
            continue
        got = p[i * draws]
        try:
            check_filters(row, got, config)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert (got[drawn] > 0).all(), f"{name}: a token outside the filters was drawn"
        if config.temperature < 1e-36:
            assert (row[drawn] == row.max()).all(), f"{name}: a tiny temperature is no longer greedy"


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 1.0, 1.3, 2.0**101, 1e300])
def test_a_temperature_that_a_program_is_given_is_that_of_its_settings(temperature):
    """One compiled program for all; nothing is rounded at 1, where bits are those of the softmax itself."""
    rows = jnp.asarray(np.stack(list(extreme_rows().values())))
    got = np.asarray(given_factors(rows, jnp.asarray(draw.factors(temperature))))
    if temperature == 1.0:
        assert (got == np.asarray(jnp.exp(rows - rows.max(axis=-1, keepdims=True)))).all()
    exact = np.exp(
        (np.asarray(rows, np.float64) - np.asarray(rows.max(axis=-1, keepdims=True), np.float64)) / temperature
    )
    # Differences are rounded once, products twice: of an exponent x, x times three roundings and one of the result.
    exponent = np.abs(np.log(np.maximum(exact, 1e-300)))
    np.testing.assert_allclose(got, exact, rtol=0, atol=float((exact * (4 * exponent + 8)).max()) * 2.0**-23 + 1e-37)


@jax.jit
def given_factors(logits, factors):
    return draw.filtered_probabilities(logits, SamplerConfig(temperature=123.0), factors)


@pytest.mark.parametrize("size", [1, 3, 128, 129])
def test_ids_lie_in_vocabularies_of_every_size(size):
    logits = np.stack([np.full(size, x, np.float32) for x in (0.0, np.nan, np.inf, -np.inf)])
    logits = np.repeat(logits, 16, axis=0)
    keys = jax.random.split(jax.random.key(3), len(logits))
    config = SamplerConfig(temperature=1e-40, top_k=2, top_p=1e-40)
    _, tokens, _ = filtered_and_drawn(logits, keys, config)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < size


TIED = [SamplerConfig(top_k=3), SamplerConfig(top_p=0.5), SamplerConfig(0.3, 5, 0.95), SamplerConfig(3.0, 0, 0.05)]
tied_rows = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, -0.0, 0.5, 3.0]), min_size=12, max_size=12)
logit_rows = st.lists(st.floats(-30, 30, width=32), min_size=12, max_size=12)


@settings(max_examples=80, deadline=None)
@given(row=st.one_of(tied_rows, logit_rows), config=st.sampled_from(TIED))
def test_filters_keep_the_first_tokens_by_falling_logit_and_rising_id(row, config):
    logits = np.array(row, np.float32)
    if np.isinf(logits).all():
        logits[5] = 1.0
    check_filters(logits, np.asarray(filtered(logits[None], config))[0], config)


@functools.partial(jax.jit, static_argnums=1)
def filtered(logits, config):
    return draw.filtered_probabilities(logits, config)


def test_equal_tokens_at_the_limits_are_taken_by_their_ids():
    level = np.zeros((1, 10), np.float32)
    for config, count in ((SamplerConfig(top_k=4), 4), (SamplerConfig(top_p=0.45), 5), (SamplerConfig(2.0, 8, 0.5), 4)):
        assert np.flatnonzero(np.asarray(filtered(level, config))[0]).tolist() == list(range(count))
    got = filtered(np.array([[1.0, 2.0, 1.0, 0.0]], np.float32), SamplerConfig(top_k=2))
    assert np.flatnonzero(np.asarray(got)[0]).tolist() == [0, 1], (
        "of the tied tokens the one with the lower id stays in"
    )
