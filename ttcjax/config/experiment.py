"""The settings of an experiment as a whole, and its hash; see `ttcjax.config`, which has all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ttcjax.config.base import SPEED_ONLY, hashed, require, require_finite, require_list, require_seed
from ttcjax.config.data import DataConfig, DraftsConfig, Questions
from ttcjax.config.model import ModelConfig
from ttcjax.config.reviser import ChainsConfig, InView, ORMConfig
from ttcjax.config.scoring import Aggregation, OwnVerifier, own_verifiers
from ttcjax.config.train import OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class TokenizerConfig:
    """The SentencePiece model trained on the training split's text."""

    vocab_size: int = 512
    """Pieces, control and byte pieces included."""
    number_pieces: int = 100
    """Integers 0 .. number_pieces - 1 are pieces of their own; 10 means single digits."""
    merge_words: bool = False
    """Let a piece span several words, which shortens text made from templates."""
    train_lines: int = 20_000
    """Training examples the pieces are learned from."""

    def __post_init__(self) -> None:
        require(self.vocab_size >= 300, f"tokenizer.vocab_size must be at least 300, not {self.vocab_size}")
        require(
            self.number_pieces in (10, 100, 1000),
            f"tokenizer.number_pieces must be 10, 100 or 1000, not {self.number_pieces}",
        )


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of the engine: how tokens are drawn and where a sequence ends."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability."""
    max_tokens: int = 96
    """Longest solution, end mark included, in tokens."""
    max_step_tokens: int = 32
    """Longest step, its end mark included, in tokens; a longer one is cut into several."""
    verifier_chunk: int = field(default=32, metadata=SPEED_ONLY)
    """Tokens of a row that the verifier reads at once during a search; longer steps take several reads."""
    rows: int = field(default=256, metadata=SPEED_ONLY)
    """Most sequences decoded at once on one device; small requests on a CPU take fewer."""
    waves: int = field(default=8, metadata=SPEED_ONLY)
    """Requests that a device works through in one call, in multiples of `rows`; more keeps the rows busier and
    holds more prompts at once."""
    memory: float = field(default=0.0, metadata=SPEED_ONLY)
    """GiB that one device may use; 0 is all it has, or on CPU an equal share of the host's memory. `rows` and `waves`
    are lowered until a batch fits."""
    prompt_bucket: int = field(default=32, metadata=SPEED_ONLY)
    """Shortest length prompts are padded to; longer ones are padded to the next power of two."""

    def __post_init__(self) -> None:
        require(
            0 <= self.temperature < float("inf"), f"sampler.temperature must be a number from 0, not {self.temperature}"
        )
        require(self.top_k >= 0, f"sampler.top_k must not be negative, not {self.top_k}")
        require(0 < self.top_p <= 1, f"sampler.top_p must lie in (0, 1], not {self.top_p}")
        require(self.max_tokens > 0, f"sampler.max_tokens must be positive, not {self.max_tokens}")
        require(self.max_step_tokens > 0, f"sampler.max_step_tokens must be positive, not {self.max_step_tokens}")
        require(self.verifier_chunk > 0, f"sampler.verifier_chunk must be positive, not {self.verifier_chunk}")
        require(self.rows > 0, f"sampler.rows must be positive, not {self.rows}")
        require(self.waves > 0, f"sampler.waves must be positive, not {self.waves}")
        require(0 <= self.memory < float("inf"), f"sampler.memory must be a number from 0, not {self.memory}")
        require(self.prompt_bucket > 0, f"sampler.prompt_bucket must be positive, not {self.prompt_bucket}")

    def of_solutions(self, temperature: float | None = None) -> SamplerConfig:
        """Return the settings that act where solutions are sampled whole: those of searches stand at their defaults.

        Args:
            temperature: In place of the sampler's, where it is not the sampler's that acts.
        """
        own = self.temperature if temperature is None else temperature
        return dataclasses.replace(self, temperature=own, max_step_tokens=SamplerConfig.max_step_tokens)


