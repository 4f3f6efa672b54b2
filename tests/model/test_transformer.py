"""The transformer: causality, packing, options, and cached passes against the full one."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax.config import ModelConfig, RopeScaling
from ttcjax.model import cache, heads, params, transformer

BASE = ModelConfig(vocab_size=50, num_layers=2, d_model=32, num_heads=4, num_kv_heads=2, head_dim=8, d_ff=48)
BIASED = dataclasses.replace(BASE, qkv_bias=True)
CONFIGS = {
    "base": BASE,
    "llama3": dataclasses.replace(
        BASE,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, original_max_position=16),
        rope_theta=500.0,
        qk_norm=True,
    ),
    "gemma": dataclasses.replace(
        BASE,
        sliding_window=5,
        global_every=2,
        local_rope_theta=100.0,
        qk_norm=True,
        post_norms=True,
        attn_soft_cap=5.0,
        logit_soft_cap=10.0,
        norm_offset=1.0,
        embed_scale=True,
        activation="gelu_tanh",
        query_scale=0.2,
    ),
    "biases": dataclasses.replace(BASE, qkv_bias=True, out_bias=True, mlp_bias=True, tie_embeddings=False),
    "windowed": dataclasses.replace(BASE, sliding_window=4),
}


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Each test compiles for a few calls only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# Compiled whole: op by op, the same calls take many times longer.
forward = jax.jit(transformer.forward, static_argnames=("config",))
prefill = jax.jit(cache.prefill, static_argnames=("config",))


@functools.partial(jax.jit, static_argnames=("config",))
def extend(p, tokens, start, prefix, suffix, config):
    return cache.extend(params.unstack_layers(p), tokens, start, prefix, suffix, config)


def perturbed(config, heads: tuple[params.Head, ...] = ("vocab",), seed=0):
    """Parameters like initial ones, with noise on every leaf: zero biases and unit scales are exercised too."""
    rng = np.random.default_rng(seed)
    centre = {"normal": 0.0, "zeros": 0.0, "ones": 1.0, "norm_scale": 1.0 - config.norm_offset}

    def leaf(spec):
        spread = 0.1 + (spec.fan_in**-0.5 if spec.init == "normal" else 0.0)
        return jnp.asarray(centre[spec.init] + spread * rng.normal(size=spec.shape), spec.dtype)

    return jax.tree.map(leaf, params.spec(config, heads))


@functools.cache
def error(config):
    """How far two ways to run a model may lie apart; its longest sums are those of the MLP."""
    tokens = draw(9, 2, 12)
    run = functools.partial(forward, tokens_BT=tokens, positions_BT=positions(tokens), config=config)
    return rounding.noise(run, perturbed(config), config.d_ff)


def positions(tokens):
    return jnp.asarray(np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape))


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 50, shape), jnp.int32)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_token_never_sees_what_follows(name):
    config = CONFIGS[name]
    p = perturbed(config)
    tokens = draw(1, 2, 12)
    changed = tokens.at[:, 7].set((tokens[:, 7] + 1) % 50)
    a, b = (forward(p, t, positions(t), config) for t in (tokens, changed))
    # The same program, in which what follows has a weight of 0: not even rounding differs.
    np.testing.assert_array_equal(a[:, :7], b[:, :7])
    assert not np.allclose(a[:, 7:], b[:, 7:], rtol=0, atol=error(config)), "the changed token had no effect at all"


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_examples_do_not_see_each_other(name):
    config = CONFIGS[name]
    p = perturbed(config)
    first, second = (draw(k, 1, n) for k, n in ((1, 6), (2, 8)))
    packed = jnp.concatenate([first, second, jnp.zeros((1, 3), jnp.int32)], axis=1)
    segments = jnp.array([[1] * 6 + [2] * 8 + [0] * 3])
    where = jnp.array([[*range(6), *range(8), 0, 0, 0]])
    together = forward(p, packed, where, config, segment_ids_BT=segments)[0]
    # Causal: what pads the first on the right does not change it.
    alone = jnp.concatenate([jnp.pad(first, ((0, 0), (0, 2))), second])
    alone = forward(p, alone, positions(alone), config)
    np.testing.assert_allclose(together[:6], alone[0, :6], rtol=0, atol=error(config))
    np.testing.assert_allclose(together[6:14], alone[1], rtol=0, atol=error(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_passes_equal_the_full_pass_at_every_position(name):
    """Prompts of different lengths, an empty one too, rows read in chunks of ragged starts."""
    config = CONFIGS[name]
    p = perturbed(config)
    Q, N, P, S = 3, 2, 7, 12
    lengths = np.array([7, 3, 0])
    prompts, rows = draw(3, Q, P), draw(4, Q * N, S)
    prefix = prefill(p, prompts, jnp.asarray(lengths), config)
    suffix = cache.empty_suffix(config, Q * N, S)
    got, start = [], 0
    for chunk in (5, 1, 1, 5):
        at = jnp.full((Q * N,), start)
        hidden, suffix = extend(p, rows[:, start : start + chunk], at, prefix, suffix, config)
        got.append(hidden)
        start += chunk
    got = jnp.concatenate(got, axis=1)
    full = np.zeros((Q * N, P + S), np.int32)
    for b, used in enumerate(np.repeat(lengths, N)):
        full[b, : used + S] = np.concatenate([prompts[b // N, :used], rows[b]])
    want = forward(p, jnp.asarray(full), positions(full), config)
    for b, used in enumerate(np.repeat(lengths, N)):
        np.testing.assert_allclose(got[b], want[b, used : used + S], rtol=0, atol=error(config))


def test_rows_of_different_lengths_extend_side_by_side():
    p = perturbed(BASE)
    prompts, rows = (draw(k, 2, n) for k, n in ((1, 4), (2, 8)))
    prefix = prefill(p, prompts, jnp.array([4, 2]), BASE)
    suffix = cache.empty_suffix(BASE, 2, 8)
    _, suffix = extend(p, rows[:, :5], jnp.zeros((2,), jnp.int32), prefix, suffix, BASE)
    # Row 0 goes back to slot 2: what it held from there on must be overwritten or unseen.
    tokens = jnp.stack([rows[0, 2:5], rows[1, 5:8]])
    hidden, _ = extend(p, tokens, jnp.array([2, 5]), prefix, suffix, BASE)
    full = jnp.stack(
        [jnp.concatenate([prompts[0], rows[0]]), jnp.concatenate([prompts[1, :2], rows[1], prompts[1, 2:]])]
    )
    want = forward(p, full, positions(full), BASE)
    np.testing.assert_allclose(hidden[0], want[0, 6:9], rtol=0, atol=error(BASE))
    np.testing.assert_allclose(hidden[1], want[1, 7:10], rtol=0, atol=error(BASE))


def test_slots_past_the_end_are_not_written():
    p = perturbed(BASE)
    prefix = prefill(p, jnp.zeros((1, 2), jnp.int32), jnp.array([2]), BASE)
    before = cache.empty_suffix(BASE, 1, 4)
    tokens = jnp.ones((1, 3), jnp.int32)
    _, after = extend(p, tokens, jnp.array([4]), prefix, before, BASE)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def test_remat_changes_no_gradient():
    config = CONFIGS["gemma"]
    p = perturbed(config)
    tokens = draw(1, 2, 6)

    def gradient(config):
        def loss(p):
            hidden = transformer.forward(p, tokens, positions(tokens), config)
            return heads.logits(p, hidden, config).var()

        return jax.jit(jax.grad(loss))

    plain, again = (gradient(dataclasses.replace(config, remat=remat)) for remat in (False, True))
    allowed = rounding.noise(plain, p, config.d_ff)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain(p)))
    assert allowed < 1e-3 * largest, "a gradient that is wrong would pass"
    for a, b in zip(jax.tree.leaves(plain(p)), jax.tree.leaves(again(p)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def test_dropout_only_with_a_key_and_the_same_for_the_same_key():
    config = dataclasses.replace(BASE, dropout=0.5)
    p = perturbed(config)
    tokens = jnp.ones((1, 5), jnp.int32)

    def run(key):
        return forward(p, tokens, positions(tokens), config, dropout_key=key)

    plain = forward(p, tokens, positions(tokens), BASE)
    np.testing.assert_array_equal(run(None), plain)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not np.allclose(run(jax.random.key(1)), run(jax.random.key(2)))


def test_attention_sees_relative_positions_only():
    """Rotary embeddings: moving all positions by the same amount changes nothing."""
    # Frequencies 1, 1/4, 1/16 and 1/64: no angle rounds, however large it is.
    config = dataclasses.replace(BASE, rope_theta=256.0)
    p, tokens = perturbed(config), draw(1, 1, 9)
    a = forward(p, tokens, positions(tokens), config)
    b = forward(p, tokens, positions(tokens) + 37, config)
    np.testing.assert_allclose(a, b, rtol=0, atol=error(config))


def test_bfloat16_stays_close_to_float32():
    p = perturbed(BASE)
    tokens = draw(1, 2, 9)
    full = forward(p, tokens, positions(tokens), BASE)
    half = forward(p, tokens, positions(tokens), dataclasses.replace(BASE, dtype="bfloat16"))
    assert half.dtype == jnp.bfloat16
    # Some 20 results a layer round, and as often up as down: sqrt(40) roundings, of which each is half of the largest.
    mean = rounding.of(0.5 * math.sqrt(2 * 20), "bfloat16")
    assert float(jnp.abs(half.astype(jnp.float32) - full).mean()) < 2 * mean * float(jnp.abs(full).mean())


def test_grouped_heads_equal_repeated_key_heads():
    """Grouped-query attention is multi-head attention whose key/value heads are copied to their groups."""
    wide = dataclasses.replace(BASE, num_kv_heads=4)
    p = perturbed(BASE)
    copied = jax.tree.map(lambda x: x, p)
    for name in ("k", "v"):
        copied["layers"]["attention"][name] = jnp.repeat(p["layers"]["attention"][name], 2, axis=2)
    tokens = draw(1, 2, 9)
    np.testing.assert_allclose(
        forward(p, tokens, positions(tokens), BASE),
        forward(copied, tokens, positions(tokens), wide),
        rtol=0,
        atol=error(BASE),
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_one_table_gives_values_shapes_and_axes(name):
    config = CONFIGS[name]
    kinds: tuple[tuple[params.Head, ...], ...] = (("vocab",), ("value",))
    for which in kinds:
        tree = jax.eval_shape(lambda key, which=which: params.init(key, config, which), jax.random.key(0))
        abstract = params.abstract(config, which)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
        for leaf in jax.tree.leaves(params.spec(config, which)):
            assert len(leaf.axes) == len(leaf.shape)
        assert params.count(tree) == sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_a_new_parameter_leaves_the_others_as_they_were():
    def one_leaf(config, heads):
        return jax.jit(lambda key: params.init(key, config, heads)["layers"]["attention"]["out"])(jax.random.key(0))

    np.testing.assert_array_equal(one_leaf(BASE, ("vocab",)), one_leaf(BIASED, ("vocab", "value")))


def test_tied_head_is_the_embedding():
    p = perturbed(BASE)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 32))
    h, e = (np.asarray(x, np.float64) for x in (hidden, p["embed"].T))
    off = np.abs(heads.logits(p, hidden, BASE) - h @ e)
    assert (off <= rounding.of_sum(np.abs(h) @ np.abs(e), BASE.d_model)).all()
    assert "unembed" in params.spec(CONFIGS["biases"])


def test_value_head_starts_at_zero():
    p = {"value": jax.jit(lambda key: params.init(key, BASE, ("value",))["value"])(jax.random.key(0))}
    assert (heads.value(p, jnp.ones((2, 3, 32))) == 0).all()
    assert heads.value(p, jnp.ones((2, 3, 32))).shape == (2, 3)
