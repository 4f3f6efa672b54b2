"""Parameters in the layout of Hugging Face checkpoints, for the Llama, Qwen2 and Qwen3 families."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ttcjax.config import ModelConfig
from ttcjax.model.params import Params, spec
from ttcjax.runtime.errors import UserError

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def model_type(config: ModelConfig) -> str:
    """Return the family whose code runs a model of this shape.

    Raises:
        UserError: None of the families known here does.
    """
    plain = config.activation == "silu" and not (
        config.norm_offset
        or config.post_norms
        or config.embed_scale
        or config.attn_soft_cap
        or config.logit_soft_cap
        or config.sliding_window
        or config.mlp_bias
        or config.out_bias
        or config.query_scale
        or config.rope_scaling.kind != "none"
    )
    if plain and config.qk_norm != config.qkv_bias:
        return "qwen3" if config.qk_norm else "qwen2"
    if plain and not config.qk_norm:
        return "llama"
    raise UserError("this model has options that only other families have: Llama, Qwen2 and Qwen3 can be written")


def _names(config: ModelConfig) -> Iterator[tuple[str, tuple[Any, ...], bool]]:
    """Yield (Hugging Face name, our path with layers as a list, whether it is a matrix `[out, in]`)."""
    yield "model.embed_tokens.weight", ("embed",), False
    yield "model.norm.weight", ("final_norm",), False
    if not config.tie_embeddings:
        yield "lm_head.weight", ("unembed",), True
    for i in range(config.num_layers):
        at, layer = f"model.layers.{i}", ("layers", i)
        yield f"{at}.input_layernorm.weight", (*layer, "attention", "norm"), False
        yield f"{at}.post_attention_layernorm.weight", (*layer, "mlp", "norm"), False
        for ours, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("out", "o_proj")):
            yield f"{at}.self_attn.{theirs}.weight", (*layer, "attention", ours), True
            if ours != "out" and config.qkv_bias:
                yield f"{at}.self_attn.{theirs}.bias", (*layer, "attention", f"{ours}_bias"), False
        if config.qk_norm:
            for ours in ("q_norm", "k_norm"):
                yield f"{at}.self_attn.{ours}.weight", (*layer, "attention", ours), False
        for ours in ("gate", "up", "down"):
            yield f"{at}.mlp.{ours}_proj.weight", (*layer, "mlp", ours), True


def _shape(specs: Params, path: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of one of our leaves; in the table the layers are stacked."""
    node: Any = specs
    for key in (path[0], *path[2:]) if path[0] == "layers" else path:
        node = node[key]
    return node.shape[1:] if path[0] == "layers" else node.shape


def export(params: Params, config: ModelConfig, folder: str | pathlib.Path) -> None:
    """Write a model with a vocabulary head as `config.json` and `model.safetensors` into `folder`.

    Args:
        params: Layers stacked or as a list.
        config: Its shape.
        folder: Made where it is missing.

    Raises:
        UserError: No known family has this shape, or safetensors is not installed.
    """
    kind = model_type(config)
    save_file = _safetensors("save_file")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def leaf(path: tuple[Any, ...]) -> np.ndarray:
        stacked = path[0] == "layers" and not isinstance(params["layers"], list)
        node: Any = params
        for key in (path[0], *path[2:]) if stacked else path:
            node = node[key]
        return np.asarray(node[path[1]] if stacked else node)

    tensors = {}
    for name, path, is_matrix in _names(config):
        array = leaf(path)
        if is_matrix:  # [in, out], either of which may be heads and head size.
            array = array.reshape((-1, array.shape[-1]) if path[-1] == "out" else (array.shape[0], -1)).T
        elif array.ndim == 2 and path != ("embed",):
            array = array.reshape(-1)
        tensors[name] = np.ascontiguousarray(array)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / _CONFIG).write_text(json.dumps(_describe(config, kind), indent=2))


def _describe(config: ModelConfig, kind: str) -> dict[str, Any]:
    classes = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    return {
        "architectures": [classes[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "torch_dtype": "float32",
    }


def load(folder: str | pathlib.Path, config: ModelConfig, place: Callable[[np.ndarray], Any] = np.asarray) -> Params:
    """Return the parameters that `export` wrote, their layers a list, read and placed one tensor at a time.

    Args:
        folder: Holds `model.safetensors`.
        config: The shape they were written for.
        place: Makes of each array what the tree holds, such as `jax.device_put`.

    Raises:
        UserError: The file or one of its tensors is missing, or one has another shape.
    """
    path = pathlib.Path(folder) / _WEIGHTS
    if not path.exists():
        raise UserError(f"no {_WEIGHTS} in {folder}")
    specs = spec(config)
    tree: Params = {"layers": [{"attention": {}, "mlp": {}} for _ in range(config.num_layers)]}
    for name, target, is_matrix in _names(config):
        # Opened anew for each: what has been read of an open file stays mapped, a second copy of all weights.
        with _safetensors("safe_open")(path, framework="numpy") as file:
            if name not in file.keys():  # noqa: SIM118 (it is no mapping)
                raise UserError(f"{path} has no tensor {name}")
            tensor = np.asarray(file.get_tensor(name))
        array = tensor.T if is_matrix else tensor
        shape = _shape(specs, target)
        # Heads and head size are one axis there.
        flat = (shape[0], math.prod(shape[1:])) if target[-1] != "out" else (math.prod(shape[:-1]), shape[-1])
        if array.shape != (flat if is_matrix else shape if target == ("embed",) else (math.prod(shape),)):
            raise UserError(f"tensor {name} in {path} has shape {tensor.shape}, which is not that of this config")
        node: Any = tree
        for key in target[:-1]:
            node = node[key]
        node[target[-1]] = place(np.ascontiguousarray(array).reshape(shape))
    return tree


def _safetensors(name: str) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise UserError("safetensors is not installed: pip install 'ttcjax[bench]'") from error
    return getattr(safetensors.numpy, name, None) or getattr(safetensors, name)