@dataclass(frozen=True)
class LabelConfig:
    """Monte Carlo step labels for the process-reward model (Snell et al. 2024, section 5.1 and App. D)."""

    questions: int = 1000
    """Training questions that are labelled."""
    samples: int = 16
    """Solutions sampled a question."""
    rollouts: int = 16
    """Completions sampled from every step prefix; the label is the share that ends right."""
    temperature: float | None = None
    """Temperature of the completions; by default the sampler's. Lower values ask whether a careful policy
    still gets there, so that labels say more about the prefix and less about later slips."""
    shard_questions: int = 100
    """Questions a file; work is resumed at this grain."""
    seed: int = 1

    def __post_init__(self) -> None:
        require_seed(self.seed, "labels.seed")
        for name in ("questions", "samples", "rollouts", "shard_questions"):
            require(getattr(self, name) > 0, f"labels.{name} must be positive, not {getattr(self, name)}")
        require(
            self.temperature is None or 0 <= self.temperature < float("inf"),
            f"labels.temperature must be a number from 0, not {self.temperature}",
        )


@dataclass(frozen=True)
class PRMConfig:
    """Training and use of the process-reward model."""

    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            dropout=0.05, optimizer=OptimizerConfig(learning_rate=3e-5, schedule="constant"), batch_size=128
        )
    )
    likelihood: bool = False
    """Let the value head see how likely the least likely token of the solution so far is to the verifier itself.
    For shallow models: they form their prediction of a token in the last layer, where nothing is left to
    compare it with the token that was written. Snell et al. 2024 train large models without it."""
    imitation: float = 0.0
    """Weight of next-token prediction on the sampled solutions that end right, beside the step loss: the joint
    objective of Cobbe et al. 2021. Both losses are sums, over tokens and over steps."""
    valid_fraction: float = 0.1
    """Share of the labelled questions held out for the choice of checkpoint."""
    aggregate: Aggregation = "last"
    """Aggregation of step scores into the score of a solution."""

    def __post_init__(self) -> None:
        require(self.imitation >= 0, f"prm.imitation must not be negative, not {self.imitation}")
        require(0 < self.valid_fraction < 1, f"prm.valid_fraction must lie in (0, 1), not {self.valid_fraction}")


@dataclass(frozen=True)
class TrajectoryConfig:
    """The revision model's training data, made from samples of the policy (Snell et al. 2024, section 6.1)."""

    questions: int = 12_000
    """Training questions sampled, the first ones."""
    samples: int = 64
    """Answers a question."""
    temperature: float = 1.0
    """Temperature of the samples; the paper says only that it is higher than otherwise."""
    most: int = 4
    """Most answers before a right one."""
    context: Literal["wrong", "any"] = "wrong"
    """Answers in view before it: wrong ones, the nearest last, as in the paper; or any, other right ones too, at
    random. The paper's model is never shown right answers in training, and at test turns 38% of them wrong."""
    kept: float = 0.0
    """Share of trajectories whose last answers in view, one or more, are the right one itself, to be given again. In
    all others no answer in view has the target's text."""
    shard_questions: int = 500
    """Questions a file; work is resumed at this grain."""
    seed: int = 3

    def __post_init__(self) -> None:
        require_seed(self.seed, "revision.trajectories.seed")
        for name in ("questions", "samples", "most", "shard_questions"):
            value = getattr(self, name)
            require(value > 0, f"revision.trajectories.{name} must be positive, not {value}")
        require(
            0 <= self.temperature < float("inf"),
            f"revision.trajectories.temperature must be a number from 0, not {self.temperature}",
        )
        require(0 <= self.kept <= 1, f"revision.trajectories.kept must lie in [0, 1], not {self.kept}")


