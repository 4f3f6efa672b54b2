"""A decoder of Llama's form under another name: a family that stands for any new one."""

from __future__ import annotations

from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families import settings, tensors
from ttcjax.model.families.layout import Family
from ttcjax.model.families.settings import Settings


def _from_hf(file: Settings) -> ModelConfig:
    return settings.decoder(file, activation=settings.activation(file, "hidden_act", default="silu"))


def _to_hf(config: ModelConfig) -> dict[str, Any]:
    return {**settings.described(config), "hidden_act": settings.ACTIVATION_NAMES[config.activation]}


FAMILY = Family(
    name="twin",
    model_types=("twin",),
    architectures=("TwinForCausalLM",),
    from_hf=_from_hf,
    to_hf=_to_hf,
    tensors=tensors.PROJECTIONS + tensors.TWO_NORMS,
)
