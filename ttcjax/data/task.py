"""The contract of a data set: examples, reading and grading of answers, truth of steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttcjax.runtime.errors import UserError
from ttcjax.text.steps import LINES, StepFormat


@dataclass(frozen=True)
class Example:
    """One question with its reference solution."""

    id: str
    """Unique over all splits of a data set."""
    question: str
    solution: str
    """Steps joined as `Task.steps` says; the last one states the answer. Empty where only the answer is known."""
    answer: str
    """The final answer alone, in canonical form."""
    level: int
    """1 (easiest) to 5; 0 where the data set does not say."""
    subject: str


@dataclass(frozen=True)
class Draft:
    """An attempt at a question, step by step."""

    lines: tuple[str, ...]
    """The last one states its answer."""
    commits: int
    """Number of first lines that are choices; the others follow from these and the question."""


def _no_drafts(example: Example, count: int, rng: random.Random) -> list[Draft]:
    return []


def _unknown_steps(example: Example, steps: Sequence[str]) -> list[bool] | None:
    return None


@dataclass(frozen=True)
class Task:
    """One data set: how its questions are put, answered and checked."""

    name: str
    prompt: Callable[[str], str]
    """Question to prompt; the prompt ends with a newline."""
    extract: Callable[[str], str | None]
    """Solution text to final answer; `None` where no answer can be read."""
    grade: Callable[[str | None, str], bool]
    """(answer, reference answer) to whether they agree; `None` never does."""
    steps: StepFormat = LINES
    """Format that says where a step of a solution ends."""
    check_steps: Callable[[Example, Sequence[str]], list[bool] | None] = _unknown_steps
    """Truth of each step of a candidate solution; `None` where the data set cannot tell."""
    failing: Callable[[Example, int, random.Random], list[Draft]] = _no_drafts
    """So many attempts at a question, one after the other, that fail and are true in every line but the last; fewer
    where there are no more, none where the data set has none."""
    attempts_inform: Callable[[str], bool | None] = lambda subject: None
    """Whether an attempt that failed tells a further one something, by the subject of a question; `None` where the data
    set cannot tell."""


if TYPE_CHECKING:
    Examples = Sequence[Example]
else:
    # Checked while tests run, an element would be read from disk, a damaged one too.
    Examples = Sequence


@dataclass(frozen=True)
class Splits:
    """Random-access training, validation and test examples, disjoint by question text.

    A data set that can only be evaluated on has no training and no validation examples."""

    train: Examples
    valid: Examples
    test: Examples

    def to_train_on(self, stage: str, *, solutions: bool = False) -> Examples:
        """Return the training examples.

        Args:
            stage: That asks for them, for the message.
            solutions: Whether it needs their reference solutions.

        Raises:
            UserError: There are none, or none has a solution.
        """
        if not len(self.train):
            raise UserError(
                f"stage {stage!r} needs training questions, and the data set has test questions alone: give a file of "
                "them (--data.train_file), or run the stages that evaluate trained models (ttcjax sweep)"
            )
        if solutions and not self.train[0].solution:  # a file has one for every question or for none
            raise UserError(
                f"stage {stage!r} trains on reference solutions, and the training questions have answers alone: name "
                "the field that has them (--data.fields.solution)"
            )
        return self.train
