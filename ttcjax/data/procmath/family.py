"""Search families: questions whose answer is guessed, then checked, which takes less than finding it.

An attempt commits to a guess, checks it line by line, says whether it fits, and answers with it either way. Every line
of an attempt that fails is true but the last, and what it found tells the next one something: that this guess is out,
and often in which direction to go on.
"""

from __future__ import annotations

import abc
import functools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ttcjax.data.task import Draft

Guess = tuple[int, ...]
"""Numbers that say which attempt it is; what they mean is the family's."""

_MOST_DRAWS = 10_000


@dataclass(frozen=True)
class Puzzle:
    """Numbers that a question gives, read from its text or drawn."""

    numbers: tuple[int, ...]
    """In the order of the question."""
    listed: tuple[tuple[int, int], ...] = ()
    """Pairs, where the question lists some."""


@dataclass(frozen=True)
class Attempt:
    """A guess carried through."""

    commits: tuple[str, ...]
    """Lines that say which guess it is."""
    checks: tuple[str, ...]
    """Lines that follow from these and the question."""
    reached: int
    wanted: int
    """The guess fits where both are equal."""
    answer: tuple[int, ...]

    @property
    def fits(self) -> bool:
        return self.reached == self.wanted

    @property
    def verdict(self) -> str:
        """The last check: what was reached beside what was wanted."""
        if self.fits:
            return f"{self.reached}={self.wanted} yes"
        return f"{self.reached}{'<' if self.reached < self.wanted else '>'}{self.wanted} no"

    @property
    def answer_line(self) -> str:
        return f"Answer: {', '.join(map(str, self.answer))}"

    def draft(self, check_lines: bool = True) -> Draft:
        """Return its lines, without the checks where these are stripped."""
        checks = (*self.checks, self.verdict) if check_lines else ()
        return Draft((*self.commits, *checks, self.answer_line), len(self.commits))


class Family(abc.ABC):
    """One kind of question; a level is the width or the depth of its search."""

    name: str
    pattern: re.Pattern[str]
    """Matches a whole question."""

    @abc.abstractmethod
    def draw(self, rng: random.Random, level: int) -> Puzzle:
        """Draw numbers; they need not give one answer, `question` sees to that."""

    @abc.abstractmethod
    def ask(self, puzzle: Puzzle) -> str:
        """Return the question."""

    @abc.abstractmethod
    def read(self, question: str) -> Puzzle:
        """Return what `ask` was given."""

    @abc.abstractmethod
    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        """Return the guesses that an attempt may be expected to commit to, in order."""

    @abc.abstractmethod
    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        """Carry a guess through."""

    @abc.abstractmethod
    def check(self, puzzle: Puzzle, lines: Sequence[str]) -> list[bool]:
        """Say of each line of an attempt, the answer line left out, whether it is true."""

    def informed(self, puzzle: Puzzle, tried: Sequence[Guess]) -> list[Guess]:
        """Return the guesses to take after attempts that failed: here those that were not tried."""
        return [guess for guess in self.guesses(puzzle) if guess not in tried]

    def question(self, rng: random.Random, level: int) -> Puzzle:
        """Draw a puzzle with exactly one guess that fits.

        Raises:
            RuntimeError: None came up in 10,000 draws, which the tests rule out for every level.
        """
        for _ in range(_MOST_DRAWS):
            puzzle = self.draw(rng, level)
            guesses = self.guesses(puzzle)
            if len(guesses) > 1 and sum(self.attempt(puzzle, guess).fits for guess in guesses) == 1:
                return puzzle
        raise RuntimeError(f"no {self.name} question of level {level} has one answer")

    def right(self, puzzle: Puzzle) -> Guess:
        """Return the guess that fits."""
        return next(guess for guess in self.guesses(puzzle) if self.attempt(puzzle, guess).fits)

    def starts(self, puzzle: Puzzle, count: int) -> list[Guess]:
        """Return guesses to begin with where `count` attempts are to fail before the one that fits: here all."""
        del count
        return self.guesses(puzzle)

    def failing(self, question: str, count: int, rng: random.Random, check_lines: bool = True) -> list[Draft]:
        """Return attempts that fail, each made with what those before it tell; fewer where no more are left."""
        puzzle = self.read(question)
        right, tried = self.right(puzzle), []
        for _ in range(count):
            every = self.informed(puzzle, tried) if tried else self.starts(puzzle, count)
            left = [guess for guess in every if guess != right]
            if not left:
                break
            tried.append(rng.choice(left))
        return [self.attempt(puzzle, guess).draft(check_lines) for guess in tried]


class Tried(Family):
    """A family whose attempts begin with a line `try ...` that commits to a guess."""

    def check(self, puzzle: Puzzle, lines: Sequence[str]) -> list[bool]:
        """A line is true where it is what this question and this attempt's guess lead to, in whatever order."""
        attempt, truths = None, []
        for line in lines:
            if line.startswith("try "):
                # Another guess in the same attempt is none of its lines.
                guess = None if attempt else self._guess(puzzle, line)
                attempt = attempt or (guess is not None and self.attempt(puzzle, guess)) or None
                truths.append(guess is not None)
            else:
                truths.append(attempt is not None and line.strip() in (*attempt.checks, attempt.verdict))
        return truths

    def _guess(self, puzzle: Puzzle, line: str) -> Guess | None:
        """Return the guess of a `try` line; `None` where the question cannot have it for an answer."""
        text = line.removeprefix("try ").strip()
        if not re.fullmatch(r"\d{1,6}", text):
            return None
        guess = (int(text),)
        return guess if guess in self.guesses(puzzle) else None


def verdict_of(line: str) -> tuple[int, int, bool] | None:
    """Return (reached, wanted, whether it says that they are equal) of a verdict line that is true in itself."""
    match = re.fullmatch(r"(\d{1,6})([<=>])(\d{1,6}) (yes|no)", line.strip())
    if not match:
        return None
    reached, wanted = int(match[1]), int(match[3])
    sign = "=" if reached == wanted else "<" if reached < wanted else ">"
    if sign != match[2] or (match[4] == "yes") != (sign == "="):
        return None
    return reached, wanted, sign == "="


@functools.cache
def numbers_of(text: str) -> tuple[int, ...]:
    """Return the whole numbers in a text."""
    return tuple(map(int, re.findall(r"\d+", text)))
