"""The families that are known, and which of them a checkpoint or a shape is of."""

from __future__ import annotations

import dataclasses
from typing import Any

from ttcjax.config import ModelConfig, RopeScaling
from ttcjax.model.families import gemma, gemma2, gemma3, llama, mistral, qwen2, qwen3, settings
from ttcjax.model.families.layout import Family
from ttcjax.model.families.settings import Settings
from ttcjax.runtime.errors import UserError

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    mistral.FAMILY,
    gemma.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
)
"""A shape that several families have is written as the first of them."""


def of_file(file: Settings) -> Family:
    """Return the family of a `config.json`.

    Raises:
        UserError: It says none that is known.
    """
    kind = file.get("model_type", str)
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise file.error(f"model_type {kind!r} is not known; known: {known}")


def of_gguf(architecture: str, where: str) -> Family:
    """Return the family of a GGUF file.

    Args:
        architecture: Its `general.architecture`.
        where: Its path, for messages.

    Raises:
        UserError: The architecture is not known.
    """
    found = {name: family for family in FAMILIES if family.gguf for name in family.gguf.architectures}
    if architecture not in found:
        raise UserError(f"{where}: architecture {architecture!r} is not known; known: {', '.join(found)}")
    return found[architecture]


def of_shape(config: ModelConfig) -> Family:
    """Return the first family that has models of a shape.

    Raises:
        UserError: None has.
    """
    for family in FAMILIES:
        try:
            again = family.from_hf(Settings(family.to_hf(config)))
        except UserError:
            continue
        if meant(again) == meant(config):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise UserError(f"no known family has models with these options together; known: {known}")


def meant(config: ModelConfig) -> Any:
    """Return what of a shape decides the numbers that a model computes, the same for the same however it is said."""
    local = tuple(settings.layer_types(config))
    windows = {"sliding_window": config.sliding_window if any(map(config.is_local, range(config.num_layers))) else None}
    plain = dataclasses.replace(
        config,
        **windows,
        global_every=0,
        local_pattern=None,
        rope_scaling=RopeScaling(),
        query_scale=config.head_dim**-0.5 if config.query_scale is None else config.query_scale,
        dropout=0.0,
        dtype="float32",
        remat=False,
    )
    return plain, local, settings.described(config).get("rope_scaling")
