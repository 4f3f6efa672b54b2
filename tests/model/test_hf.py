"""Checkpoints in the Hugging Face layout: written and read back, and run by transformers where it is installed."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax.config import ModelConfig
from ttcjax.model import heads, hf, params, transformer
from ttcjax.runtime.errors import UserError

BASE = ModelConfig(
    vocab_size=60, num_layers=3, d_model=32, num_heads=4, num_kv_heads=2, head_dim=8, d_ff=48, tie_embeddings=False
)
FAMILIES = {
    "llama": BASE,
    "llama, tied": dataclasses.replace(BASE, tie_embeddings=True, rope_theta=500_000.0),
    "qwen2": dataclasses.replace(BASE, qkv_bias=True, tie_embeddings=True, norm_eps=1e-5),
    "qwen3": dataclasses.replace(BASE, qk_norm=True, head_dim=16),
}


def draw(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.3, s.dtype), params.spec(config))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layers", ["stacked", "list"])
def test_what_is_written_is_read_back(tmp_path, name, layers):
    config = FAMILIES[name]
    tree = draw(config)
    hf.export(tree if layers == "stacked" else params.unstack_layers(tree), config, tmp_path)
    found = hf.load(tmp_path, config)
    jax.tree.map(np.testing.assert_array_equal, found, params.unstack_layers(tree))


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))),
    reason="transformers is not installed: pip install 'ttcjax[bench]'",
)
@pytest.mark.filterwarnings("ignore")  # of another library
@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_computes_the_same_logits(tmp_path, name):
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    config = FAMILIES[name]
    tree = draw(config)
    hf.export(tree, config, tmp_path)
    tokens = np.random.default_rng(1).integers(0, 60, (2, 17))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        want = model(torch.from_numpy(tokens)).logits.numpy()
    positions = jnp.broadcast_to(jnp.arange(17)[None], (2, 17))

    def run(tree):
        hidden = transformer.forward(tree, jnp.asarray(tokens, jnp.int32), positions, config)
        return heads.logits(tree, hidden, config)

    allowed = rounding.noise(run, tree, max(config.d_ff, config.d_model))
    assert allowed < 1e-3, "a difference that is none of rounding would pass"
    np.testing.assert_allclose(run(tree), want, rtol=0, atol=allowed)


def test_a_shape_that_no_family_has_is_refused(tmp_path):
    with pytest.raises(UserError, match="options that only other families have"):
        hf.export(draw(BASE), dataclasses.replace(BASE, logit_soft_cap=30.0), tmp_path)


def test_missing_files_and_tensors_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no model\.safetensors in"):
        hf.load(tmp_path, BASE)
    hf.export(draw(BASE), BASE, tmp_path)
    with pytest.raises(UserError, match=r"has no tensor model\.layers\.0\.self_attn\.q_proj\.bias"):
        hf.load(tmp_path, dataclasses.replace(BASE, qkv_bias=True))
    for other in ({"num_heads": 8}, {"vocab_size": 61}, {"d_ff": 24}, {"num_kv_heads": 4}):
        with pytest.raises(UserError, match="which is not that of this config"):
            hf.load(tmp_path, dataclasses.replace(BASE, **other))
