"""Settings of data sets and of the texts that a policy is trained on; see `ttcjax.config`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ttcjax.config.base import SPEED_ONLY, ConfigError, require, require_list, require_seed

PROCMATH: dict[str, tuple[str, ...]] = {
    "derivations": (
        "prealgebra",
        "algebra",
        "number_theory",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "precalculus",
    ),
    "search": ("pair", "residue", "coins", "doors", "reach", "subset"),
}
"""Subjects of the embedded domain by what they are short for."""


def procmath_subjects(families: Sequence[str]) -> tuple[str, ...]:
    """Return the subjects that names of subjects, or of groups of them, stand for; each once, in their order.

    Raises:
        ConfigError: A name is none of them.
    """
    known = {name: (name,) for group in PROCMATH.values() for name in group} | PROCMATH
    for name in families:
        if name not in known:
            raise ConfigError(f"data.families holds {name!r}, which is none of {', '.join(sorted(known))}")
    return tuple(dict.fromkeys(subject for name in families for subject in known[name]))


@dataclass(frozen=True)
class FieldsConfig:
    """Names of the fields in a line of a user's own file; a field within a field is named with a dot."""

    question: str | None = None
    """`None` is the first that is there of `question`, `problem` and `prompt`, in capitals or not."""
    answer: str | None = None
    """The final answer; `None` is the first of `answer`, `final_answer`, `expected_answer` and `target`. A whole
    solution that ends in `#### 5` or has a box is read as both."""
    solution: str | None = None
    """Steps to the answer; `None` is `solution` or `rationale`, or nothing where there is neither."""
    id: str | None = None
    """`None` is `id` or `unique_id`; without one, lines are numbered."""
    level: str | None = None
    """1 to 5, or `Level 3`; `None` is `level` or `difficulty`, where it holds that."""
    subject: str | None = None
    """`None` is `subject`, `type` or `category`."""


@dataclass(frozen=True)
class DataConfig:
    """Source of the questions, and how many of each split are used."""

    name: str = "procmath"
    """`procmath`, which is generated, `gsm8k`, `math`, `aime`, `amc`, `jsonl` (a file of your own), or a data set that
    you have registered (`ttcjax.data.sets`)."""
    dir: str | None = field(default=None, metadata=SPEED_ONLY)
    """Folder with the data set's own files (`train.jsonl`, `test.jsonl`); not used by `procmath`. With `source` tfds,
    the folder that TensorFlow Datasets keeps its records in; `None` is its own default."""
    source: Literal["files", "tfds"] = field(default="files", metadata=SPEED_ONLY)
    """Where the questions come from: files in `dir`, or TensorFlow Datasets, which downloads them once (`gsm8k`)."""
    train_file: str | None = None
    """Name of the file with training questions; `None` is the data set's usual name. Without one a data set can be
    evaluated on, and not trained on."""
    test_file: str | None = None
    """Name of the file with test questions; `None` is the data set's usual name."""
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    grading: str | None = None
    """How answers are read and compared: `math`, `number`, `exact` or `choice`; `None` is the data set's own way. What
    counts as the same is named where it differs: `math:percent=number,decimals=3` (`ttcjax.config.convention`)."""
    num_train: int = 40_000
    num_valid: int = 500
    num_test: int = 250
    """For data sets of fixed size these are upper limits."""
    seed: int = 0
    families: tuple[str, ...] = ("derivations", "search")
    """Subjects of `procmath`, in equal shares. `derivations` is short for the seven where one way leads to the
    answer, `search` for those where a guess is checked and an attempt that failed informs the next one."""
    check_lines: bool = True
    """Solutions of `procmath`'s search families check their guess; without, the guess is all they say."""
    faults: Literal["refuse", "leave_out"] = field(default="refuse", metadata=SPEED_ONLY)
    """Examples that cannot be used (empty, without an answer, doubled with other answers, too long): refused by the
    data stage, or left out, counted and listed."""
    prompt: str | None = field(default=None, metadata=SPEED_ONLY)
    """How questions are put to the model: a name of docs/prompts.md, or the path of a file of your own; `None`
    is the data set's own way, the question and a newline."""
    prompt_content: str | None = None
    """Hash of that prompt; a run fills it in."""
    content: str | None = None
    """Hash of the files it is read from; a run fills it in, and tells when they have changed."""

    def __post_init__(self) -> None:
        require_seed(self.seed, "data.seed")
        for name in ("num_train", "num_valid", "num_test"):
            require(getattr(self, name) > 0, f"data.{name} must be positive, not {getattr(self, name)}")
        require_list(self.families, "data.families")
        procmath_subjects(self.families)


@dataclass(frozen=True)
class Questions:
    """The questions of a data set that can be asked: those whose prompts leave room for a solution."""

    data: DataConfig
    max_seq_len: int
    """The policy's longest sequence, prompt included, in tokens."""
    max_tokens: int
    """Longest solution, end mark included, in tokens."""
    first: int | None = None
    """So many test questions, the first ones; `None` is all."""

    @property
    def num_test(self) -> int:
        """Most test questions that are asked."""
        return self.data.num_test if self.first is None else min(self.first, self.data.num_test)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that leaves room for a solution, the begin mark included."""
        return self.max_seq_len - self.max_tokens


@dataclass(frozen=True)
class DraftsConfig:
    """Texts of several drafts in the policy's own training: a question, attempts that fail, and one more.

    They look as what a revision model has in view, so that a policy learns to look back at attempts before it is
    fine-tuned for it. They need a data set that can write attempts (`Task.failing`); other questions stay as they
    are."""

    failing: float = 0.0
    """Share of training texts whose last draft fails. There is no loss on what it chooses, and there is on the lines
    that follow from this: a policy that has seen right drafts alone checks whatever it chose as if it were right."""
    several: float = 0.0
    """Share of training texts with attempts that fail before the last draft. They have that same loss."""
    kept: float = 0.0
    """Share of these, where the last draft is right, whose last attempts, one or more, are that draft already: to be
    given again."""
    most: int = 4
    """Most attempts before."""
    restate: bool = True
    """Put the question again after the attempts, as `revision.restate`, with which it has to agree."""
    again: float = 0.0
    """Loss weight of the question put again. It is never sampled; to write it down means to copy, which is how a small
    model learns, within few steps, to look up what stands above."""
    seed: int = 7

    def __post_init__(self) -> None:
        require_seed(self.seed, "drafts.seed")
        for name in ("failing", "several", "kept"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"drafts.{name} must lie in [0, 1], not {value}")
        require(self.again >= 0, f"drafts.again must not be negative, not {self.again}")
        require(self.most > 0, f"drafts.most must be positive, not {self.most}")
        require(
            bool(self.several) or not self.kept,
            f"drafts.kept ({self.kept}) is a share of texts with several drafts: set drafts.several too",
        )
