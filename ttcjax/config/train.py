"""Settings of training runs and their optimizer, which several parts of an experiment share; see `ttcjax.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ttcjax.config.base import SPEED_ONLY, require, require_finite, require_seed


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, decay and clipping by global norm."""

    learning_rate: float = 3e-3
    """Peak, reached after the warm-up."""
    warmup_steps: int = 20
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_fraction: float = 0.05
    """Learning rate of the last step as a fraction of the peak."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Applied to matrices only, not to norms and biases."""
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer")
        require(self.weight_decay >= 0, f"optimizer.weight_decay must not be negative, not {self.weight_decay}")
        require(self.clip_norm >= 0, f"optimizer.clip_norm must not be negative, not {self.clip_norm}")
        require(self.learning_rate > 0, f"optimizer.learning_rate must be positive, not {self.learning_rate}")
        require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "optimizer.b1 and optimizer.b2 must lie in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """One training run: length, batch, optimizer, validation and checkpoints."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 64
    """Rows of `seq_len` tokens in one optimizer step, over all devices and accumulation steps."""
    seq_len: int = 128
    """Tokens a row; short examples are packed together."""
    accumulate: int = 1
    """Micro-batches an optimizer step is split into; must divide `batch_size`."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    dropout: float | None = None
    """In place of the model's own (`ModelConfig.dropout`), 0 too; that where it is not given."""
    validate_every: int = 100
    """Steps between validations; 0: only at the end."""
    patience: int = 0
    """Stop after this many validations without a better one; 0: never. The best has the lowest loss, or of a verifier
    the lowest cross-entropy of its labels, whatever imitation adds."""
    past_minimum: int = 0
    """Take the parameters this many validations after the best one, or the last ones where the run ends
    before; 0 takes the best ones."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = field(default=2, metadata=SPEED_ONLY)
    """Latest checkpoints kept, beside the best."""
    log_every: int = field(default=20, metadata=SPEED_ONLY)
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed, "seed")
        for name in ("steps", "batch_size", "seq_len", "accumulate", "checkpoint_every", "log_every"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}")
        require(
            self.batch_size % self.accumulate == 0,
            f"accumulate ({self.accumulate}) must divide batch_size ({self.batch_size})",
        )
        require(self.dropout is None or 0.0 <= self.dropout < 1.0, f"dropout must lie in [0, 1), not {self.dropout}")
        require(
            self.past_minimum >= 0 and self.patience >= 0,
            f"past_minimum and patience must not be negative, not {self.past_minimum} and {self.patience}",
        )
        require(
            not self.patience or self.past_minimum <= self.patience,
            f"patience ({self.patience}) must be at least past_minimum ({self.past_minimum}), or the run ends before",
        )
