"""Gemma, the first: scaled embeddings, norms whose scales lie around 0, heads of 256."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import settings, tensors
from ttcjax.model.families.layout import Family, Gguf
from ttcjax.model.families.settings import Settings

ALL: dict[str, Any] = {"norm_offset": 1.0, "embed_scale": True}
"""Settings of every Gemma."""


def _from_hf(file: Settings) -> ModelConfig:
    biases = file.flag("attention_bias", False)
    found = settings.activation(file, "hidden_activation", "hidden_act", default="gelu_tanh")
    return settings.decoder(
        file,
        head_dim=256,
        tied=True,
        # The first files say gelu, and the models were trained with its approximation.
        activation="gelu_tanh" if found == "gelu" else found,
        qkv_bias=biases,
        out_bias=biases,
        **ALL,
    )


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        "hidden_act": settings.ACTIVATION_NAMES[config.activation],
        "hidden_activation": settings.ACTIVATION_NAMES[config.activation],
        "attention_bias": config.qkv_bias,
    }


FAMILY = Family(
    name="gemma",
    model_types=("gemma",),
    architectures=("GemmaForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.TWO_NORMS + tensors.BIASES,
    gguf=Gguf(("gemma",), tensors.gguf(around_one=True)),
)
