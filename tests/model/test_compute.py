"""FLOPs: against loops over tokens, against counted parameters, and against what XLA says of a compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import rows as state
from ttcjax.model import cache, flops, heads, params, transformer
from ttcjax.text.step_marks import StepMarks
from ttcjax.verify import value_head
from ttcjax.verify.value_head import ValueHead

SHAPE = ModelConfig(vocab_size=512, num_layers=2, d_model=256, d_ff=512, num_heads=8, num_kv_heads=8, head_dim=32)
MODELS = {
    "llama": dataclasses.replace(SHAPE, num_kv_heads=2, tie_embeddings=False),
    "qwen": dataclasses.replace(SHAPE, qkv_bias=True, qk_norm=True),
    "gemma": dataclasses.replace(
        SHAPE,
        num_kv_heads=4,
        post_norms=True,
        embed_scale=True,
        activation="gelu_tanh",
        sliding_window=48,
        global_every=2,
    ),
}
ROWS, PREFIX, SLOTS = 4, 96, 33
"""Shape of the cached programs: rows of one question, slots of its prefix, and slots of a row's own."""


def shapes(config, *heads_):
    return jax.eval_shape(lambda: params.unstack_layers(params.init(jax.random.key(0), config, heads_)))


def counted_by_xla(fn, *arguments):
    cost = jax.jit(fn).lower(*arguments).compile().cost_analysis()
    assert cost is not None
    return cost["flops"]


