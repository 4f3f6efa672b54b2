"""Every setting of an experiment: its name, unit, default and the values it may take.

The dataclasses here, in `config_train` (training) and in `config_chains` (chains of revisions) are the only place where
settings are declared. Files in `configs/` build an `ExperimentConfig`, the command line overrides its fields by the
same names, and the resolved config is written as JSON beside every result. All of them are frozen and hashable, so a
`ModelConfig` or a `SamplerConfig` can be a static argument of a jitted function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ttcjax.config_chains import ChainsConfig as ChainsConfig
from ttcjax.config_chains import ORMConfig as ORMConfig
from ttcjax.config_train import OptimizerConfig as OptimizerConfig
from ttcjax.config_train import TrainConfig as TrainConfig
from ttcjax.tables import ConfigError as ConfigError
from ttcjax.tables import from_dict as from_dict
from ttcjax.tables import require as require
from ttcjax.tables import require_finite, require_seed
from ttcjax.tables import require_list as require_list
from ttcjax.tables import to_dict as to_dict


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those trained on."""

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
    value_likelihood: bool = False
    """The value head also sees the log-probability, under the model's own vocabulary head, of the least likely
    token of the solution so far. It costs a vocabulary product a token; see `PRMConfig.likelihood`."""
    dropout: float = 0.0
    """Drop probability on the output of attention and of the MLP, in training only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters are float32 in training whatever this says."""
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


@dataclass(frozen=True)
class DataConfig:
    """Where questions come from and how many of each split are used."""

    name: Literal["procmath", "gsm8k"] = "procmath"
    dir: str | None = None
    """Folder with the data set's own files (`train.jsonl`, `test.jsonl`); not used by `procmath`."""
    num_train: int = 40_000
    num_valid: int = 500
    num_test: int = 250
    """For data sets of fixed size these are upper limits."""
    seed: int = 0
    faults: Literal["refuse", "leave_out"] = "refuse"
    """Examples that cannot be used (empty, without an answer, doubled with other answers, too long): refused by the
    data stage, or left out, counted and listed."""
    content: str | None = None
    """Hash of the files it is read from; a run fills it in, and tells when they have changed."""

    def __post_init__(self) -> None:
        require_seed(self.seed, "data.seed")
        for name in ("num_train", "num_valid", "num_test"):
            require(getattr(self, name) > 0, f"data.{name} must be positive, not {getattr(self, name)}")
        require(
            self.name == "procmath" or self.dir is not None,
            f"data.name={self.name} is read from files: give their folder with --data.dir",
        )


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
    """How tokens are drawn and where a sequence ends."""

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
    verifier_chunk: int = 32
    """Tokens of a row that the verifier reads at once during a search; longer steps take several reads."""
    rows: int = 256
    """Most sequences decoded at once on one device; small requests on a CPU take fewer."""
    waves: int = 8
    """Requests that a device works through in one call, in multiples of `rows`; more keeps the rows busier and
    holds more prompts at once."""
    memory: float = 0.0
    """GiB that one device may use; 0 is all it has, or on CPU an equal share of the host's memory. `rows` and `waves`
    are lowered until a batch fits."""
    prompt_bucket: int = 32
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
    """Of the completions; that of the sampler where it is not given. Lower values ask whether a careful policy
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


Aggregation = Literal["last", "min", "product", "mean"]


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
    """How step scores become the score of a solution."""

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
    """Of the samples; the paper says only that it is higher than otherwise."""
    most: int = 4
    """Most answers before a right one."""
    context: Literal["wrong", "any"] = "wrong"
    """Which answers stand before it: wrong ones, the nearest last, as in the paper; or any, right ones too, at random.
    The paper's model is never shown right answers in training, and at test turns 38% of them wrong."""
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
    """Which strategies are compared, at which generation budgets, with which statistics."""

    samples: int = 64
    """Base samples a test question in the bank. Those beyond the largest budget tell how hard a question is, up to half
    of them all, and the others judge majority and best-of-N. Without any to spare the same samples do both, and chance
    that makes a question look easy then counts for majority and best-of-N too."""
    samples_from: str | None = None
    """Folder of a finished bank whose samples are taken instead of sampling anew: their texts are graded and scored
    again, by this run's verifier."""
    samples_content: str | None = None
    """Hash of that bank; a run fills it in, and tells when it has changed."""
    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    strategies: tuple[str, ...] = ("majority", "best_of_n:select=weighted", "beam:width=4", "beam:width=sqrt")
    seeds: int = 1
    """Independent runs of each search strategy, averaged within a question."""
    bootstrap: int = 2000
    """Resamples over questions behind each 95% interval."""
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
        require_list(self.budgets, "sweep.budgets")
        require_list(self.strategies, "sweep.strategies")
        require(min(self.budgets) > 0, f"sweep.budgets must be positive numbers, not {self.budgets}")
        require(
            max(self.budgets) <= self.samples,
            f"sweep.samples ({self.samples}) must be at least the largest budget ({max(self.budgets)})",
        )
        for name in ("samples", "seeds", "bootstrap", "fold_repeats", "max_rounds", "shard_questions"):
            require(getattr(self, name) > 0, f"sweep.{name} must be positive, not {getattr(self, name)}")
        require(self.folds > 1, f"sweep.folds must be 2 or more, one to choose on and one to judge, not {self.folds}")

    @property
    def judged(self) -> int:
        """Samples of the bank, the first ones, that judge majority and best-of-N."""
        return max(max(self.budgets), -(-self.samples // 2))


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a result, from questions to report."""

    name: str = "experiment"
    workdir: str = "runs/experiment"
    """Where every stage writes its folder; may be a `gs://` path. Not part of the config's hash."""
    changed_inputs: Literal["refuse", "keep", "read"] = "refuse"
    """What to do where files outside the workdir have changed since they were read: refuse to go on, keep what was read
    then, or read them anew, which makes again what was made of them. Not part of the config's hash."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: TrainConfig = field(default_factory=TrainConfig)
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
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that leaves room for a solution, the begin mark included."""
        return self.model.max_seq_len - self.sampler.max_tokens

    def _check_revision(self) -> None:
        longest = self.revision.max_seq_len or self.model.max_seq_len
        for name, train in (("revision.train", self.revision.train), ("orm.train", self.orm.train)):
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
        require(
            self.chains.verifier in ("validation", "prm", *self.orm.variants),
            f"chains.verifier ({self.chains.verifier}) must be validation, prm or one of orm.variants "
            f"({', '.join(self.orm.variants)})",
        )
        require(
            self.chains.questions == 0 or self.chains.questions >= 5 * self.sweep.folds,
            f"chains.questions must be {5 * self.sweep.folds} or more, one for each fold of five difficulty bins, not "
            f"{self.chains.questions}",
        )


UNHASHED = ("workdir", "changed_inputs")
"""Settings of an experiment that do not change what it finds."""


def config_hash(*parts: Any) -> str:
    """Return 16 hex digits that identify the given configs; equal configs give equal digits.

    `UNHASHED` settings are left out: where a result lies does not change it.
    """
    plain = []
    for part in parts:
        values = to_dict(part) if dataclasses.is_dataclass(part) else part
        if isinstance(part, ExperimentConfig):
            for name in UNHASHED:
                values.pop(name)
        plain.append(values)
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
