"""What a search strategy is, and what it may ask of the engine that runs it.

A strategy is a frozen dataclass with two sides. On the host it has a budget and a name that round-trips
through text. On the device it is a pure function of `SearchOps`, traced into one program for many questions:
so the same strategy runs on a network or on a script (`ttcjax.testing.ScriptedOps`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class SearchOps(Protocol):
    """Operations that an engine offers to a strategy inside a compiled program.

    The state is a pytree of the engine's own; rows of one question are adjacent.
    """

    @property
    def questions(self) -> int:
        """Q: questions in the batch."""
        ...

    @property
    def max_steps(self) -> int:
        """R: steps of a row whose score is kept; later ones are searched all the same."""
        ...

    def done(self, state: Any) -> jax.Array:
        """Return `[B]`: which rows have ended."""
        ...

    def extend_step(self, state: Any, round_Q: jax.Array) -> Any:
        """Sample every row that is not done to the end of its next step; `round_Q` is each question's round."""
        ...

    def extend_full(self, state: Any) -> Any:
        """Sample every row that is not done to its end."""
        ...

    def score_step(self, state: Any) -> tuple[Any, jax.Array]:
        """Let the verifier read each row's new tokens; return its score `[B]` of each row's latest step.

        A row with nothing new keeps the score that it had.
        """
        ...

    def lookahead(self, state: Any, k: int) -> tuple[Any, jax.Array]:
        """Score every row by where it leads: `[B]`, the verifier's score at the end of a greedy rollout.

        A rollout takes k further steps at temperature 0, or fewer where the row ends before; a row that has ended
        is scored as it ended. Rollouts are dropped: of the returned state only what counts work differs. The
        verifier must have read the rows, as `score_step` lets it.
        """
        ...

    def score_all(self, state: Any) -> tuple[Any, jax.Array]:
        """Let the verifier read whole rows; return the scores `[B, R]` of their steps."""
        ...

    def steps(self, state: Any) -> jax.Array:
        """Return `[B]`: complete steps of each row."""
        ...

    def fork(self, state: Any, parent_B: jax.Array) -> Any:
        """Continue row `parent_B[b]` at place `b`."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A search strategy with its settings; hashable, so it can be static in a compiled program."""

    @property
    def name(self) -> str:
        """The strategy in text, read back by `ttcjax.search.registry.parse`."""
        ...

    @property
    def n(self) -> int:
        """Rows a question needs."""
        ...

    @property
    def temperature(self) -> float | None:
        """Temperature of sampling, above 0; `None` for the sampler's own. One compiled program serves all of them."""
        ...

    def cost(self) -> int:
        """Generations a question, as Snell et al. 2024 count them (section 5.2)."""
        ...

    def resolved(self) -> Strategy:
        """Return what is really run: settings such as `sqrt` as numbers, special cases as what they come to."""
        ...

    @property
    def max_rounds(self) -> int:
        """Rounds after which a question ends, finished or not."""
        ...

    def round(self, ops: SearchOps, state: Any, step_scores: jax.Array, round_Q: jax.Array) -> tuple[Any, jax.Array]:
        """Run one round for every question.

        Args:
            ops: The engine.
            state: Its state; questions may stand in different rounds.
            step_scores: `[B, R]` float32: the verifier's score of each step so far, the rest 0.
            round_Q: `[Q]` int32: rounds each question has behind it.

        Returns:
            The state and the step scores after the round.
        """
        ...


def unless_default(strategy: Any, *names: str) -> str:
    """Return those of a strategy's settings that are not at their defaults, as its name has them after the others.

    Args:
        strategy: A dataclass.
        names: Of numbers and words among its fields.
    """
    fields = [field for field in dataclasses.fields(strategy) if field.name in names]
    given = [(field.name, getattr(strategy, field.name)) for field in fields]
    defaults = {field.name: field.default for field in fields}
    return "".join(f",{name}={value}" for name, value in given if value != defaults[name])
