"""The driver: runs a strategy on any engine, a round at a time, for more questions than are under way at once.

What every search needs and no engine should repeat stands here: questions that have ended give their places to the next
ones, step scores follow their rows, the strategy's carry and random keys begin anew with each question, and, on demand,
every round is written down.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.engine import programs, queue
from ttcjax.search import nodes
from ttcjax.search.contract import DeviceStrategy, Ops

_STRATEGY = 0xFFFF_FFFF
"""Number of a strategy's own key among those of a question; samples are numbered from 0, far below."""


class Engine(Ops, Protocol):
    """An engine as the driver needs it: rows that begin, end and are kept, beside the operations of strategies."""

    @property
    def n(self) -> int:
        """Rows of a question."""
        ...

    def idle(self) -> Any:
        """Return the state in which no row has anything to do: all are done."""
        ...

    def begin(self, state: Any, fresh_B: jax.Array, line: queue.Queue, changed: jax.Array) -> Any:
        """Let the fresh rows begin what `line.request_B` says; `changed` tells whether any is of another question."""
        ...

    def question_keys(self, question_Q: jax.Array) -> jax.Array:
        """Return a random key a question, of the seed and the question alone."""
        ...

    def end(self, state: Any, over_B: jax.Array) -> Any:
        """End some rows, finished or not."""
        ...

    def last_step(self, before: Any, after: Any) -> jax.Array:
        """Return what each row has sampled between two states, `[B, T]` numbers, padded with -1."""
        ...

    def result(self, state: Any) -> Any:
        """Return what is kept of rows that have ended, a pytree of `[B, ...]`."""
        ...


@struct.dataclass
class Trace:
    """Every round of a search, by the places of a question's rows; leaves are `[B, rounds, ...]`."""

    parent: jax.Array
    """int32: the row, counted within its question, that stood at each place after the round, by the place where it
    stood in it; -1 in rounds that were not run. A place that is nobody's parent was dropped."""
    score: jax.Array
    """float32: the verifier's score of the row that stood there in the round."""
    step: jax.Array
    """`[B, rounds, T]` int32: what that row had sampled in the round, padded with -1."""


@struct.dataclass
class Found:
    """Results of a search in B rows."""

    rows: Any
    """What the engine keeps of them."""
    step_scores: jax.Array
    """`[B, R]` float32; entries past a row's steps are 0."""
    trace: Trace | None


@struct.dataclass
class _Watched:
    """The engine's state, and what the driver keeps beside it."""

    state: Any
    step_scores: jax.Array
    """`[B, R]` float32: the verifier's score of each step so far, the rest 0."""
    scored: jax.Array
    """`[B]` int32: steps that had ended when the verifier read the row last."""
    parent: jax.Array
    """`[B]` int32: where in its question each row stood when the round began."""
    score: jax.Array
    """`[B]` float32: the latest score of the row that stood at this place in the round."""
    step: jax.Array | None
    """`[B, T]` int32: what that row has sampled in the round."""
    store: Any = None
    """What is kept here of saved rows."""

    @property
    def of_row(self) -> tuple[jax.Array, ...]:
        """The fields that go where a row goes."""
        return self.step_scores, self.scored, self.score


@dataclass(frozen=True)
class _Watch:
    """An engine's operations on `_Watched`: step scores and parents follow the rows."""

    engine: Engine
    traced: bool
    nodes: int

    @property
    def questions(self) -> int:
        return self.engine.questions

    @property
    def max_steps(self) -> int:
        return self.engine.max_steps

    def done(self, state: _Watched) -> jax.Array:
        return self.engine.done(state.state)

    def steps(self, state: _Watched) -> jax.Array:
        return self.engine.steps(state.state)

    def _sampled(self, state: _Watched, after: Any) -> _Watched:
        step = self.engine.last_step(state.state, after) if self.traced else None
        return dataclasses.replace(state, state=after, step=step)

    def extend_step(self, state: _Watched, round_Q: jax.Array) -> _Watched:
        return self._sampled(state, self.engine.extend_step(state.state, round_Q))

    def extend_full(self, state: _Watched) -> _Watched:
        # Whole rows are told of by the result itself.
        return dataclasses.replace(state, state=self.engine.extend_full(state.state))

    def score_step(self, state: _Watched) -> tuple[_Watched, jax.Array]:
        inner, score_B = self.engine.score_step(state.state)
        steps_B = self.engine.steps(inner)
        # A step cut at its length limit, or the unfinished end of a row, is scored but is no step.
        index_B = jnp.where(steps_B > state.scored, steps_B - 1, self.max_steps)
        kept = state.step_scores.at[jnp.arange(len(index_B)), index_B].set(score_B, mode="drop")
        return dataclasses.replace(state, state=inner, step_scores=kept, scored=steps_B, score=score_B), score_B

    def lookahead(self, state: _Watched, k: int) -> tuple[_Watched, jax.Array]:
        inner, score_B = self.engine.lookahead(state.state, k)
        return dataclasses.replace(state, state=inner, score=score_B), score_B

    def score_all(self, state: _Watched) -> tuple[_Watched, jax.Array]:
        inner, scores_BR = self.engine.score_all(state.state)
        steps_B = self.engine.steps(inner)
        return dataclasses.replace(state, state=inner, step_scores=scores_BR, scored=steps_B), scores_BR

    def fork(self, state: _Watched, parent_B: jax.Array) -> _Watched:
        return dataclasses.replace(
            state,
            state=self.engine.fork(state.state, parent_B),
            step_scores=state.step_scores[parent_B],
            scored=state.scored[parent_B],
            parent=state.parent[parent_B],
        )

    def save(self, state: _Watched, slot_B: jax.Array) -> _Watched:
        store = nodes.save(state.store, state.of_row, slot_B, self.engine.n, self.nodes)
        return dataclasses.replace(state, state=self.engine.save(state.state, slot_B), store=store)

    def load(self, state: _Watched, slot_B: jax.Array) -> _Watched:
        scores, scored, score = nodes.load(state.store, state.of_row, slot_B, self.engine.n, self.nodes)
        inner = self.engine.load(state.state, slot_B)
        return dataclasses.replace(state, state=inner, step_scores=scores, scored=scored, score=score)


