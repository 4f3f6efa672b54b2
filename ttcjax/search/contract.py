"""What a search strategy is, and what it may ask of the engine that runs it.

A strategy is a frozen dataclass: hashable, so that it can be static in a compiled program, with a name in text that
`ttcjax.search.registry.parse` reads back. There are two kinds.

A `DeviceStrategy` decides step by step. It is a pure function of `Ops`, traced into one program for many questions, so
the same strategy runs on a network (`ttcjax.search.ops`) or on a script (`ttcjax.testing.ScriptedOps`), under the one
driver `ttcjax.search.drive`. A `HostStrategy` decides by texts, between calls of the engine.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import ConfigError
from ttcjax.verify import select
from ttcjax.verify.select import Selector

if TYPE_CHECKING:
    from ttcjax.search.session import Outcome, Session


@runtime_checkable
class Ops(Protocol):
    """Operations that an engine offers to a strategy inside a compiled program.

    The state is a pytree of the engine's own. Q questions are under way at once; rows of one question are adjacent.
    """

    @property
    def questions(self) -> int:
        """Q: questions under way at once."""
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

        A row with nothing new keeps the score that it had. The score of a step that has ended is kept with its row.
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
        """Let the verifier read whole rows; return the scores `[B, R]` of their steps, which are kept with the rows."""
        ...

    def steps(self, state: Any) -> jax.Array:
        """Return `[B]`: complete steps of each row."""
        ...

    def fork(self, state: Any, parent_B: jax.Array) -> Any:
        """Continue row `parent_B[b]` at place `b`."""
        ...

    def save(self, state: Any, slot_B: jax.Array) -> Any:
        """Keep row `b` in slot `slot_B[b]` of its question, whatever that held; at -1 it is kept nowhere.

        A question has `DeviceStrategy.nodes` slots, whose contents mean nothing when it begins. Two of its rows need
        two slots.
        """
        ...

    def load(self, state: Any, slot_B: jax.Array) -> Any:
        """Continue at place `b` the row that slot `slot_B[b]` of its question keeps; at -1 the row there goes on.

        As with `fork` random keys and counts of work are the place's, so a row that is loaded where it was saved, and
        extended in the same round, goes on as if it had never been left.
        """
        ...


class Strategy(abc.ABC):
    """A strategy with its settings: what those of the device and those of the host have in common."""

    revises: ClassVar[bool] = False
    """Whether it asks a revision model, not the policy."""
    may_stop: ClassVar[bool] = False
    """Whether it may leave samples undrawn, so that `rows` and `cost` are what it has at most."""
    temperature: float | None
    """Temperature of sampling, above 0; `None` for the sampler's own."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The strategy in text, read back by `ttcjax.search.registry.parse`."""

    @abc.abstractmethod
    def rows(self) -> int:
        """Return the candidates of a question, at most."""

    def at_once(self) -> int:
        """Return the rows of a question that are sampled side by side, at most."""
        return self.rows()

    def cost(self) -> int:
        """Return the generations a question, at most, as Snell et al. 2024 count them (section 5.2)."""
        return self.rows()

    @classmethod
    def at_budget(cls, budget: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a budget of generations decides, beside those that a name gives.

        A name without them stands in a sweep, whose budgets fill them in; by default that is `n`.

        Args:
            budget: Generations a question.
            given: Settings that the name gives.

        Raises:
            ConfigError: What is given leaves nothing for a budget to decide, or does not divide it.
        """
        if "n" in given:
            raise ConfigError("must not fix n, which sweep.budgets gives: leave it out")
        return {"n": budget}

    def plain(self) -> Strategy:
        """Return what is really run: settings such as `sqrt` as numbers, special cases as what they come to."""
        return self

    @property
    def selector(self) -> Selector:
        """The rule by which one answer is chosen among independent candidates."""
        return Selector()

    @property
    def asks_verifier(self) -> bool:
        """Whether what it chooses depends on the verifier."""
        return self.selector.asks_verifier

    def choose(self, groups_QN: np.ndarray, scores_QN: np.ndarray) -> np.ndarray:
        """Return the place `[Q]` of each question's chosen candidate; -1 where no answer can be read.

        Only one whose choice is no `selector`'s has its own; a sweep takes it from here too, of rows on disk.

        Args:
            groups_QN: Groups of equal answers among the candidates of each question; -1 cannot be read.
            scores_QN: The scores of the candidates that `selector.by` names.
        """
        by = self.selector
        return select.choose(groups_QN, scores_QN, by.rule, by.ties, by.vote_temperature)

    @property
    def chooses_itself(self) -> bool:
        """Whether `choose` is a rule of its own, and not that of `selector`."""
        return type(self).choose is not Strategy.choose


class DeviceStrategy(Strategy):
    """A strategy that is run on the device, a round at a time; one compiled program serves all temperatures."""

    n: int
    """Rows of a question."""
    max_rounds: int
    """Rounds after which a question ends, finished or not."""
    nodes = 0
    """Slots of a question for rows that are kept aside, see `Ops.save`; each takes the memory of a row."""

    def rows(self) -> int:
        return self.n

    def start(self, ops: Ops, state: Any, key_Q: jax.Array) -> Any:
        """Return what the strategy itself carries from round to round, for questions that begin.

        Args:
            ops: The engine.
            state: Its state, in which no row has sampled anything.
            key_Q: A random key a question: of the seed and the question alone, no key of its samples nor of a round.

        Returns:
            A pytree of arrays `[Q, ...]` or `[B, ...]`; nothing by default.
        """
        return ()

    @abc.abstractmethod
    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        """Run one round for every question.

        Args:
            ops: The engine.
            state: Its state; questions may stand in different rounds.
            carry: What the strategy carries.
            key_Q: A random key a question, another in every round.
            round_Q: `[Q]` int32: rounds that each question has behind it.

        Returns:
            The state and the carry after the round, and the questions `[Q]` to stop here, finished or not; one whose
            rows have all ended is over anyhow.
        """


class HostStrategy(Strategy):
    """A strategy that is run on the host, between calls of the engine."""

    may_stop: ClassVar[bool] = True

    def prompt_reads(self, drawn: int) -> int:
        """Return how often each model reads a question's prompt to draw so many candidates."""
        return 1

    def before(self, groups_N: np.ndarray, scores_N: np.ndarray) -> list[list[int]]:
        """Return for each of a question's candidates the places of those that it revises, the newest last.

        Of these the last ones are in view, as many as the revision model takes and has room for. By default none are.

        Args:
            groups_N: As for `choose`, of one question.
            scores_N: The same.
        """
        return [[] for _ in groups_N]

    @abc.abstractmethod
    def run(self, session: Session, seed: int) -> list[Outcome]:
        """Return what was found for every question of the session."""


def going_on(ops: Ops) -> jax.Array:
    """Return `[Q]`: no question is to stop."""
    return jnp.zeros((ops.questions,), bool)


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
