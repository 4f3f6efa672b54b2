"""Gemma 2: windows on every other layer, norms on what is added to the residual stream, soft caps."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import gemma, settings, tensors
from ttcjax.model.families.layout import Family, Gguf
from ttcjax.model.families.settings import Settings


def attention(file: Settings, every: int) -> dict[str, Any]:
    """Return the settings of attention in Gemma 2 and 3.

    Args:
        file: The `config.json`.
        every: Every how many layers one has no window, where the file does not say.
    """
    layers, biases = file.layers(), file.flag("attention_bias", False)
    return {
        **gemma.ALL,
        **settings.windows(file, [bool((i + 1) % every) for i in range(layers)]),
        "post_norms": True,
        "activation": settings.activation(file, "hidden_activation", "hidden_act", default="gelu_tanh"),
        "query_scale": file.number("query_pre_attn_scalar", 256.0) ** -0.5,
        "qkv_bias": biases,
        "out_bias": biases,
    }


def described_attention(config: ModelConfig) -> dict[str, Any]:
    """Return what `attention` reads, of a model."""
    scale = config.head_dim**-0.5 if config.query_scale is None else config.query_scale
    scalar = scale**-2
    return {
        "hidden_activation": settings.ACTIVATION_NAMES[config.activation],
        "attention_bias": config.qkv_bias,
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 * scalar else scalar,
        "sliding_window": config.sliding_window,
        "layer_types": settings.layer_types(config),
    }


def _from_hf(file: Settings) -> ModelConfig:
    return settings.decoder(
        file,
        head_dim=256,
        tied=True,
        **attention(file, 2),
        attn_soft_cap=_cap(file, "attn_logit_softcapping", 50.0),
        logit_soft_cap=_cap(file, "final_logit_softcapping", 30.0),
    )


def _cap(file: Settings, name: str, default: float) -> float | None:
    """A cap that is null is none; one that is missing is the family's."""
    return file.number(name, None if name in file.names() else default)


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        **described_attention(config),
        "attn_logit_softcapping": config.attn_soft_cap,
        "final_logit_softcapping": config.logit_soft_cap,
    }


def _gguf(metadata: Settings, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "query_pre_attn_scalar": query_scalar(found, layers=46),
        "sliding_window": metadata.count("attention.sliding_window", 4096),
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 30.0),
    }


def query_scalar(found: dict[str, Any], layers: int) -> float:
    """Return the number whose root divides attention scores, which GGUF files do not hold: the head size, in the model
    of 27B parameters, known by its number of layers, the width a head."""
    if found["num_hidden_layers"] == layers:
        return found["hidden_size"] / found["num_attention_heads"]
    return found["head_dim"]


FAMILY = Family(
    name="gemma2",
    model_types=("gemma2",),
    architectures=("Gemma2ForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.FOUR_NORMS + tensors.BIASES,
    gguf=Gguf(("gemma2",), tensors.gguf(around_one=True), _gguf),
)
