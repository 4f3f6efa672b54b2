"""Make `families.npz`: tiny models of every family by Hugging Face transformers, with random weights, and their logits.

Run it by hand where `torch` and `transformers` are installed: `python tests/references/make_family_references.py`.
Tests read the file and need neither. It holds for each case its `config.json`, names and shapes of its tensors, their
numbers one tensor after the other as whole multiples of 1/64, tokens, and the float32 logits of one uncached pass.
"""

# PyTorch is no dependency of the project, so its types are not there to be checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import transformers

TOKENS, VOCAB = 24, 40
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WIDE = {"head_dim": 8}
# The last case of each pair has windows longer than the text.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_theta": 500.0}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, **WIDE}),
    "llama_linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, **WIDE}),
    "llama_dynamic": (
        "llama",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16, **WIDE},
    ),
    "llama3": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            "rope_theta": 100.0,
            "tie_word_embeddings": True,
            "head_dim": 16,
        },
    ),
    "llama_longrope": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.5, 2.0, 3.0],
                "long_factor": [1.0, 2.0, 5.0, 9.0],
                "original_max_position_embeddings": 16,
            },
            **WIDE,
        },
    ),
    "mistral": ("mistral", {"sliding_window": 7, **WIDE}),
    "mistral_long": ("mistral", {"sliding_window": 50, **WIDE}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    "qwen2_yarn": (
        "qwen2",
        {
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
            "hidden_size": 32,
            "rope_theta": 100.0,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12}),
    "gemma2_long": ("gemma2", {"head_dim": 8, "sliding_window": 40, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "query_pre_attn_scalar": 12,
            "sliding_window_pattern": 3,
            "rope_theta": 300.0,
            "rope_local_base_freq": 20.0,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
    ),
}


def make(name: str, kind: str, options: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return the arrays of one case, under names that begin with the case's."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **options})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for value in model.parameters():
            # Biases and norms as well, which begin as zeros and ones; larger than usual, so that an error is seen.
            value.add_(torch.randn_like(value) * (0.15 if value.ndim == 1 else 1.2 * value.shape[-1] ** -0.5))
            value.copy_((value * 64).round().clamp(-127, 127) / 64)
    tokens = torch.randint(0, VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[0]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        described = json.loads((pathlib.Path(folder) / "config.json").read_text())
        tensors = safetensors.numpy.load_file(pathlib.Path(folder) / "model.safetensors")
    # Most published models have the old form of `config.json`; the new one is the library's own.
    old = {key: value for key, value in described.items() if key != "rope_parameters"}
    old |= {key: value for key, value in options.items() if key.startswith("rope_")}
    shapes = {key: value.shape for key, value in tensors.items()}
    numbers = np.concatenate([value.reshape(-1) * 64 for value in tensors.values()])
    assert (numbers == numbers.astype(np.int8)).all()
    return {
        f"{name}/told": np.array(json.dumps({"config": old, "config_new": described, "shapes": shapes})),
        f"{name}/numbers": numbers.astype(np.int8),
        f"{name}/tokens": tokens[0].numpy().astype(np.int32),
        f"{name}/logits": logits.numpy(),
    }


def main() -> None:
    found: dict[str, np.ndarray] = {}
    for seed, (name, (kind, options)) in enumerate(CASES.items()):
        found |= make(name, kind, options, seed)
    np.savez_compressed(pathlib.Path(__file__).parent / "families.npz", **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
