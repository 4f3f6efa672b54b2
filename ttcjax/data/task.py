"""What a data set must say of itself: its examples, how an answer is read and graded, which steps are true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING


@dataclass(frozen=True)
class Example:
    """One question with its reference solution."""

    id: str
    """Unique over all splits of a data set."""
    question: str
    solution: str
    """Steps joined by newlines; the last line states the answer."""
    answer: str
    """The final answer alone, in canonical form."""
    level: int
    """1 (easiest) to 5; 0 where the data set does not say."""
    subject: str


def _unknown_steps(example: Example, steps: Sequence[str]) -> list[bool] | None:
    return None


@dataclass(frozen=True)
class Task:
    """How the questions of one data set are put, answered and checked."""

    name: str
    prompt: Callable[[str], str]
    """Question to prompt; the prompt ends with a newline."""
    extract: Callable[[str], str | None]
    """Solution text to final answer; `None` where no answer can be read."""
    grade: Callable[[str | None, str], bool]
    """(answer, reference answer) to whether they agree; `None` never does."""
    check_steps: Callable[[Example, Sequence[str]], list[bool] | None] = _unknown_steps
    """Truth of each step of a candidate solution; `None` where the data set cannot tell."""


if TYPE_CHECKING:
    Examples = Sequence[Example]
else:
    # Checked while tests run, an element would be read from disk, a damaged one too.
    Examples = Sequence


@dataclass(frozen=True)
class Splits:
    """Random-access training, validation and test examples, disjoint by question text."""

    train: Examples
    valid: Examples
    test: Examples
