"""The settings of a model's shape; see `ttcjax.config`, which has all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ttcjax.config.base import require


@dataclass(frozen=True)
class RopeScaling:
    """Stretching of rotary frequencies for contexts longer than those trained on; see `ttcjax.model.rotary`."""

    kind: Literal["none", "linear", "llama3", "dynamic", "yarn", "longrope"] = "none"
    factor: float = 1.0
    """Context extension factor, at least 1."""
    low_freq_factor: float = 1.0
    """`llama3` only: wavelengths above `original_max_position / low_freq_factor` are fully scaled."""
    high_freq_factor: float = 4.0
    """`llama3` only: wavelengths below `original_max_position / high_freq_factor` are kept."""
    original_max_position: int = 8192
    """The context length of pretraining, in tokens; `linear` does not need it."""
    attention_factor: float | None = None
    """`yarn` and `longrope` only: factor on cosines and sines; `None` for what the kind derives from `factor`."""
    beta_fast: float | None = None
    """`yarn` only: frequencies of more turns than this over the pretraining context are kept; `None` means 32."""
    beta_slow: float | None = None
    """`yarn` only: frequencies of fewer turns than this are divided by `factor`; `None` means 1."""
    truncate: bool | None = None
    """`yarn` only: round the bounds of what lies between to whole dimensions; `None` means that they are."""
    short_factor: tuple[float, ...] | None = None
    """`longrope` only: divisor of each of the `head_dim / 2` frequencies, up to `original_max_position` tokens."""
    long_factor: tuple[float, ...] | None = None
    """`longrope` only: the same for a `max_seq_len` beyond that."""

    def __post_init__(self) -> None:
        require(self.factor >= 1.0, f"rope_scaling.factor must be at least 1, not {self.factor}")
        for name in ("original_max_position", "attention_factor", "beta_fast", "beta_slow"):
            value = getattr(self, name)
            require(value is None or value > 0, f"rope_scaling.{name} must be positive, not {value}")
        for name in ("short_factor", "long_factor"):
            values = getattr(self, name)
            given = values is None or (len(values) > 0 and min(values) > 0)
            require(given, f"rope_scaling.{name} must hold positive numbers")
        if self.kind == "longrope":
            require(
                None not in (self.short_factor, self.long_factor),
                "rope_scaling.kind longrope needs rope_scaling.short_factor and long_factor",
            )
        if self.kind == "llama3":
            require(
                0 < self.low_freq_factor < self.high_freq_factor,
                f"rope_scaling.low_freq_factor ({self.low_freq_factor}) must be positive and less than "
                f"high_freq_factor ({self.high_freq_factor})",
            )


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
    local_pattern: tuple[bool, ...] | None = None
    """With a sliding window, whether each layer sees only that, over and over from the first layer on, where
    `global_every` cannot say it."""
    local_rope_theta: float | None = None
    """Rotary base of the local layers when it differs from `rope_theta`; `rope_scaling` is then none of theirs
    (Gemma3)."""
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
        window = self.sliding_window
        require(window is None or window > 0, f"model.sliding_window must be positive, not {window}")
        require(self.global_every >= 0, f"model.global_every must not be negative, not {self.global_every}")
        if self.local_pattern is not None:
            require(len(self.local_pattern) > 0, "model.local_pattern must name one layer or more")
            require(self.global_every == 0, "model.local_pattern and model.global_every say the same: leave one out")
        if self.rope_scaling.kind == "longrope":
            for name in ("short_factor", "long_factor"):
                count = len(getattr(self.rope_scaling, name))
                require(
                    count == self.head_dim // 2,
                    f"model.rope_scaling.{name} must hold {self.head_dim // 2} numbers, one a frequency, not {count}",
                )

    @property
    def groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    def is_local(self, layer: int) -> bool:
        """Return whether a layer sees only the sliding window."""
        if self.sliding_window is None:
            return False
        if self.local_pattern is not None:
            return self.local_pattern[layer % len(self.local_pattern)]
        return not (self.global_every and (layer + 1) % self.global_every == 0)
