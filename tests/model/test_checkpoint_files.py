"""Files of published models: what is wrong with one is one line, and what is right is read without a loss."""

import dataclasses
import json
import os
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from tests import published as references
from ttcjax import cli
from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.engine.loading import load_engine
from ttcjax.model import params
from ttcjax.model.families import known
from ttcjax.model.families.settings import Settings
from ttcjax.model.importers import conversion, published, safetensors_files
from ttcjax.model.importers.export import export
from ttcjax.runtime.errors import UserError

LLAMA = references.load("llama")
GEMMA = references.load("gemma3")


def opened(path):
    return published.open_published(published.recognise(str(path)))


def shards(folder, reference=LLAMA, **changed):
    """Write a checkpoint in two shards and its index; return the names of the tensors in each."""
    reference.write(folder, **changed)
    (folder / "model.safetensors").unlink()
    keys = sorted(reference.tensors)
    parts = {"model-1.safetensors": keys[: len(keys) // 2], "model-2.safetensors": keys[len(keys) // 2 :]}
    for name, part in parts.items():
        safetensors.numpy.save_file({key: reference.tensors[key] for key in part}, folder / name)
    weight_map = {key: name for name, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return parts


def test_shards_are_read_as_one_file(tmp_path):
    shards(tmp_path / "shards")
    whole, parts = opened(LLAMA.write(tmp_path / "whole")).load(), opened(tmp_path / "shards").load()
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_numbers_of_every_float_type_are_read(tmp_path):
    for kind in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        arrays = {key: np.ascontiguousarray(value, kind) for key, value in LLAMA.tensors.items()}
        LLAMA.write(tmp_path)
        safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
        for dtype in ("float32", "bfloat16"):
            tree = opened(tmp_path).load(dtype)
            assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {dtype}
            # Whole multiples of 1/64 below 2 have at most 7 binary digits: no type here rounds them.
            np.testing.assert_array_equal(tree["embed"].astype(np.float32), LLAMA.tensors["model.embed_tokens.weight"])


def test_what_is_written_is_read_by_the_library_of_the_format(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones((0, 4), ml_dtypes.bfloat16),
        "c": np.array(2.5),
    }
    told = {"a": ("F32", (2, 3)), "b": ("BF16", (0, 4)), "c": ("F64", ())}
    safetensors_files.write(tmp_path / "x.safetensors", told, iter(arrays.values()))
    found = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found, arrays)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_more_than_two_tensors_are_in_memory_beside_the_model(tmp_path, dtype):
    config = ModelConfig(vocab_size=8000, num_layers=6, d_model=128, d_ff=512, tie_embeddings=False)
    tree = jax.tree.map(lambda spec: np.ones(spec.shape, dtype), params.spec(config))
    export(tree, config, tmp_path, shard_bytes=10**6)
    size = np.dtype(dtype).itemsize
    largest, whole = 8000 * 128 * size, params.count(tree) * size
    assert whole > 3 * largest
    found = opened(tmp_path)
    tracemalloc.start()
    try:
        found.load(dtype, put=lambda array: None)
        dropped = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        found.load(dtype, stacked=True)
        kept = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        conversion.convert(found.place, tmp_path / "run", dtype=dtype)
        converted = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slack = 200_000  # Names, and a block of rows that is turned.
    assert dropped < 2 * largest + slack
    assert converted < 2 * largest + slack
    assert kept < whole + 2 * largest + slack


def _truncate(path, less=7):
    path.write_bytes(path.read_bytes()[:-less])


def _rewrite(folder, change):
    arrays = dict(LLAMA.tensors)
    change(arrays)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")


def _index(folder, change):
    path = folder / "model.safetensors.index.json"
    told = json.loads(path.read_text())
    change(told["weight_map"])
    path.write_text(json.dumps(told))


def _less(folder, names):
    arrays = {key: LLAMA.tensors[key] for key in names if key != "model.norm.weight"}
    safetensors.numpy.save_file(arrays, folder / "model-2.safetensors")


UP = "model.layers.1.mlp.up_proj.weight"
BAD_FILES = {
    r"lacks the shard model-2\.safetensors": lambda at: (shards(at), (at / "model-2.safetensors").unlink()),
    r"tensor model.norm.weight is missing in model-2.safetensors": lambda at: _less(
        at, shards(at)["model-2.safetensors"]
    ),
    r"tensor lm_head.weight is in model-1.safetensors, and .*index.json has it in model-2": lambda at: (
        shards(at),
        _index(at, lambda told: told.update({"lm_head.weight": "model-2.safetensors"})),
    ),
    r"is in model-1.safetensors and in model-2.safetensors": lambda at: (
        shards(at),
        safetensors.numpy.save_file(LLAMA.tensors, at / "model-2.safetensors"),
        _index(
            at, lambda told: told.update(dict.fromkeys(LLAMA.tensors, "model-1.safetensors"), x="model-2.safetensors")
        ),
    ),
    "is no index of safetensors files": lambda at: (shards(at), _truncate(at / "model.safetensors.index.json")),
    "files of other folders": lambda at: (shards(at), _index(at, lambda told: told.update(x="../x.safetensors"))),
    "neither model.safetensors nor model.safetensors.index.json": lambda at: (
        shards(at),
        (at / "model.safetensors.index.json").unlink(),
    ),
    "pickle file, which can run code": lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
    "no model.safetensors in": lambda at: (at / "model.safetensors").unlink(),
    "is cut short: the numbers of": lambda at: _truncate(at / "model.safetensors"),
    "its header alone has": lambda at: (at / "model.safetensors").write_bytes(
        (at / "model.safetensors").read_bytes()[:90]
    ),
    "its first bytes are no length of a header": lambda at: (at / "model.safetensors").write_bytes(b"\x80\x02}q" * 9),
    "its tensors end after": lambda at: (at / "model.safetensors").write_bytes(
        (at / "model.safetensors").read_bytes() + b"more"
    ),
    rf"tensor {UP} is missing, and 1 other": lambda at: _rewrite(
        at, lambda all_: (all_.pop(UP), all_.pop(UP.replace("up_proj", "down_proj")))
    ),
    "tensor score.weight is unexpected": lambda at: _rewrite(
        at, lambda all_: all_.update({"score.weight": np.zeros((1, 16), np.float32)})
    ),
    rf"tensor {UP} has shape 24x15, and its config makes that 24x16": lambda at: _rewrite(
        at, lambda all_: all_.update({UP: np.zeros((24, 15), np.float32)})
    ),
    r"tensor model.embed_tokens.weight is of type I8: weights that another program has quantised": lambda at: _rewrite(
        at, lambda all_: all_.update({"model.embed_tokens.weight": np.zeros((40, 16), np.int8)})
    ),
    "no config.json in": lambda at: (at / "config.json").unlink(),
    "config.json is no table of JSON": lambda at: _truncate(at / "config.json"),
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_a_bad_file_is_one_line(tmp_path, message):
    BAD_FILES[message](LLAMA.write(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        published.open_published(published.Place("hf", epath.Path(tmp_path))).load()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


BAD_CONFIGS = {
    "model_type 'bert' is not known; known: llama": {"model_type": "bert"},
    "model_type is missing": {"model_type": None},
    "architectures is LlamaForSequenceClassification": {"architectures": ["LlamaForSequenceClassification"]},
    "hidden_size must be a whole number, not '16'": {"hidden_size": "16"},
    "num_hidden_layers must be positive, not -3": {"num_hidden_layers": -3},
    "num_hidden_layers must be at most 10,000": {"num_hidden_layers": 10**9},
    "num_hidden_layers must be a whole number, not True": {"num_hidden_layers": True},
    "vocab_size is missing": {"vocab_size": None},
    "model.num_kv_heads .3. must divide": {"num_key_value_heads": 3},
    "hidden_act 'relu' is not known": {"hidden_act": "relu"},
    "rope_type 'mrope' is not known": {"rope_scaling": {"rope_type": "mrope", "factor": 2.0}},
    "mrope_section is not known": {"rope_scaling": {"rope_type": "default", "mrope_section": [1]}},
    "rope_scaling: factor is missing": {"rope_scaling": {"type": "linear"}},
    "short_factor must hold 2 numbers": {
        "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "factor": 2.0}
    },
    "rope_parameters of sliding_attention differ": {
        "rope_parameters": {"full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_theta": 6.0}}
    },
    "partial_rotary_factor is not 1": {"partial_rotary_factor": 0.5},
    "quantization_config is set": {"quantization_config": {"quant_method": "awq"}},
    "tensor .* is missing, and": {"num_hidden_layers": 4},
    "tensor model.layers.2.* is unexpected": {"num_hidden_layers": 2},
    "has shape 40x16, and its config makes that 41x16": {"vocab_size": 41},
    "lm_head.weight is there and differs from model.embed_tokens.weight": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("message", BAD_CONFIGS)
def test_a_wrong_config_is_one_line_that_names_the_key(tmp_path, message):
    LLAMA.write(tmp_path, **BAD_CONFIGS[message])
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_names_of_other_layouts_are_understood(tmp_path):
    """A base model has names without the prefix, a tied head may be written out, old files hold rotary buffers, and a
    model of images has its text inside."""
    tied = references.load("llama_biases")
    inner = {key.removeprefix("model."): value for key, value in tied.tensors.items()}
    folder = tied.write(tmp_path / "base")
    safetensors.numpy.save_file(inner, folder / "model.safetensors")
    want = opened(tied.write(tmp_path / "plain")).load()
    jax.tree.map(np.testing.assert_array_equal, opened(folder).load(), want)
    more = {
        "lm_head.weight": tied.tensors["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    safetensors.numpy.save_file(tied.tensors | more, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, opened(folder).load(), want)
    wrapped = {f"language_model.{key}": value for key, value in GEMMA.tensors.items()}
    wrapped["vision_tower.embeddings.weight"] = np.ones((3, 3), np.float32)
    folder = GEMMA.write(tmp_path / "images", model_type="gemma3", text_config=GEMMA.config)
    safetensors.numpy.save_file(wrapped, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, opened(folder).load(), opened(GEMMA.write(tmp_path / "text")).load())
    twice = GEMMA.tensors | {"language_model.model.norm.weight": np.ones(16, np.float32)}
    safetensors.numpy.save_file(twice, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"tensor model\.norm\.weight is there twice, as"):
        opened(folder).load()


PUBLISHED = {
    # Entries that decide the shape, as the models' makers publish them.
    "gemma-3-4b": (
        {
            "model_type": "gemma3",
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
        },
        3_880_263_168,
    ),
    "Llama-3.2-1B": (
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
        1_235_814_400,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_as_many_parameters_as_their_makers_say(name):
    told, count = PUBLISHED[name]
    file = Settings(told)
    assert params.count(params.abstract(known.of_file(file).from_hf(file))) == count


def test_a_shape_that_no_family_has_is_not_written():
    config = known.of_file(Settings(GEMMA.config)).from_hf(Settings(GEMMA.config))
    with pytest.raises(UserError, match="no known family has models with these options together"):
        known.of_shape(from_dict(type(config), {"vocab_size": 40, "mlp_bias": True, "qk_norm": True}))


# Commands, and names of models.


def run(capfd, *arguments):
    status = cli.main(list(map(str, arguments)))
    return status, *capfd.readouterr()


def test_inspecting_tells_what_there_is_and_ends_by_what_is_wrong(tmp_path, capfd):
    status, out, _ = run(capfd, "models", "inspect", LLAMA.write(tmp_path))
    assert status == 0
    assert "family       llama" in out
    assert "missing      tokenizer, chat template" in out
    _truncate(tmp_path / "config.json")
    bad = {tmp_path: "no table of JSON", tmp_path / "x": "there is no model at", "xx:y": "no form"}
    for path, message in bad.items():
        status, out, error = run(capfd, "models", "inspect", path)
        assert (status, out) == (2, "")
        assert message in error
        assert error.count("\n") == 1
    LLAMA.write(tmp_path, num_hidden_layers=2)
    status, out, error = run(capfd, "models", "inspect", f"hf:{tmp_path}")
    assert status == 2
    assert "family       llama" in out
    assert "is unexpected" in error


def test_an_imported_model_is_the_same_model(tmp_path, capfd):
    LLAMA.write(tmp_path / "in")
    (tmp_path / "in" / "tokenizer.json").write_text("{}")
    arguments = ("import", tmp_path / "in", "--workdir", tmp_path / "run", "--dtype", "bfloat16")
    status, out, _ = run(capfd, *arguments)
    assert status == 0
    folder = tmp_path / "run" / "models" / "policy"
    assert out == f"hf:{folder}\n"
    assert (folder / "tokenizer.json").exists(), "a later command needs the tokenizer, wherever the source has gone"
    want = opened(tmp_path / "in").load("bfloat16", stacked=True)
    jax.tree.map(np.testing.assert_array_equal, opened(folder).load("bfloat16", stacked=True), want)
    assert set(opened(folder).tensors.dtypes()) == {"BF16"}
    assert run(capfd, "models", "inspect", folder)[0] == 0
    assert run(capfd, "models", "export", folder, tmp_path / "out")[0] == 0
    jax.tree.map(np.testing.assert_array_equal, opened(tmp_path / "out").load("bfloat16", stacked=True), want)
    assert run(capfd, "models", "export", folder, tmp_path / "out")[0] == 2, "what is there would be mixed with it"
    status, _, error = run(capfd, *arguments)
    assert status == 2
    assert "is there already: choose another --name" in error
    assert os.listdir(folder.parent) == ["policy"]


def test_engines_take_models_by_name(tmp_path, tiny):
    """A model of our own, written for others, is the same under its new name, with the tokenizer beside it."""
    model, settings = tiny.policy, SamplerConfig(max_tokens=8)
    export(model.params, model.config, tmp_path / "hf")
    tiny.tokenizer.save(tmp_path / "hf" / "tokenizer.model")
    name = f"hf:{tmp_path / 'hf'}"
    engine = load_engine(None, settings, policy=name, verifier=None)
    assert engine.tokenizer.fingerprint == tiny.tokenizer.fingerprint
    assert dataclasses.replace(engine.policy_config, query_scale=None) == model.config
    jax.tree.map(np.testing.assert_array_equal, engine.policy, params.unstack_layers(model.params))
    with pytest.raises(UserError, match="policy is the name of a stage: give the workdir"):
        load_engine(None, settings, verifier=None)
    (tmp_path / "hf" / "tokenizer.model").unlink()
    with pytest.raises(UserError, match="holds neither tokenizer"):
        load_engine(None, settings, policy=name, verifier=None)
