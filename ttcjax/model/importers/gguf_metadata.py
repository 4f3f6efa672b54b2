"""The metadata of a GGUF file as the `config.json` of the model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ttcjax.model.families.layout import Family
from ttcjax.model.families.settings import Settings

ROPE_FACTORS = "rope_freqs.weight"
"""Tensor with a divisor of each rotary frequency: how GGUF files hold the stretch of Llama 3."""


def config_json(
    family: Family,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: np.ndarray | None,
    where: str,
) -> Settings:
    """Return the settings of a GGUF file under the names of `config.json`.

    Args:
        family: Of the file.
        metadata: Its scalar values.
        shapes: Those of its tensors, matrices `[outputs, inputs]`.
        rope_factors: The tensor `ROPE_FACTORS`, where it is there.
        where: Its path, for messages.

    Raises:
        UserError: A value is missing or has a wrong type, or says what no model here does.
    """
    assert family.gguf is not None
    architecture = metadata["general.architecture"]
    own = Settings({k.removeprefix(f"{architecture}."): v for k, v in metadata.items()}, f"{where}: {architecture}")
    width, heads = own.count("embedding_length"), own.count("attention.head_count")
    size = own.count("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if own.count(name, size) != size:
            raise own.error(f"{name} is {own.count(name)}, and heads have {size} numbers: such models are not known")
    found: dict[str, Any] = {
        "model_type": family.model_types[0],
        "architectures": [family.architectures[0]],
        "vocab_size": shapes["token_embd.weight"][0] if "token_embd.weight" in shapes else own.count("vocab_size"),
        "hidden_size": width,
        "intermediate_size": own.count("feed_forward_length"),
        "num_hidden_layers": own.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": own.count("attention.head_count_kv", heads),
        "head_dim": size,
        "max_position_embeddings": own.count("context_length"),
        "rms_norm_eps": _short(own.number("attention.layer_norm_rms_epsilon")),
        "rope_theta": own.number("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
    }
    scaling = _scaling(own, rope_factors, found)
    if scaling is not None:
        found["rope_scaling"] = scaling
    return Settings(found | family.gguf.more(own, found), where)


def _short(value: float) -> float:
    """Return the number of few digits that a float32 was made from: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _scaling(own: Settings, factors: np.ndarray | None, found: dict[str, Any]) -> dict[str, Any] | None:
    original = own.count("rope.scaling.original_context_length", found["max_position_embeddings"])
    kind = own.get("rope.scaling.type", str, "linear" if own.number("rope.scale_linear", 1.0) != 1.0 else "none")
    if factors is not None:
        listed = [float(value) for value in factors]
        return {
            "rope_type": "longrope",
            "factor": 1.0,
            "attention_factor": 1.0,
            "original_max_position_embeddings": original,
            "short_factor": listed,
            "long_factor": listed,
        }
    if kind == "none":
        return None
    factor = own.number("rope.scaling.factor", own.number("rope.scale_linear", 1.0))
    if kind == "linear":
        return {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        found = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
        more = own.number("rope.scaling.attn_factor", 1.0)  # On top of what YaRN itself has.
        return found if more == 1.0 else {**found, "attention_factor": more * (0.1 * math.log(factor) + 1.0)}
    raise own.error(f"rope.scaling.type {kind!r} is not known; known: none, linear, yarn")
