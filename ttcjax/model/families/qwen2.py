"""Qwen2 and Qwen2.5: Llama's form with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import settings, tensors
from ttcjax.model.families.layout import Family, Gguf
from ttcjax.model.families.settings import Settings


def windows(file: Settings) -> dict[str, Any]:
    """Return a Qwen's windows: none unless `use_sliding_window`, then on the layers from `max_window_layers` on."""
    layers, first = file.layers(), file.get("max_window_layers", int, 28)
    found = settings.windows(file, [i >= first for i in range(layers)])
    return found if file.flag("use_sliding_window", False) else {"sliding_window": None}


def described_windows(config: ModelConfig) -> dict[str, Any]:
    """Return what `windows` reads, of a model."""
    if config.sliding_window is None:
        return {"use_sliding_window": False}
    kinds = settings.layer_types(config)
    return {"use_sliding_window": True, "sliding_window": config.sliding_window, "layer_types": kinds}


def _from_hf(file: Settings) -> ModelConfig:
    return settings.decoder(
        file,
        activation=settings.activation(file, "hidden_act", default="silu"),
        qkv_bias=True,
        **windows(file),
    )


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        "hidden_act": settings.ACTIVATION_NAMES[config.activation],
        **described_windows(config),
    }


FAMILY = Family(
    name="qwen2",
    model_types=("qwen2",),
    architectures=("Qwen2ForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.TWO_NORMS + tensors.BIASES,
    gguf=Gguf(("qwen2",), tensors.gguf()),
)
