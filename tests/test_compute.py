"""FLOPs: against loops over tokens, against counted parameters, and against what XLA says of a compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax import compute
from ttcjax.config import ModelConfig
from ttcjax.model import heads, params, transformer

SHAPE = ModelConfig(vocab_size=512, num_layers=2, d_model=256, d_ff=512, num_heads=8, num_kv_heads=8, head_dim=32)
MODELS = {
    "llama": dataclasses.replace(SHAPE, num_kv_heads=2, tie_embeddings=False),
    "qwen": dataclasses.replace(SHAPE, qkv_bias=True, qk_norm=True),
    "gemma": dataclasses.replace(SHAPE, num_kv_heads=4, post_norms=True, embed_scale=True, activation="gelu_tanh"),
}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_prompt_costs_what_xla_counts(config):
    """Within 5%: XLA counts norms, rotations and softmax too, and keys that are masked."""
    tokens = 128
    tree = jax.eval_shape(lambda: params.unstack_layers(params.init(jax.random.key(0), config)))

    def run(tree, row):
        hidden = transformer.forward(tree, row, jnp.arange(tokens)[None], config)
        return heads.logits(tree, hidden[:, -1:], config)

    row = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    cost = jax.jit(run).lower(tree, row).compile().cost_analysis()
    assert cost is not None
    assert cost["flops"] == pytest.approx(compute.forward(config, tokens, masked=True), rel=0.05)


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
    total = tokens * compute.head(config)
    for number in range(layers):
        local = window if not (every and (number + 1) % every == 0) else None
        keys = sum(seen(before + t, local) for t in range(tokens))
        total += tokens * compute.layer(config) + 4 * config.num_heads * config.head_dim * keys
    assert compute.forward(config, tokens, before=before, logits=tokens) == pytest.approx(total)


@given(st.integers(1, 30), st.integers(1, 30), st.none() | st.integers(1, 40))
def test_reading_in_two_pieces_costs_the_same(first, second, window):
    config = ModelConfig(vocab_size=7, sliding_window=window)
    whole = compute.forward(config, first + second, logits=0)
    pieces = compute.forward(config, first, logits=0) + compute.forward(config, second, before=first, logits=0)
    assert whole == pytest.approx(pieces)


def test_the_rule_of_thumb_is_near_for_short_rows():
    """2 P a token leaves out attention and norms; a row of one token hardly has any."""
    config = MODELS["llama"]
    tree = jax.eval_shape(lambda: params.init(jax.random.key(0), config))
    count = sum(leaf.size for leaf in jax.tree.leaves(tree)) - config.vocab_size * config.d_model  # no product to embed
    assert compute.forward(config, 1) == pytest.approx(compute.inference(count, 1), rel=0.01)
    assert compute.training(count, 3) == 3 * compute.inference(count, 3)
