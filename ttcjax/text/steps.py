"""Steps of a solution: where they end, in a text and in tokens.

A step ends as soon as the text that has come since the last one ends with a separator: read from left to right, a match
of the pattern ends where it can end first, and what follows belongs to the next step. In tokens the step ends with the
token whose text completes the separator, be it the last of several that only together make one up. Where one token
completes several separators it ends one step: nothing can be cut within it. A token that ends the solution ends its
last step.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ttcjax.runtime.errors import UserError
from ttcjax.text import automaton

if TYPE_CHECKING:
    from ttcjax.text.step_marks import StepMarks
    from ttcjax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class StepFormat:
    """The separator of the steps of a solution.

    Raises:
        UserError: The pattern cannot be used (`ttcjax.text.automaton`), or the separator is no match of it.
    """

    separator: str = "\n"
    """Text between two steps: a newline, a blank line (`"\\n\\n"`), a mark. It must show in the text: solutions are
    kept as text, and read into tokens again."""
    pattern: str | None = None
    """Regular expression of separators, `separator` among them, in the syntax of `ttcjax.text.automaton`; by default
    that of `separator` alone."""

    def __post_init__(self) -> None:
        if not self.separator:
            raise UserError("the separator of steps is empty: give a text such as a newline")
        data = self.separator.encode(errors="surrogatepass")
        if automaton.run(self._automaton(), 0, data)[1] != [len(data)]:
            raise UserError(f"the separator of steps {self.separator!r} is no match of the pattern {self.pattern!r}")

    @classmethod
    def of_token(cls, tokenizer: Tokenizer, token: int) -> StepFormat:
        """Return the format in which a token's text, such as that of a special mark, separates steps.

        Raises:
            UserError: The token has no text: it would not be seen in a stored solution.
        """
        text = tokenizer.decode([token])
        if not text or "\ufffd" in text:
            raise UserError(
                f"token {token} cannot separate steps: it has no text of its own, which solutions are kept as"
            )
        return cls(text)

    def _automaton(self, *, anchored: bool = False) -> automaton.Automaton:
        pattern = automaton.literal(self.separator) if self.pattern is None else self.pattern
        return _compiled(pattern, anchored)

    def split(self, text: str) -> list[str]:
        """Return the steps of a solution, without the separators.

        Where `separator` is the only one, `join` puts them together again exactly. A text without any is one step, and
        one that ends with a separator has an empty last step; so a solution has as many steps as step ends in tokens,
        once a stop token follows it, where no token completes two separators.
        """
        if self.pattern is None:
            return text.split(self.separator)
        data = text.encode(errors="surrogatepass")
        _, ends = automaton.run(self._automaton(), 0, data)
        steps, begin = [], 0
        for end in ends:
            steps.append(data[begin : self._start(data, begin, end)])
            begin = end
        return [step.decode(errors="surrogatepass") for step in (*steps, data[begin:])]

    def _start(self, data: bytes, begin: int, end: int) -> int:
        """Return where the longest match that ends at `end` starts, from `begin` on."""
        whole = self._automaton(anchored=True)
        return next(i for i in range(begin, end) if automaton.run(whole, 0, data[i:end])[1] == [end - i])

    def join(self, steps: Sequence[str]) -> str:
        """Return the solution that consists of `steps`, each free of separators."""
        return self.separator.join(steps)

    def marks(self, tokenizer: Tokenizer) -> StepMarks:
        """Return what tells in a tokenizer's ids where steps and solutions end."""
        # A format is part of what the command says of data sets, and that is said without JAX.
        from ttcjax.text.step_marks import StepMarks

        found = self._automaton()
        states = len(found.next)
        # All tokens at once, byte by byte; ids beyond the vocabulary are read as a byte that is no text.
        pieces = [*tokenizer.pieces, b"\xff"]
        longest = max(map(len, pieces))
        data = np.zeros((len(pieces), longest), np.uint8)
        for i, piece in enumerate(pieces):
            data[i, : len(piece)] = np.frombuffer(piece, np.uint8)
        length = np.array([len(piece) for piece in pieces])
        state = np.tile(np.arange(states, dtype=np.int32), (len(pieces), 1))
        ended = np.zeros((len(pieces), states), bool)
        for i in range(longest):
            read = (i < length)[:, None]
            byte = data[:, i][:, None]
            ended |= read & found.ends[state, byte]
            state = np.where(read, found.next[state, byte], state)
        moves, of_piece = np.unique(2 * state + ended, axis=0, return_inverse=True)
        kinds = of_piece.reshape(-1).tolist()
        # The most common kind of those that end nothing is not listed: most tokens have no part in a separator.
        usual = collections.Counter(kind for kind in kinds if not (moves[kind] % 2).any()).most_common(1)[0][0]
        others = [kind for kind in range(len(moves)) if kind != usual]
        return StepMarks(
            stop_ids=tuple(tokenizer.stop_ids),
            moves=tuple(tuple(row) for row in moves[[usual, *others]].T.tolist()),
            tokens=tuple(tuple(i for i, kind in enumerate(kinds) if kind == other) for other in others),
            size=len(pieces) - 1,
        )


@functools.lru_cache(maxsize=64)
def _compiled(pattern: str, anchored: bool) -> automaton.Automaton:
    return automaton.compile_pattern(pattern, anchored=anchored)


LINES = StepFormat()
"""A step a line."""
