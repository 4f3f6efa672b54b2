"""A search engine with no network: solutions are numbers, steps and scores are functions of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ttcjax.engine import queue
from ttcjax.search import drive, nodes
from ttcjax.search.contract import DeviceStrategy, Strategy


@struct.dataclass
class ScriptedState:
    """B rows of a script; `path` names the steps taken so far, `drawn` and `read` count work by place."""

    path: jax.Array
    """`[B]` uint32."""
    steps: jax.Array
    done: jax.Array
    finished: jax.Array
    """`[B]` bool: ended as its path says, not by a limit of rounds."""
    drawn: jax.Array
    """`[B]` int32: steps sampled at this place, those of dropped rows included."""
    ahead: jax.Array
    """`[B]` int32: steps of rollouts drawn at this place, not among `drawn`."""
    read: jax.Array
    """`[B]` int32: steps the verifier read at this place, those of rollouts included."""
    unread: jax.Array
    """`[B]` int32: steps of the row the verifier has not read."""
    store: Any = None
    """Saved rows, see `ttcjax.search.nodes`."""

    @property
    def of_row(self) -> dict[str, jax.Array]:
        """Arrays that go where a row goes."""
        return {name: getattr(self, name) for name in ("path", "steps", "done", "finished", "unread")}


def mix(*values: int) -> int:
    """Hash numbers to 32 bits; the same in Python and, as `_mix`, under `jit`."""
    h = 2166136261
    for value in values:
        h = ((h ^ (value & 0xFFFFFFFF)) * 16777619) & 0xFFFFFFFF
        h ^= h >> 13
    return h


def _mix(*values: jax.Array) -> jax.Array:
    h = jnp.uint32(2166136261)
    for value in values:
        h = (h ^ value.astype(jnp.uint32)) * jnp.uint32(16777619)
        h = h ^ (h >> 13)
    return h


def by_number(path: jax.Array, done: jax.Array) -> jax.Array:
    """Score a path by its number over 2^32, ended or not."""
    del done
    return (path >> 8).astype(jnp.float32) / jnp.float32(1 << 24)


@dataclass(frozen=True)
class ScriptedOps:
    """An engine of `ttcjax.search.drive` without a model.

    A step sampled at place `b` of a question in round `r` turns path `x` into `mix(x, b, r)`, or into its child
    `mix(x, b % children)` where paths have a fixed number of them; the greedy step turns it into `mix(x, 0)`. A path
    ends after `min_steps` to `max_steps` steps, as its number decides.
    """

    questions: int
    """Under way at once."""
    n: int
    """Rows of a question."""
    min_steps: int = 2
    max_steps: int = 5
    first: int = 0
    """Number of the first question."""
    children: int = 0
    """Next steps that a path can take; 0: any number, every sample another."""
    verifier: Callable[[jax.Array, jax.Array], jax.Array] = by_number
    """Scores `[B]`, float32, of paths `[B]`, of which the second argument says whether they have ended."""
    nodes: int = 0
    """Slots of a question for saved rows; `search` takes the strategy's."""

    def idle(self) -> ScriptedState:
        none = jnp.zeros((self.questions * self.n,), jnp.int32)
        path = none.astype(jnp.uint32)
        state = ScriptedState(path, none, none == 0, none > 0, drawn=none, ahead=none, read=none, unread=none)
        return dataclasses.replace(state, store=nodes.empty(state.of_row, self.n, self.nodes))

    def begin(self, state: ScriptedState, fresh_B: jax.Array, line: queue.Queue, changed: jax.Array) -> ScriptedState:
        del changed
        idle = self.idle()
        question_B = (self.first + line.request_B // self.n).astype(jnp.uint32)
        begun = dataclasses.replace(idle, path=question_B, done=~idle.done, store=state.store)
        return queue.renew(fresh_B, begun, state)

    def question_keys(self, question_Q: jax.Array) -> jax.Array:
        return jax.vmap(lambda q: jax.random.fold_in(jax.random.key(0), q))(self.first + question_Q)

    def end(self, state: ScriptedState, over_B: jax.Array) -> ScriptedState:
        return dataclasses.replace(state, done=state.done | over_B)

    def last_step(self, before: ScriptedState, after: ScriptedState) -> jax.Array:
        path = (after.path >> 1).astype(jnp.int32)  # an int32 has no room for the highest bit
        return jnp.where(after.steps > before.steps, path, -1)[:, None]

    def result(self, state: ScriptedState) -> ScriptedState:
        return dataclasses.replace(state, store=None)

    def ends(self, path: int, steps: int) -> bool:
        """Return whether a path of that many steps is complete."""
        return steps >= self.min_steps + path % (self.max_steps - self.min_steps + 1)

    @staticmethod
    def score(path: int) -> float:
        """Return the score of a path by its number."""
        return float(np.float32(path >> 8) / np.float32(1 << 24))

    def done(self, state: ScriptedState) -> jax.Array:
        return state.done

    def steps(self, state: ScriptedState) -> jax.Array:
        return state.steps

    def extend_step(self, state: ScriptedState, round_Q: jax.Array) -> ScriptedState:
        place = jnp.tile(jnp.arange(self.n), self.questions)
        if self.children:
            return self._go(state, _mix(state.path, place % self.children))
        return self._go(state, _mix(state.path, place, jnp.repeat(round_Q, self.n)))

    def _go(self, state: ScriptedState, path: jax.Array) -> ScriptedState:
        """Let live rows take the step that leads to `path`."""
        live = ~state.done
        one = live.astype(jnp.int32)
        path, steps = jnp.where(live, path, state.path), state.steps + one
        span = jnp.uint32(self.max_steps - self.min_steps + 1)
        ends = steps >= self.min_steps + (path % span).astype(jnp.int32)
        return dataclasses.replace(
            state,
            path=path,
            steps=steps,
            done=state.done | ends,
            finished=state.finished | (live & ends),
            drawn=state.drawn + one,
            unread=state.unread + one,
        )

    def extend_full(self, state: ScriptedState) -> ScriptedState:
        for _ in range(self.max_steps):
            state = self.extend_step(state, jnp.zeros((self.questions,), jnp.int32))
        return state

    def score_step(self, state: ScriptedState) -> tuple[ScriptedState, jax.Array]:
        none = jnp.zeros_like(state.unread)
        score = self.verifier(state.path, state.done)
        return dataclasses.replace(state, read=state.read + state.unread, unread=none), score

    def lookahead(self, state: ScriptedState, k: int) -> tuple[ScriptedState, jax.Array]:
        there = state
        for _ in range(min(k, self.max_steps)):
            there = self._go(there, _mix(there.path, jnp.zeros_like(there.steps)))
        drawn = there.drawn - state.drawn
        there, score = self.score_step(there)
        return dataclasses.replace(state, ahead=state.ahead + drawn, read=there.read, unread=there.unread), score

    def score_all(self, state: ScriptedState) -> tuple[ScriptedState, jax.Array]:
        state, score = self.score_step(state)
        last = jnp.arange(self.max_steps)[None] == state.steps[:, None] - 1
        return state, jnp.where(last, score[:, None], 0.0)

    def fork(self, state: ScriptedState, parent_B: jax.Array) -> ScriptedState:
        return dataclasses.replace(state, **jax.tree.map(lambda leaf: leaf[parent_B], state.of_row))

    def save(self, state: ScriptedState, slot_B: jax.Array) -> ScriptedState:
        return dataclasses.replace(state, store=nodes.save(state.store, state.of_row, slot_B, self.n, self.nodes))

    def load(self, state: ScriptedState, slot_B: jax.Array) -> ScriptedState:
        return dataclasses.replace(state, **nodes.load(state.store, state.of_row, slot_B, self.n, self.nodes))

    def search(self, strategy: Strategy, questions: int | None = None, *, traced: bool = False) -> drive.Found:
        """Run a strategy; the results' rows are a `ScriptedState`.

        Args:
            strategy: Any.
            questions: How many; as many as are under way at once by default.
            traced: Write down every round.
        """
        count_Q = jnp.full((self.questions if questions is None else questions,), self.n, jnp.int32)
        plain = strategy.plain()
        assert isinstance(plain, DeviceStrategy)
        return drive.drive(plain, dataclasses.replace(self, nodes=plain.nodes), count_Q, traced=traced)
