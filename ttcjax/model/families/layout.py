"""The contract of a model family: how its published checkpoints say what they are and hold what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ttcjax.config import ModelConfig
from ttcjax.model.families.settings import Settings
from ttcjax.model.families.tensors import Rule

BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Tensors of old checkpoints that are no parameters."""


@dataclass(frozen=True)
class Gguf:
    """Layout of a family's GGUF files."""

    architectures: tuple[str, ...]
    """Values of `general.architecture`."""
    tensors: tuple[Rule, ...]
    """Names of tensors; see `ttcjax.model.families.tensors`."""
    more: Callable[[Settings, dict[str, Any]], dict[str, Any]] = lambda metadata, found: {}
    """Returns entries of `config.json` that `ttcjax.model.importers.gguf_metadata` does not read. It is given the
    metadata under their architecture and the entries read so far."""


@dataclass(frozen=True)
class Family:
    """Layout of a family's checkpoints."""

    name: str
    model_types: tuple[str, ...]
    """Values of `model_type` in `config.json`."""
    architectures: tuple[str, ...]
    """Values of `architectures` of a language model; the first is written."""
    from_hf: Callable[[Settings], ModelConfig]
    """Returns the shape of what a `config.json` says; raises `UserError` with the key that it cannot take."""
    to_hf: Callable[[ModelConfig], dict[str, Any]]
    """Returns what `from_hf` reads. A model is of this family where that is the model again."""
    tensors: tuple[Rule, ...]
    """Names of tensors; see `ttcjax.model.families.tensors`."""
    gguf: Gguf | None = None
    prefixes: tuple[tuple[str, str], ...] = ()
    """Other beginnings of names, each with the one that it stands for."""
    ignored: Sequence[str] = BUFFERS
    """Patterns of whole names, after `prefixes`, of tensors that are no part of a language model."""

    def check_architecture(self, settings: Settings) -> None:
        """Refuse the checkpoint of a model with another head, whose numbers are no logits of a vocabulary.

        Raises:
            UserError: `architectures` names none of this family's.
        """
        found = settings.get("architectures", list, [], "a list")
        if found and not set(map(str, found)) & set(self.architectures):
            raise settings.error(f"architectures is {found[0]}, which is no language model: {self.architectures[0]} is")