def ints(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def keys_or_values(config, rows, slots):
    shape = (rows, config.num_kv_heads, slots, config.head_dim)
    return (jax.ShapeDtypeStruct(shape, jnp.float32),) * config.num_layers


def caches(config):
    """Keys and values of a prefix, and of rows: arguments, since XLA would fold what it knows to be zero."""
    return (keys_or_values(config, 1, PREFIX),) * 2, (keys_or_values(config, ROWS, SLOTS),) * 2


def as_caches(prefix, suffix, length):
    shared = cache.PrefixCache(k=prefix[0], v=prefix[1], length_Q=length)
    return shared, cache.SuffixCache(k=suffix[0], v=suffix[1])


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_prompt_costs_what_xla_counts(config):
    """Within 5%: XLA counts norms, rotations and softmax too, and keys that are masked."""
    tokens = 128

    def run(tree, row):
        hidden = transformer.forward(tree, row, jnp.arange(tokens)[None], config)
        return heads.logits(tree, hidden[:, -1:], config)

    row = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    found = counted_by_xla(run, shapes(config, "vocab"), row)
    assert found == pytest.approx(flops.forward(config, tokens, masked=True), rel=0.05)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_filling_a_cache_costs_what_xla_counts(config):
    """Within 5%, which a whole last layer, half the work here, would not be."""

    def run(tree, tokens, length):
        return cache.prefill(tree, tokens, length, config)

    found = counted_by_xla(run, shapes(config, "vocab"), ints(1, PREFIX), ints(1))
    assert found == pytest.approx(flops.prefill(config, PREFIX, masked=True), rel=0.05)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_token_of_the_engines_loop_costs_what_xla_counts(config):
    """Within 5%. XLA counts the body of the sampling loop once, which is one token of each row, over all slots of the
    padded caches; the draw is greedy, which compiles faster."""

    def run(tree, prefix, suffix, length):
        prefix, suffix = as_caches(prefix, suffix, length)
        zeros, sampler, marks = (
            jnp.zeros((ROWS,), jnp.int32),
            SamplerConfig(temperature=0.0),
            StepMarks.of_ids((2,), (3,)),
        )
        keys = state.row_keys(0, zeros.astype(jnp.uint32), zeros.astype(jnp.uint32))
        rows = state.start(zeros, zeros + SLOTS, keys, zeros > 0, SLOTS, suffix)
        return state.decode(tree, prefix, rows, zeros, config, sampler, marks, max_new=SLOTS - 1, one_step=False)

    found = counted_by_xla(run, shapes(config, "vocab"), *caches(config), ints(1))
    assert found == pytest.approx(ROWS * flops.decode_step(config, PREFIX + SLOTS), rel=0.05)


@pytest.mark.parametrize("likelihood", [False, True], ids=["value alone", "likelihood"])
def test_a_chunk_of_the_verifier_costs_what_xla_counts(likelihood):
    """The body of the reading loop, counted once, over all slots; the vocabulary product only with the likelihood."""
    config, judge, chunk = MODELS["llama"], ValueHead(likelihood), 16

    def run(tree, prefix, suffix, length, tokens, until):
        prefix, suffix = as_caches(prefix, suffix, length)
        zeros, hidden = jnp.zeros((ROWS,)), jnp.zeros((ROWS, config.d_model))
        reading = value_head.Reading(cache=suffix, read=zeros.astype(jnp.int32), hidden=hidden, least=zeros)
        fed = judge.feed(tokens, until, jnp.ones_like(until), tokens > 0)
        return judge.read(tree, prefix, reading, fed, config, chunk)

    arguments = (shapes(config, *judge.heads), *caches(config), ints(1), ints(ROWS, SLOTS), ints(ROWS))
    found = counted_by_xla(run, *arguments)
    logits = chunk if likelihood else 0
    expected = flops.forward(config, chunk, before=PREFIX + SLOTS - chunk, logits=logits, masked=True)
    assert found == pytest.approx(ROWS * expected, rel=0.05)


def seen(token, window):
    return min(token + 1, window) if window else token + 1


@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.none() | st.integers(1, 50),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_a_row_is_the_sum_of_its_tokens(tokens, before, window, every, layers):
    config = ModelConfig(vocab_size=7, num_layers=layers, sliding_window=window, global_every=every)
    total = tokens * flops.head(config)
    for number in range(layers):
        local = window if not (every and (number + 1) % every == 0) else None
        keys = sum(seen(before + t, local) for t in range(tokens))
        total += tokens * flops.layer(config) + 4 * config.num_heads * config.head_dim * keys
    assert flops.forward(config, tokens, before=before, logits=tokens) == pytest.approx(total)


@given(st.integers(1, 30), st.integers(1, 30), st.none() | st.integers(1, 40))
def test_reading_in_two_pieces_costs_the_same(first, second, window):
    config = ModelConfig(vocab_size=7, sliding_window=window)
    whole = flops.forward(config, first + second, logits=0)
    pieces = flops.forward(config, first, logits=0) + flops.forward(config, second, before=first, logits=0)
    assert whole == pytest.approx(pieces)


def test_the_rule_of_thumb_is_near_for_short_rows():
    """2 P a token leaves out attention and norms; a row of one token hardly has any."""
    config = MODELS["llama"]
    tree = jax.eval_shape(lambda: params.init(jax.random.key(0), config))
    count = sum(leaf.size for leaf in jax.tree.leaves(tree)) - config.vocab_size * config.d_model  # no product to embed
    assert flops.forward(config, 1) == pytest.approx(flops.inference(count, 1), rel=0.01)
    assert flops.training(count, 3) == 3 * flops.inference(count, 3)


@given(st.integers(1, 30), st.integers(0, 40), st.none() | st.integers(1, 50), st.integers(0, 2))
def test_a_sampled_row_is_the_sum_of_its_steps(tokens, before, window, every):
    """One step for each token drawn, each over the keys that its query sees."""
    config = ModelConfig(vocab_size=7, sliding_window=window, global_every=every)
    steps = [flops.forward(config, 1, before=before + t) for t in range(tokens)]
    assert flops.decode(config, tokens, before=before) == pytest.approx(sum(steps))
    full = dataclasses.replace(config, sliding_window=None)
    assert flops.decode_step(full, before + tokens) == pytest.approx(flops.forward(full, 1, before=before + tokens - 1))


@given(st.integers(1, 30), st.integers(0, 40))
def test_a_verifier_pays_for_the_vocabulary_only_where_it_looks_at_it(tokens, before):
    config = ModelConfig(vocab_size=7)
    least = ValueHead().flops(config, tokens, before=before)
    assert ValueHead(likelihood=True).flops(config, tokens, before=before) - least == pytest.approx(
        (tokens - 1) * flops.head(config)
    )
    assert flops.decode(config, tokens, before=before) - least == pytest.approx(tokens * flops.head(config))