@dataclass(frozen=True)
class ReSTConfig:
    """A second training of the revision model, on its own trajectories (ReST^EM; Snell et al. 2024, appendix).

    The model trained on parallel samples answers training questions again and again until an answer is right; the
    policy is then fine-tuned on these instead, trajectories of every length alike. The paper has 64 chains of 5."""

    chains: int = 0
    """Chains a question; 0 leaves this training out."""
    answers: int = 5
    """Most answers a chain."""
    questions: int = 12_000
    """Training questions, the first ones."""
    shard_questions: int = 500
    """Questions a file; work is resumed at this grain."""
    seed: int = 6

    def __post_init__(self) -> None:
        require_seed(self.seed, "revision.rest_em.seed")
        for name in ("answers", "questions", "shard_questions"):
            require(getattr(self, name) > 0, f"revision.rest_em.{name} must be positive, not {getattr(self, name)}")
        require(self.chains >= 0, f"revision.rest_em.chains must not be negative, not {self.chains}")


@dataclass(frozen=True)
class RevisionConfig:
    """A model that answers again with its last answers in view, and how it is trained."""

    enabled: bool = False
    """Whether an experiment trains and tests one."""
    trajectories: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            optimizer=OptimizerConfig(learning_rate=1e-5, schedule="constant"),
            batch_size=128,
            seq_len=1024,
            past_minimum=1,
        )
    )
    """Fine-tuning of the policy; the checkpoint is taken slightly past the lowest validation loss, because that loss
    is of answers that the model did not give itself (Snell et al. 2024, section 6.1)."""
    valid_fraction: float = 0.1
    """Share of the questions held out for the choice of checkpoint."""
    max_seq_len: int = 1024
    """Longest question with its answers in tokens; 0 is the policy's."""
    max_answers: int = 4
    """Most previous answers in view."""
    rest_em: ReSTConfig = field(default_factory=ReSTConfig)
    restate: bool = False
    """Put the question again after the answers in view. For small models, which have learned to answer right after a
    question; Snell et al. 2024 put the answers between."""

    @property
    def view(self) -> InView:
        """The answers that the model has in view."""
        return InView(self.max_answers, self.restate)

    def __post_init__(self) -> None:
        require(0 < self.valid_fraction < 1, f"revision.valid_fraction must lie in (0, 1), not {self.valid_fraction}")
        require(self.max_seq_len >= 0, f"revision.max_seq_len must not be negative, not {self.max_seq_len}")
        require(self.max_answers > 0, f"revision.max_answers must be positive, not {self.max_answers}")
        require(
            self.trajectories.most <= self.max_answers,
            f"revision.trajectories.most ({self.trajectories.most}) must not exceed revision.max_answers "
            f"({self.max_answers}), or chains never look like the training data",
        )
        require(
            not self.rest_em.chains or self.rest_em.answers <= self.max_answers + 1,
            f"revision.rest_em.answers ({self.rest_em.answers}) must not exceed revision.max_answers + 1 "
            f"({self.max_answers + 1}), or training has more answers in view than chains do",
        )


@dataclass(frozen=True)
class LargerConfig:
    """A policy with more parameters that answers once: what test-time compute is exchanged for (Snell et al. 2024,
    section 7)."""

    enabled: bool = False
    """Whether an experiment trains and tests one."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """About 14 times the parameters of `model` in the paper."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Everything else of its training is the policy's (`policy`), the data and their order included."""


