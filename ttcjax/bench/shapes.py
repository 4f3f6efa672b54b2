"""Model shapes that are measured, with random weights."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from ttcjax.config import ConfigError, ModelConfig
from ttcjax.model import params
from ttcjax.model.importers.export import export

SHAPES: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        vocab_size=512, num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=128, max_seq_len=4096
    ),
    "qwen2-40m": ModelConfig(
        vocab_size=32_000,
        num_layers=8,
        d_model=512,
        num_heads=8,
        num_kv_heads=2,
        head_dim=64,
        d_ff=1408,
        max_seq_len=4096,
        qkv_bias=True,
    ),
    "llama-1b": ModelConfig(
        vocab_size=128_256,
        num_layers=16,
        d_model=2048,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        d_ff=8192,
        max_seq_len=8192,
        rope_theta=500_000.0,
        norm_eps=1e-5,
    ),
}
"""By name: a toy, the Qwen2-like shape of about 40M parameters that CPU figures are quoted for, and Llama 3.2 1B's."""


def shape(name: str, dtype: str) -> ModelConfig:
    """Return a shape by name, with activations of `dtype`.

    Raises:
        ConfigError: There is no such shape.
    """
    if name not in SHAPES:
        raise ConfigError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    return dataclasses.replace(SHAPES[name], dtype=dtype)  # type: ignore[arg-type]


def write_weights(config: ModelConfig, folder: pathlib.Path, seed: int = 0) -> None:
    """Draw weights and write them in the Hugging Face layout, which every side reads."""
    rng = np.random.default_rng(seed)
    centre = {"normal": 0.0, "zeros": 0.0, "ones": 1.0, "norm_scale": 1.0}

    def draw(s: params.ParamSpec) -> np.ndarray:
        spread = s.fan_in**-0.5 if s.init == "normal" else 0.02
        return (centre[s.init] + spread * rng.standard_normal(s.shape, np.float32)).astype(np.float32)

    tree: Any = jax.tree.map(draw, params.spec(config))
    export(tree, config, folder)


def value_head(config: ModelConfig) -> list[float]:
    """Return the weights `[D]` of a verifier's value head."""
    return np.random.default_rng(7).normal(size=config.d_model, scale=config.d_model**-0.5).astype(np.float32).tolist()
