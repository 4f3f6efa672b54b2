"""Settings of the revision model's chains and of the outcome-reward models that judge them; see `ttcjax.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ttcjax.config.base import require, require_list, require_seed
from ttcjax.config.train import OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class InView:
    """Answers that a revision model has in view beside the question."""

    max_answers: int
    """Most previous answers."""
    restate: bool
    """Whether the question stands again after them."""


@dataclass(frozen=True)
class ORMConfig:
    """Outcome-reward models: verifiers that are told whether whole answers are right (Snell et al. 2024, App. J, K)."""

    revisions: bool = True
    """Whether an experiment with revisions trains verifiers on attempts of the revision model; without them the PRM
    judges revisions, as it judges base samples."""
    variants: tuple[Literal["history", "no_history"], ...] = ("history",)
    """Verifiers trained on the revision model's answers: with the answers before in view, and without. Which one
    selects is `chains.verifier`'s; the others are compared with it."""
    base: bool = False
    """Also train one on the policy's own samples, those of the step labels, and judge the bank with it."""
    base_settings: Literal["prm", "orm"] = "prm"
    """Whose `train`, `likelihood`, `imitation` and `valid_fraction` that one is trained with: the PRM's, so that both
    learn from the same solutions in as many steps and tokens and can be compared; or those here, of the verifiers of
    revisions. Where steps or tokens then differ, the report compares them no more."""
    questions: int = 4000
    """Training questions on which the revision model's chains are sampled: those after all that it was trained on."""
    chains: int = 2
    """Chains a question."""
    answers: int = 5
    """Answers a chain."""
    every_step: bool = False
    """Label every step of an answer with what comes of it, not the last alone (Cobbe et al. 2021)."""
    likelihood: bool = False
    """Same as `PRMConfig.likelihood`."""
    imitation: float = 0.0
    """Same as `PRMConfig.imitation`."""
    valid_fraction: float = 0.1
    """Share of the questions held out for the choice of checkpoint."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            dropout=0.05,
            optimizer=OptimizerConfig(learning_rate=3e-5, schedule="constant"),
            batch_size=128,
            seq_len=1024,
        )
    )
    shard_questions: int = 500
    """Questions a file; work is resumed at this grain."""
    seed: int = 4

    def __post_init__(self) -> None:
        require_seed(self.seed, "orm.seed")
        for name in ("questions", "chains", "answers", "shard_questions"):
            require(getattr(self, name) > 0, f"orm.{name} must be positive, not {getattr(self, name)}")
        require_list(self.variants, "orm.variants")
        require(self.imitation >= 0, f"orm.imitation must not be negative, not {self.imitation}")
        require(0 < self.valid_fraction < 1, f"orm.valid_fraction must lie in (0, 1), not {self.valid_fraction}")


@dataclass(frozen=True)
class ChainsConfig:
    """The chains of test questions from which every split of a budget between sequential and parallel is answered."""

    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Generations N, powers of two; every pair s * p = N of powers of two is compared."""
    answers: int = 64
    """Answers of the chains behind the curve of pass@1 by revision step."""
    chains: int = 4
    """Chains of that length (Snell et al. 2024, Fig. 6, has four)."""
    refine: int = 0
    """Tries of `refine`, which keeps an answer only if the verifier's score rises; 0 leaves it out."""
    swap: int = 0
    """Answers of the swap control, in which another question's answers are in view, the next one's of the subject and,
    if there is one, the level in the same file; 0 leaves it out."""
    questions: int = 0
    """Test questions; 0 takes all."""
    shard_questions: int = 64
    """Questions a file; work is resumed at this grain."""
    verifier: Literal["validation", "prm", "history", "no_history"] = "validation"
    """Verifier that selects among revisions: the one that selects best on held-out training questions, of the ORMs
    (`orm.variants`) and the PRM; or always the one named."""
    seed: int = 5

    def __post_init__(self) -> None:
        require_seed(self.seed, "chains.seed")
        require_list(self.budgets, "chains.budgets")
        require(min(self.budgets) > 0, f"chains.budgets must be positive numbers, not {self.budgets}")
        require(
            all(n & (n - 1) == 0 for n in self.budgets), f"chains.budgets must be powers of two, not {self.budgets}"
        )
        for name in ("answers", "chains", "shard_questions"):
            require(getattr(self, name) > 0, f"chains.{name} must be positive, not {getattr(self, name)}")
        for name in ("questions", "refine", "swap"):
            require(getattr(self, name) >= 0, f"chains.{name} must not be negative, not {getattr(self, name)}")
        require(
            self.swap <= self.lengths[0],
            f"chains.swap ({self.swap}) must not exceed the {self.lengths[0]} answers of a chain",
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Answers of each chain, longest first, so that all pairs s * p can be cut from the first p chains' heads."""
        longest = max(self.budgets)
        most = max(longest, self.chains)
        paired = [max((n // (c + 1) for n in self.budgets), default=0) for c in range(most)]
        # The p-th chain needs the longest s of a pair with at least p chains.
        powers = [1 << (n.bit_length() - 1) if n else 0 for n in paired]
        return tuple(max(length, self.answers if c < self.chains else 0) for c, length in enumerate(powers))
