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

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.runtime.errors import UserError
from ttcjax.text import automaton

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class StepMarks:
    """Ends of steps and of solutions in the ids of one tokenizer: an automaton that reads tokens.

    Static in compiled programs. Its state begins at 0 with each solution; separators that single tokens complete need
    no other state.
    """

    stop_ids: tuple[int, ...]
    """Tokens that end a solution, and with it its last step."""
    moves: tuple[tuple[int, ...], ...]
    """`[state][kind of token]`: twice the state after the token, one more where the token ends a step."""
    tokens: tuple[tuple[int, ...], ...]
    """Tokens of each kind from 1 on; all others are of kind 0. Token `size` stands for all from there on."""
    size: int
    """Tokens of the vocabulary."""

    @classmethod
    def of_ids(cls, stop_ids: tuple[int, ...], step_ids: tuple[int, ...]) -> StepMarks:
        """Return the marks where tokens end steps whatever stands before them."""
        size = max((*stop_ids, *step_ids, 0)) + 1
        return cls(stop_ids, ((0, 1),), (tuple(i for i in step_ids if i not in stop_ids),), size)

    @property
    def _ending(self) -> tuple[int, ...]:
        """Tokens that end a step in every state, those that end a solution last."""
        always = [i for i, kinds in enumerate(self.tokens, 1) if all(row[i] & 1 for row in self.moves)]
        return (*(t for i in always for t in self.tokens[i - 1] if t not in self.stop_ids), *self.stop_ids)

    @functools.cached_property
    def _kinds(self) -> dict[int, int]:
        return {token: kind for kind, held in enumerate(self.tokens, 1) for token in held}

    def ends(self, tokens: Sequence[int] | np.ndarray, begin: int = 0) -> list[int]:
        """Return the positions in a row of tokens at which steps of the solution that begins at `begin` end."""
        state, found, kinds = 0, [], self._kinds
        for i in range(begin, len(tokens)):
            token = int(tokens[i])
            state, ended = divmod(self.moves[state][kinds.get(min(token, self.size), 0)], 2)
            if token in self.stop_ids:
                state, ended = 0, 1
            if ended:
                found.append(i)
        return found

    def stops(self, tokens: jax.Array) -> jax.Array:
        """Return which of `tokens` end a solution."""
        return _one_of(tokens, self.stop_ids)

    def step(self, state_B: jax.Array, token_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the states `[B]` after one more token a row, and which of the tokens end a step.

        Args:
            state_B: int32; 0 before the first token of a solution.
            token_B: Tokens.
        """
        if len(self.moves) == 1:
            return state_B, _one_of(token_B, self._ending)
        kind_T = np.zeros(self.size + 1, np.int32)
        for kind, held in enumerate(self.tokens, 1):
            kind_T[list(held)] = kind
        kind_B = jnp.asarray(kind_T)[jnp.minimum(token_B, self.size)]
        code_B = jnp.asarray(self.moves, jnp.int32)[state_B, kind_B]
        stop_B = self.stops(token_B)
        return jnp.where(stop_B, 0, code_B >> 1), stop_B | (code_B % 2 == 1)

    def ends_of_rows(self, tokens_BS: jax.Array, begin_B: jax.Array, length_B: jax.Array) -> jax.Array:
        """Return which slots `[B, S]` end a step of the solution in slots `begin .. length - 1` of each row."""
        slots_1S = jnp.arange(tokens_BS.shape[1])[None]
        inside_BS = (slots_1S >= begin_B[:, None]) & (slots_1S < length_B[:, None])
        if len(self.moves) == 1:
            return _one_of(tokens_BS, self._ending) & inside_BS

        def slot(state_B: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            token_B, inside_B = at
            after_B, end_B = self.step(state_B, token_B)
            return jnp.where(inside_B, after_B, 0), end_B

        _, ends_SB = jax.lax.scan(slot, jnp.zeros_like(begin_B), (tokens_BS.T, inside_BS.T))
        return ends_SB.T & inside_BS


def _one_of(tokens: jax.Array, ids: Sequence[int]) -> jax.Array:
    wanted = jnp.asarray(ids, tokens.dtype).reshape((1,) * tokens.ndim + (-1,))
    return (tokens[..., None] == wanted).any(axis=-1)