@dataclass(frozen=True)
class SweepConfig:
    """Strategies that are compared, their generation budgets, and the statistics."""

    samples: int = 64
    """Base samples a test question in the bank. Those beyond the largest budget tell how hard a question is, up to half
    of them all, and the others judge majority and best-of-N. Without any to spare the same samples do both, and chance
    that makes a question look easy then counts for majority and best-of-N too."""
    samples_from: str | None = field(default=None, metadata=SPEED_ONLY)
    """Folder of a finished bank whose samples are taken instead of sampling anew: their texts are graded and scored
    again, by this run's verifier."""
    samples_content: str | None = None
    """Hash of that bank; a run fills it in, and tells when it has changed."""
    verifiers: tuple[str, ...] = field(default=(), metadata=SPEED_ONLY)
    """Verifiers from elsewhere that judge the bank too and are compared in the report: `NAME=FOLDER`, the folder of a
    model such as `runs/a/prm/best`; `NAME:min=FOLDER` where the lowest step score is the solution's and not the last
    (or `product`, `mean`)."""
    verifiers_content: tuple[str, ...] | None = None
    """The same with a hash of each model in place of its folder; a run fills it in, and tells when one has changed."""
    limit: int | None = None
    """Test questions that are evaluated, the first ones; `None` is all. Models are trained as without it."""
    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    strategies: tuple[str, ...] = ("majority", "best_of_n:select=weighted", "beam:width=4", "beam:width=sqrt")
    """Each samples at the sampler's temperature, at one that it names (`majority:temperature=0.6`), or for each
    budget at the one of `temperatures` that wins on validation questions (`temperature=validated`)."""
    temperatures: tuple[float, ...] = ()
    """Temperatures among which strategies with `temperature=validated` are tried on validation questions."""
    tune_questions: int = 100
    """Validation questions on which they are tried, the first ones; never a test question."""
    seeds: int = 1
    """Independent runs of each search strategy, averaged within a question."""
    bootstrap: int = 2000
    """Resamples over questions behind each 95% interval."""
    bootstrap_seed: int = 2
    """Seed of the resamples; the same in all runs compared resample by resample, such as the seeds of a study."""
    folds: int = 2
    """Parts of a difficulty bin: the strategy for one is chosen on the others (Snell et al. 2024, section 3.2)."""
    fold_repeats: int = 20
    """Random cuts into such parts that are averaged; the paper has one."""
    max_rounds: int = 40
    """Most steps of a search (Snell et al. 2024, section 5.2)."""
    shard_questions: int = 64
    """Questions a file; work is resumed at this grain."""
    seed: int = 2

    def __post_init__(self) -> None:
        require_seed(self.seed, "sweep.seed")
        require_seed(self.bootstrap_seed, "sweep.bootstrap_seed")
        require_list(self.budgets, "sweep.budgets")
        require_list(self.strategies, "sweep.strategies")
        require(self.limit is None or self.limit > 0, f"sweep.limit must be positive, not {self.limit}")
        require(min(self.budgets) > 0, f"sweep.budgets must be positive numbers, not {self.budgets}")
        require(
            max(self.budgets) <= self.samples,
            f"sweep.samples ({self.samples}) must be at least the largest budget ({max(self.budgets)})",
        )
        for name in (
            "samples",
            "tune_questions",
            "seeds",
            "bootstrap",
            "fold_repeats",
            "max_rounds",
            "shard_questions",
        ):
            require(getattr(self, name) > 0, f"sweep.{name} must be positive, not {getattr(self, name)}")
        require(self.folds > 1, f"sweep.folds must be 2 or more, one to choose on and one to judge, not {self.folds}")
        require(
            all(0 < t < float("inf") for t in self.temperatures),
            f"sweep.temperatures must be numbers above 0, not {self.temperatures}",
        )
        require(
            bool(self.temperatures) == bool(self.validated),
            "sweep.temperatures are for strategies with temperature=validated in sweep.strategies, and these for them: "
            "give both or neither",
        )
        if self.temperatures:
            require_list(self.temperatures, "sweep.temperatures")
        own_verifiers(self.verifiers, self.verifiers_content)

    @property
    def own_verifiers(self) -> tuple[OwnVerifier, ...]:
        """The verifiers of `verifiers`, with their folders."""
        return own_verifiers(self.verifiers, self.verifiers_content)

    @property
    def validated(self) -> tuple[str, ...]:
        """The strategies whose temperature is chosen on validation questions."""
        return tuple(s for s in self.strategies if "temperature=validated" in s.partition(":")[2].split(","))

    @property
    def judged(self) -> int:
        """Samples of the bank, the first ones, that judge majority and best-of-N."""
        return max(max(self.budgets), -(-self.samples // 2))


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a result, from questions to report."""

    name: str = "experiment"
    workdir: str = field(default="runs/experiment", metadata=SPEED_ONLY)
    """Folder under which every stage writes its own; may be a `gs://` path."""
    changed_inputs: Literal["refuse", "keep", "read"] = field(default="refuse", metadata=SPEED_ONLY)
    """Treatment of files outside the workdir that have changed since they were read: refuse to go on, keep what was
    read then, or read them anew, which makes again what was made of them."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: TrainConfig = field(default_factory=TrainConfig)
    drafts: DraftsConfig = field(default_factory=DraftsConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    prm: PRMConfig = field(default_factory=PRMConfig)
    revision: RevisionConfig = field(default_factory=RevisionConfig)
    orm: ORMConfig = field(default_factory=ORMConfig)
    larger: LargerConfig = field(default_factory=LargerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    chains: ChainsConfig = field(default_factory=ChainsConfig)

    def __post_init__(self) -> None:
        require_finite(self)
        for name, train in (("policy", self.policy), ("prm.train", self.prm.train)):
            require(
                train.seq_len <= self.model.max_seq_len,
                f"{name}.seq_len ({train.seq_len}) must not exceed model.max_seq_len ({self.model.max_seq_len})",
            )
        require(
            self.sampler.max_tokens < self.model.max_seq_len,
            f"sampler.max_tokens must be less than {self.model.max_seq_len} (model.max_seq_len), so that a prompt has "
            f"room, not {self.sampler.max_tokens}",
        )
        if self.revision.enabled:
            self._check_revision()
            require(
                not self.drafts.several or self.drafts.restate == self.revision.restate,
                f"drafts.restate ({self.drafts.restate}) must be revision.restate ({self.revision.restate}), or "
                "what the policy learns to read is not what the revision model is shown",
            )
        if self.larger.enabled:
            require(
                self.larger.model.max_seq_len >= self.model.max_seq_len,
                f"larger.model.max_seq_len ({self.larger.model.max_seq_len}) must be model.max_seq_len "
                f"({self.model.max_seq_len}) or more: the larger model reads what the policy reads",
            )

    @property
    def base_orm(self) -> PRMConfig | ORMConfig:
        """The settings with which the outcome-reward model of base samples is trained."""
        return self.prm if self.orm.base_settings == "prm" else self.orm

    @property
    def questions(self) -> Questions:
        """The questions that can be asked."""
        return Questions(self.data, self.model.max_seq_len, self.sampler.max_tokens)

    @property
    def test_questions(self) -> Questions:
        """The same for stages that ask test questions: with `sweep.limit` the first ones."""
        return dataclasses.replace(self.questions, first=self.sweep.limit)

    def _check_revision(self) -> None:
        longest = self.revision.max_seq_len or self.model.max_seq_len
        trainings = {"revision.train": self.revision.train}
        if self.orm.revisions:
            trainings["orm.train"] = self.orm.train
        for name, train in trainings.items():
            require(
                train.seq_len <= longest,
                f"{name}.seq_len ({train.seq_len}) must not exceed the revision model's limit of {longest} tokens: "
                "raise revision.max_seq_len",
            )
        require(
            longest >= self.model.max_seq_len,
            f"revision.max_seq_len ({longest}) must be model.max_seq_len ({self.model.max_seq_len}) or more: the "
            "revision model reads what the policy reads, and answers before it",
        )
        trained = self.orm.variants if self.orm.revisions else ()
        require(
            self.chains.verifier in ("validation", "prm", *trained),
            f"chains.verifier ({self.chains.verifier}) must be validation, prm or one of orm.variants "
            f"({', '.join(trained) or 'none, as orm.revisions is False'})",
        )
        require(
            self.chains.questions == 0 or self.chains.questions >= 5 * self.sweep.folds,
            f"chains.questions must be {5 * self.sweep.folds} or more, one for each fold of five difficulty bins, not "
            f"{self.chains.questions}",
        )


def config_hash(*parts: Any) -> str:
    """Return 16 hex digits that identify what decides results in the given configs; equal ones give equal digits."""
    text = json.dumps([hashed(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
