"""Families of published models: what they compute, against transformers, and how their checkpoints are read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import published as references
from ttcjax.model import cache, heads, transformer
from ttcjax.model.families import known
from ttcjax.model.families.settings import Settings
from ttcjax.model.importers import published
from ttcjax.model.importers.export import export

NAMES = references.names()


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Each test compiles for a few calls only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def opened(folder) -> published.Published:
    found = published.open_published(published.recognise(str(folder)))
    # The text is longer than what the model is stretched from, and no longer than what it is stretched to.
    longest = max(found.config.max_seq_len, 24)
    return dataclasses.replace(found, config=dataclasses.replace(found.config, max_seq_len=longest))


@functools.partial(jax.jit, static_argnames=("config",))
def uncached(tree, tokens_BT, config):
    positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
    return heads.logits(tree, transformer.forward(tree, tokens_BT, positions, config), config)


@functools.partial(jax.jit, static_argnames=("config", "prompt"))
def cached(tree, tokens_T, config, prompt):
    """Logits from the prompt's end on: a shared prefix, rows of different chunks, in a batch with another row."""
    prefix = cache.prefill(tree, tokens_T[None, :prompt], jnp.array([prompt]), config)
    own = tokens_T[prompt:]
    rows = jnp.stack([own, own[::-1]])
    suffix, found = cache.empty_suffix(config, 2, own.size), []
    for start, size in ((0, 5), (5, 1), (6, own.size - 6)):
        chunk = rows[:, start : start + size]
        hidden, suffix = cache.extend(tree, chunk, jnp.full((2,), start), prefix, suffix, config)
        found.append(heads.logits(tree, hidden, config)[0])
    return jnp.concatenate(found)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(tmp_path, name):
    """At every position, in one pass and over caches; the differences are those of rounding."""
    reference = references.load(name)
    found = opened(reference.write(tmp_path))
    tree = found.load()
    assert np.abs(reference.logits).max() > 1, "logits so small would hide an error"
    got = uncached(tree, jnp.asarray(reference.tokens)[None], found.config)[0]
    np.testing.assert_allclose(got, reference.logits, rtol=0, atol=1e-4)
    got = cached(tree, jnp.asarray(reference.tokens), found.config, 11)
    np.testing.assert_allclose(got, reference.logits[11:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_of_a_config_say_the_same(tmp_path, name):
    reference = references.load(name)
    old, new = (Settings(config) for config in (reference.config, reference.config_new))
    family = known.of_file(old)
    assert family.from_hf(old) == family.from_hf(new)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_the_same_checkpoint(tmp_path, name):
    """Name by name and bit by bit that of transformers, in shards too, and its config says the same."""
    reference = references.load(name)
    found = published.open_published(published.recognise(str(reference.write(tmp_path / "in"))))
    for layers, shard_bytes in (("list", 10**9), ("stacked", 3000)):
        tree = found.load(stacked=layers == "stacked")
        folder = tmp_path / layers
        export(tree, found.config, folder, shard_bytes=shard_bytes)
        again = published.open_published(published.recognise(str(folder)))
        assert again.config == found.config
        assert set(again.tensors.shapes) == set(reference.tensors)
        for key, value in reference.tensors.items():
            np.testing.assert_array_equal(again.tensors.read(key), value)
    assert len(list((tmp_path / "stacked").glob("*.safetensors"))) > 2, "no shards were made"
