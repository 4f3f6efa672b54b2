"""GGUF files: written by their library from the tiny references, and read as the same models."""

import jax
import numpy as np
import pytest
from etils import epath

from tests import published as references
from ttcjax.model.families import known
from ttcjax.model.importers import gguf_file, published
from ttcjax.runtime.errors import UserError

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'ttcjax[gguf]'")

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
TWO_NORMS = {"post_attention_layernorm": "ffn_norm"}
FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
# Each with its architecture, and the entries that only some models have.
CASES = {
    "llama": ("llama", {}),
    "qwen2_yarn": (
        "qwen2",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
    ),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2_long": (
        "gemma2",
        {"attention.sliding_window": 40, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
}


def interleave(rows, heads):
    """Put the numbers that rotate together side by side, as converters to GGUF do for Llama."""
    halves = rows.reshape((heads, 2, -1, *rows.shape[1:]))
    return np.swapaxes(halves, 1, 2).reshape(rows.shape)


def write(path, reference, architecture, more, kind=None, rope_factors=None):
    """Write a reference; `kind` is the type of its embeddings."""
    told = reference.config
    heads, kv_heads = told["num_attention_heads"], told["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    entries = {
        "context_length": told["max_position_embeddings"],
        "embedding_length": told["hidden_size"],
        "block_count": told["num_hidden_layers"],
        "feed_forward_length": told["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": told["rms_norm_eps"],
        "attention.key_length": told.get("head_dim") or told["hidden_size"] // heads,
        "rope.freq_base": float(told.get("rope_theta", 10_000.0)),
        **more,
    }
    for name, value in entries.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"piece {i}" for i in range(told["vocab_size"])])
    writer.add_chat_template("{{ messages }}")
    gemma = architecture.startswith("gemma")
    norms = NAMES | (FOUR_NORMS if architecture in ("gemma2", "gemma3") else TWO_NORMS)
    for key, value in reference.tensors.items():
        stem, _, end = key.rpartition(".")
        *_, layer = stem.partition("model.layers.")
        number, _, inner = layer.partition(".")
        name = f"blk.{number}.{norms[inner]}.{end}" if layer else f"{norms[stem]}.{end}"
        if architecture == "llama" and inner in ("self_attn.q_proj", "self_attn.k_proj"):
            value = interleave(value, heads if "q_proj" in inner else kv_heads)
        if gemma and "norm" in name:
            value = value + 1
        if name == "token_embd.weight" and kind is not None:
            value = gguf.quants.quantize(value, kind)
            writer.add_tensor(name, value, raw_dtype=kind)
        else:
            writer.add_tensor(name, value)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path):
    return published.open_published(published.recognise(str(path)))


@pytest.mark.parametrize("name", CASES)
def test_a_gguf_file_is_the_model_it_was_made_from(tmp_path, name):
    reference = references.load(name)
    found = opened(write(tmp_path / "x.gguf", reference, *CASES[name]))
    want = opened(reference.write(tmp_path / "hf"))
    assert found.family == want.family
    assert known.meant(found.config) == known.meant(want.config)
    jax.tree.map(np.testing.assert_array_equal, found.load(), want.load())


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_stored_numbers_are_those_of_the_library(tmp_path, kind):
    """The place and the shape are ours to find; a block that is out of place by one gives other numbers."""
    kind = gguf.GGMLQuantizationType[kind]
    path = write(tmp_path / "x.gguf", references.load("qwen2_yarn"), *CASES["qwen2_yarn"], kind=kind)
    [stored] = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "token_embd.weight"]
    want = gguf.quants.dequantize(stored.data, kind)
    found = opened(path)
    np.testing.assert_array_equal(found.load()["embed"], want)
    assert found.tensors.dtypes()[kind.name] == 1


def test_the_stretch_of_llama_3_comes_as_a_tensor(tmp_path):
    found = opened(write(tmp_path / "x.gguf", references.load("llama"), "llama", {}, rope_factors=(1.0, 3.0)))
    scaling = found.config.rope_scaling
    assert (scaling.short_factor, scaling.long_factor, scaling.attention_factor) == ((1.0, 3.0), (1.0, 3.0), 1.0)
    assert not found.matched.faults


def test_a_bad_gguf_file_is_one_line(tmp_path):
    path = write(tmp_path / "x.gguf", references.load("llama"), "llama", {})
    content = path.read_bytes()
    bad = {
        "is cut short: the numbers of": content[:-9],
        "is cut short or damaged, its header": content[: len(content) // 40],
        "is no GGUF file: it begins with": b"\x80\x04pickle",
        "is of GGUF version 9": content[:4] + b"\x09" + content[5:],
        "architecture 'bloom' is not known": content.replace(b"llama", b"bloom"),
        "has no general.architecture": content.replace(b"general.architecture", b"general.architectura"),
        "embedding_length is missing": content.replace(b"embedding_length", b"embedding_lengfh"),
        "tensor blk.1.ffn_up.weight is missing": content.replace(b"blk.1.ffn_up", b"blk.1.ffn_uq"),
    }
    for message, changed in bad.items():
        path.write_bytes(changed)
        with pytest.raises(UserError, match=message) as caught:
            opened(path).load()
        assert "\n" not in str(caught.value)
    for cut in range(4, len(content), len(content) // 60):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError):
            opened(path)


def test_a_list_of_the_metadata_is_read_when_it_is_asked_for(tmp_path):
    file = gguf_file.GgufFile(epath.Path(write(tmp_path / "x.gguf", references.load("llama"), "llama", {})))
    assert file.metadata["tokenizer.ggml.tokens"].count == 40
    assert file.listed("tokenizer.ggml.tokens")[7] == "piece 7"
