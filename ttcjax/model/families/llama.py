"""Llama 2 and 3, and what has their form, such as SmolLM2."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import settings, tensors
from ttcjax.model.families.layout import Family, Gguf
from ttcjax.model.families.settings import Settings


def _from_hf(file: Settings) -> ModelConfig:
    biases = file.flag("attention_bias", False)
    return settings.decoder(
        file,
        activation=settings.activation(file, "hidden_act", default="silu"),
        qkv_bias=biases,
        out_bias=biases,
        mlp_bias=file.flag("mlp_bias", False),
    )


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        "hidden_act": settings.ACTIVATION_NAMES[config.activation],
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
    }


FAMILY = Family(
    name="llama",
    model_types=("llama",),
    architectures=("LlamaForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.TWO_NORMS + tensors.BIASES,
    gguf=Gguf(("llama",), tensors.gguf(interleaved=True)),
)
