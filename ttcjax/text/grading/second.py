"""A second grader beside ours, and where the two disagree."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ttcjax.text.grading.spelling import unwrapped
from ttcjax.text.grading.worker import SymbolicWorker, grade, heavy

Grader = Callable[[str | None, str], bool]
"""Tells whether an answer, `None` where there is none, agrees with a reference."""

_MATH_VERIFY = SymbolicWorker(exact=False)
atexit.register(_MATH_VERIFY.close)


def math_verify(answer: str | None, gold: str) -> bool:
    r"""Return the verdict of math-verify alone, by its LaTeX grammar and its own tolerances.

    Its reader of plain expressions is left out: it ends in Python's `eval`. What `worker.heavy` keeps from computer
    algebra is wrong.

    Raises:
        UserError: math-verify is not installed.
    """
    if answer is None or heavy(answer) or heavy(gold):
        return False
    return _MATH_VERIFY.grade(unwrapped(answer), unwrapped(gold))


GRADERS: dict[str, Grader] = {"math-verify": math_verify}
"""Second graders by name."""


@dataclass(frozen=True)
class Disagreement:
    """A pair on which two graders give different verdicts."""

    place: int
    """Place of the pair, from 0."""
    answer: str | None
    gold: str
    first: bool
    """The verdict of the first grader; the second one says the opposite."""


@dataclass(frozen=True)
class Agreement:
    """Two graders on the same pairs."""

    pairs: int
    both_right: int
    both_wrong: int
    disagreements: tuple[Disagreement, ...]

    @property
    def share(self) -> float:
        """Share of pairs on which they agree; 1 of none."""
        return 1 - len(self.disagreements) / self.pairs if self.pairs else 1.0


def agreement(
    pairs: Iterable[tuple[str | None, str]], second: Grader = math_verify, first: Grader = grade
) -> Agreement:
    """Return on how many pairs of answer and reference two graders agree, and every pair on which they do not."""
    count, right, found = 0, 0, []
    for place, (answer, gold) in enumerate(pairs):
        verdict = first(answer, gold)
        count += 1
        if verdict is not second(answer, gold):
            found.append(Disagreement(place, answer, gold, verdict))
        else:
            right += verdict
    return Agreement(count, right, count - right - len(found), tuple(found))
