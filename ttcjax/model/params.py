"""One table of parameters a model: it yields initial values, abstract shapes and shardings alike."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import traverse_util

from ttcjax.config import ModelConfig

Params = dict[str, Any]
Head = Literal["vocab", "value", "likelihood"]
"""`likelihood` is a part of the value head: it weighs how likely the model's own vocabulary head finds a token."""


@dataclass(frozen=True)
class ParamSpec:
    """Shape, logical axes and initialisation of one parameter."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    """A logical name for each axis; `ttcjax.parallel` maps the names to mesh axes."""
    init: Literal["normal", "zeros", "ones", "norm_scale"] = "normal"
    fan_in: int = 1
    """Inputs of one output unit: `normal` draws with standard deviation `fan_in ** -0.5`."""
    dtype: Any = jnp.float32


def spec(config: ModelConfig, heads: tuple[Head, ...] = ("vocab",)) -> Params:
    """Return the tree of `ParamSpec` of a model with the given heads.

    Layer parameters have a leading axis `[L, ...]`. The vocabulary head of a model with tied
    embeddings has no parameters of its own.
    """
    L, D, F, V = config.num_layers, config.d_model, config.d_ff, config.vocab_size
    H, K, E = config.num_heads, config.num_kv_heads, config.head_dim

    def norm(width: int, axis: str | None) -> ParamSpec:
        return ParamSpec((L, width), ("layer", axis), "norm_scale")

    attention = {
        "norm": norm(D, "embed"),
        "q": ParamSpec((L, D, H, E), ("layer", "embed", "heads", None), fan_in=D),
        "k": ParamSpec((L, D, K, E), ("layer", "embed", "kv_heads", None), fan_in=D),
        "v": ParamSpec((L, D, K, E), ("layer", "embed", "kv_heads", None), fan_in=D),
        # Residual branches start small enough that their sum over layers keeps unit variance.
        "out": ParamSpec((L, H, E, D), ("layer", "heads", None, "embed"), fan_in=H * E * 2 * L),
    }
    mlp = {
        "norm": norm(D, "embed"),
        "gate": ParamSpec((L, D, F), ("layer", "embed", "ffn"), fan_in=D),
        "up": ParamSpec((L, D, F), ("layer", "embed", "ffn"), fan_in=D),
        "down": ParamSpec((L, F, D), ("layer", "ffn", "embed"), fan_in=F * 2 * L),
    }
    if config.qkv_bias:
        attention["q_bias"] = ParamSpec((L, H, E), ("layer", "heads", None), "zeros")
        attention["k_bias"] = ParamSpec((L, K, E), ("layer", "kv_heads", None), "zeros")
        attention["v_bias"] = ParamSpec((L, K, E), ("layer", "kv_heads", None), "zeros")
    if config.out_bias:
        attention["out_bias"] = ParamSpec((L, D), ("layer", "embed"), "zeros")
    if config.mlp_bias:
        mlp["gate_bias"] = ParamSpec((L, F), ("layer", "ffn"), "zeros")
        mlp["up_bias"] = ParamSpec((L, F), ("layer", "ffn"), "zeros")
        mlp["down_bias"] = ParamSpec((L, D), ("layer", "embed"), "zeros")
    if config.qk_norm:
        attention["q_norm"] = norm(E, None)
        attention["k_norm"] = norm(E, None)
    if config.post_norms:
        attention["post_norm"] = norm(D, "embed")
        mlp["post_norm"] = norm(D, "embed")

    tree: Params = {
        "embed": ParamSpec((V, D), ("vocab", "embed"), fan_in=D),
        "layers": {"attention": attention, "mlp": mlp},
        "final_norm": ParamSpec((D,), ("embed",), "norm_scale"),
    }
    if ("vocab" in heads or "likelihood" in heads) and not config.tie_embeddings:
        tree["unembed"] = ParamSpec((D, V), ("embed", "vocab"), fan_in=D)
    if "value" in heads:
        tree["value"] = {
            "w": ParamSpec((D,), ("embed",), "zeros"),
            "b": ParamSpec((), (), "zeros"),
        }
        if "likelihood" in heads:
            tree["value"]["likelihood"] = ParamSpec((), (), "ones")
    return tree


def _leaf_key(key: jax.Array, path: str) -> jax.Array:
    """A key that depends on the leaf's name alone, so that a new parameter leaves the others as they were."""
    return jax.random.fold_in(key, int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big"))


def init(key: jax.Array, config: ModelConfig, heads: tuple[Head, ...] = ("vocab",)) -> Params:
    """Draw initial parameters: normal with fan-in scaling, zero biases and value head, unit norm scales.

    With the head `likelihood` the value head starts as the log-probability it sees.
    """

    def draw(path: str, s: ParamSpec) -> jax.Array:
        if s.init == "zeros":
            return jnp.zeros(s.shape, s.dtype)
        if s.init == "ones":
            return jnp.ones(s.shape, s.dtype)
        if s.init == "norm_scale":
            return jnp.full(s.shape, 1.0 - config.norm_offset, s.dtype)
        values = jax.random.truncated_normal(_leaf_key(key, path), -3.0, 3.0, s.shape, s.dtype)
        return values * jnp.asarray(s.fan_in**-0.5, s.dtype)

    flat: dict[str, Any] = traverse_util.flatten_dict(spec(config, heads), sep="/")
    return traverse_util.unflatten_dict({path: draw(path, s) for path, s in flat.items()}, sep="/")


def abstract(config: ModelConfig, heads: tuple[Head, ...] = ("vocab",)) -> Params:
    """Return the tree of `jax.ShapeDtypeStruct` that `init` would fill."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), spec(config, heads))


def count(params: Mapping[str, Any]) -> int:
    """Return the number of parameters in a tree of arrays or specs."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def unstack_layers(params: Params) -> Params:
    """Return the parameters with their layers `[L, ...]` as a list of L trees, which is how cached passes take them.

    Done once, when an engine takes a model: sliced inside a program, the weights would stand in memory twice.
    Parameters that are so already come back as they are.
    """
    layers = params["layers"]
    if isinstance(layers, list):
        return params
    count = jax.tree.leaves(layers)[0].shape[0]
    return {**params, "layers": [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(count)]}