@struct.dataclass
class _Under:
    """All that a turn of the driver's loop changes."""

    line: queue.Queue
    watched: _Watched
    carry: Any
    round_Q: jax.Array
    trace: Trace | None
    found: Found


def drive(strategy: DeviceStrategy, engine: Engine, count_Q: jax.Array, *, traced: bool = False) -> Found:
    """Run a strategy for every question; places whose question has ended go on with the next one.

    Args:
        strategy: `plain`.
        engine: Holds the questions.
        count_Q: int32: rows that each question wants, the strategy's `n`, or 0 for padding, which comes last.
        traced: Write down every round.

    Returns:
        Results `[questions * n, ...]`.
    """
    n, held, total = strategy.n, engine.questions, count_Q.shape[0]
    assert engine.n == n, "the rows of a question depend on each other"
    B = held * n
    assert not (traced and strategy.nodes), "the rounds of a search that goes back are not told by parents"
    ops, place_B = _Watch(engine, traced, strategy.nodes), jnp.tile(jnp.arange(n, dtype=jnp.int32), held)

    def results(watched: _Watched, trace: Trace | None) -> Found:
        return Found(engine.result(watched.state), watched.step_scores, trace)

    def keys(question_Q: jax.Array) -> jax.Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, _STRATEGY))(engine.question_keys(question_Q))

    folded = jax.vmap(jax.random.fold_in)

    def under_way(now: _Under) -> jax.Array:
        return ~engine.done(now.watched.state).all() | queue.waiting(now.line, count_Q)

    def turn(now: _Under) -> _Under:
        idle_B = _by_question(engine.done(now.watched.state), n)
        line, fresh_B = queue.hand_out(now.line, idle_B, count_Q, n)
        fresh_Q = fresh_B.reshape((held, n))[:, 0]
        changed = (line.question_G != now.line.question_G).any()
        watched = _Watched(
            state=engine.begin(now.watched.state, fresh_B, line, changed),
            step_scores=jnp.where(fresh_B[:, None], 0.0, now.watched.step_scores),
            scored=jnp.where(fresh_B, 0, now.watched.scored),
            parent=place_B,
            score=now.watched.score,
            step=now.watched.step,
            store=now.watched.store,
        )
        key_Q, round_Q = keys(line.question_G), jnp.where(fresh_Q, 0, now.round_Q)
        carry = queue.renew(fresh_Q, strategy.start(ops, watched, folded(key_Q, jnp.zeros_like(round_Q))), now.carry)
        round_keys = folded(key_Q, round_Q + 1)
        watched, carry, stop_Q = strategy.round(ops, watched, carry, round_keys, round_Q)
        over_B = jnp.repeat(stop_Q | (round_Q + 1 >= strategy.max_rounds), n)
        watched = dataclasses.replace(watched, state=engine.end(watched.state, over_B))
        trace = _note(now.trace, fresh_B, jnp.repeat(round_Q, n), watched)
        ended_B = _by_question(engine.done(watched.state), n)
        found = queue.harvest(now.found, results(watched, trace), line.request_B, ended_B)
        return _Under(line, watched, carry, round_Q + 1, trace, found)

    line = queue.start(held, B, total, n)
    state, none_B = engine.idle(), jnp.zeros((B,), jnp.int32)
    watched = _Watched(
        state=state,
        step_scores=jnp.zeros((B, engine.max_steps), jnp.float32),
        scored=none_B,
        parent=place_B,
        score=jnp.zeros((B,), jnp.float32),
        step=jnp.full_like(engine.last_step(state, state), -1) if traced else None,
    )
    watched = dataclasses.replace(watched, store=nodes.empty(watched.of_row, n, strategy.nodes))
    trace = _empty(B, strategy.max_rounds, watched)
    found = programs.no_results(results(watched, trace), total * n)
    carry = strategy.start(ops, watched, keys(line.question_G))
    now = _Under(line, watched, carry, jnp.zeros_like(line.question_G), trace, found)
    return jax.lax.while_loop(under_way, turn, now).found


def _by_question(done_B: jax.Array, n: int) -> jax.Array:
    """Return which rows `[B]` belong to questions of which all rows are done."""
    return jnp.repeat(done_B.reshape((-1, n)).all(axis=1), n)


def _empty(rows: int, rounds: int, watched: _Watched) -> Trace | None:
    if watched.step is None:
        return None
    return Trace(
        parent=jnp.full((rows, rounds), -1, jnp.int32),
        score=jnp.zeros((rows, rounds), jnp.float32),
        step=jnp.full((rows, rounds, watched.step.shape[1]), -1, jnp.int32),
    )


def _note(trace: Trace | None, fresh_B: jax.Array, round_B: jax.Array, watched: _Watched) -> Trace | None:
    """Return the trace with the round that is just over, begun anew for fresh rows."""
    if trace is None or watched.step is None:
        return None
    B, rounds = trace.parent.shape
    begun = queue.renew(fresh_B, _empty(B, rounds, watched), trace)
    told = Trace(watched.parent, watched.score, watched.step)
    return jax.tree.map(lambda old, new: old.at[jnp.arange(B), round_B].set(new), begun, told)
