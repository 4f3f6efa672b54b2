"""Ends of steps and of solutions in tokens, on the host and on devices."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


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
