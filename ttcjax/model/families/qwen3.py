"""Qwen3, dense: norms on query and key heads, and head sizes of their own."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import qwen2, settings, tensors
from ttcjax.model.families.layout import Family, Gguf
from ttcjax.model.families.settings import Settings


def _from_hf(file: Settings) -> ModelConfig:
    biases = file.flag("attention_bias", False)
    return settings.decoder(
        file,
        head_dim=128,
        activation=settings.activation(file, "hidden_act", default="silu"),
        qk_norm=True,
        qkv_bias=biases,
        out_bias=biases,
        **qwen2.windows(file),
    )


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        "hidden_act": settings.ACTIVATION_NAMES[config.activation],
        "attention_bias": config.qkv_bias,
        **qwen2.described_windows(config),
    }


FAMILY = Family(
    name="qwen3",
    model_types=("qwen3",),
    architectures=("Qwen3ForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.TWO_NORMS + tensors.BIASES + tensors.QK_NORMS,
    gguf=Gguf(("qwen3",), tensors.gguf()),
)
