"""The settings of a model's shape; see `ttcjax.config`, which has all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ttcjax.config.base import require


@dataclass(frozen=True)
class RopeScaling:
    """Stretching of rotary frequencies for contexts longer than those trained on."""

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    """Context extension factor, at least 1."""
    low_freq_factor: float = 1.0
    """`llama3` only: wavelengths above `original_max_position / low_freq_factor` are fully scaled."""
    high_freq_factor: float = 4.0
    """`llama3` only: wavelengths below `original_max_position / high_freq_factor` are kept."""
    original_max_position: int = 8192
    """`llama3` only: the context length of pretraining, in tokens."""

    def __post_init__(self) -> None:
        require(self.factor >= 1.0, f"rope_scaling.factor must be at least 1, not {self.factor}")


@dataclass(frozen=True)
class ModelConfig:
    """Shape and options of a decoder-only transformer; covers the Llama, Qwen and Gemma families."""

    former: ClassVar[frozenset[str]] = frozenset({"value_likelihood"})
    """Settings that files of earlier versions hold and that are none of the model's; see `from_dict`."""

    vocab_size: int = 0
    """Rows of the embedding table; 0 takes the tokenizer's size."""
    num_layers: int = 2
    d_model: int = 64
    num_heads: int = 4
    num_kv_heads: int = 4
    """Key/value heads; must divide `num_heads` (grouped-query attention)."""
    head_dim: int = 16
    d_ff: int = 256
    """Width of the gated MLP."""
    max_seq_len: int = 256
    """Longest sequence, prompt included, in tokens."""
    tie_embeddings: bool = True
    activation: Literal["silu", "gelu_tanh", "gelu"] = "silu"
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    """Added to every RMSNorm scale; Gemma stores scales around 0 and uses 1.0 here."""
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    qkv_bias: bool = False
    """Biases on the query, key and value projections (Qwen2)."""
    out_bias: bool = False
    """Bias on the attention output projection."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm on each query and key head (Qwen3, Gemma3)."""
    query_scale: float | None = None
    """Multiplies queries before the dot product; `None` means `head_dim ** -0.5`."""
    attn_soft_cap: float | None = None
    """Attention scores become `cap * tanh(score / cap)` (Gemma2)."""
    logit_soft_cap: float | None = None
    """The same for output logits (Gemma2)."""
    sliding_window: int | None = None
    """Tokens a local layer sees, itself included; `None` for full attention everywhere."""
    global_every: int = 0
    """With a sliding window, layers `global_every - 1, 2 * global_every - 1, ...` attend fully; 0: none do."""
    local_rope_theta: float | None = None
    """Rotary base of the local layers when it differs from `rope_theta` (Gemma3)."""
    post_norms: bool = False
    """RMSNorm on the output of attention and of the MLP, before the residual sum (Gemma2)."""
    embed_scale: bool = False
    """Multiply embeddings by `sqrt(d_model)` (Gemma)."""
    dropout: float = 0.0
    """Drop probability on the output of attention and of the MLP, in training only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations; parameters are float32 in training whatever this says."""
    remat: bool = False
    """Recompute each layer's activations in the backward pass."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "d_model", "num_heads", "num_kv_heads", "head_dim", "d_ff", "max_seq_len"):
            require(getattr(self, name) > 0, f"model.{name} must be positive, not {getattr(self, name)}")
        require(self.vocab_size >= 0, f"model.vocab_size must not be negative, not {self.vocab_size}")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.num_kv_heads ({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})",
        )
        require(self.head_dim % 2 == 0, f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        require(0.0 <= self.dropout < 1.0, f"model.dropout must lie in [0, 1), not {self.dropout}")

    @property
    def groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads
