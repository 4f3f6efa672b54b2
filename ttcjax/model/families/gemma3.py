"""Gemma 3, its text: two rotary bases, norms on query and key heads, windows on five of six layers."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import gemma2, settings, tensors
from ttcjax.model.families.layout import BUFFERS, Family, Gguf
from ttcjax.model.families.settings import Settings

_EVERY = 6
_USUAL = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}


def _from_hf(file: Settings) -> ModelConfig:
    # A model of images and text keeps the text's settings in a table of their own, and leaves out what is usual.
    text = file.table("text_config")
    file = file if text is None else text.over(_USUAL)
    every = file.count("sliding_window_pattern", _EVERY)
    theta, scaling = settings.rope(file, file.count("max_position_embeddings"), 1_000_000.0)
    return settings.decoder(
        file,
        head_dim=256,
        tied=True,
        **gemma2.attention(file, every),
        qk_norm=True,
        rope_theta=theta,
        rope_scaling=scaling,
        local_rope_theta=_local_theta(file),
        attn_soft_cap=file.number("attn_logit_softcapping", None),
        logit_soft_cap=file.number("final_logit_softcapping", None),
    )


def _local_theta(file: Settings) -> float:
    by_kind = file.table("rope_parameters")
    local = by_kind.table("sliding_attention") if by_kind else None
    if local is not None:
        if local.get("rope_type", str, "default") != "default":
            raise local.error("rope_type is set: stretched positions in layers with a window are not known")
        return local.number("rope_theta", 10_000.0)
    return file.number("rope_local_base_freq", 10_000.0)


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **settings.described(config),
        **gemma2.described_attention(config),
        "rope_local_base_freq": config.local_rope_theta,
        "attn_logit_softcapping": config.attn_soft_cap,
        "final_logit_softcapping": config.logit_soft_cap,
    }


def _gguf(metadata: Settings, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "query_pre_attn_scalar": gemma2.query_scalar(found, layers=62),
        "sliding_window": metadata.count("attention.sliding_window", 1024),
        "rope_local_base_freq": metadata.number("rope.freq_base_swa", 10_000.0),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", None),
    }


FAMILY = Family(
    name="gemma3",
    model_types=("gemma3_text", "gemma3"),
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.FOUR_NORMS + tensors.BIASES + tensors.QK_NORMS,
    gguf=Gguf(("gemma3",), tensors.gguf(around_one=True), _gguf),
    prefixes=(
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
    ),
    ignored=(*BUFFERS, r"(model\.)?(vision_tower|multi_modal_projector)\..*"),
)
