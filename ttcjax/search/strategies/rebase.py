"""REBASE: a tree search that expands every row in proportion to its reward, and drops none for its rank alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.search.strategies.best_of_n import BestOfN


def shared_out(weight_QN: jax.Array, live_QN: jax.Array) -> jax.Array:
    """Share the live places of every question out over its live rows, in proportion to their weights.

    Each row gets its quota rounded down; the places that remain go one each to the largest remainders, ties to the
    lower index (Hamilton's method), so that exactly the live places are dealt.

    Args:
        weight_QN: Float32, not negative; those of rows that are not live are ignored.
        live_QN: Rows that have not ended.

    Returns:
        `[Q, N]` int32: places for each row.
    """
    weight_QN = jnp.where(live_QN, weight_QN, 0.0)
    places_Q1 = live_QN.sum(axis=-1, keepdims=True, dtype=jnp.float32)
    total_Q1 = jnp.maximum(weight_QN.sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    quota_QN = weight_QN / total_Q1 * places_Q1
    whole_QN = jnp.floor(quota_QN)
    rest_Q1 = places_Q1 - whole_QN.sum(axis=-1, keepdims=True)
    remainder_QN = jnp.where(live_QN, quota_QN - whole_QN, -1.0)
    rank_QN = jnp.argsort(jnp.argsort(-remainder_QN, axis=-1, stable=True), axis=-1)
    more_QN = rank_QN.astype(jnp.float32) < rest_Q1
    return jnp.where(live_QN, whole_QN + more_QN.astype(jnp.float32), 0.0).astype(jnp.int32)


def places_for(count_QN: jax.Array, open_QN: jax.Array) -> jax.Array:
    """Return the row that each place continues, where rows are to have so many of the open places.

    The open places are dealt in order, all of the first row before those of the next; other places keep their rows.

    Args:
        count_QN: int32: places for each row, in sum the open ones of each question.
        open_QN: Places to be dealt.

    Returns:
        Parents `[Q * N]` as row numbers of the whole batch.
    """
    Q, N = count_QN.shape
    nth_QN = jnp.cumsum(open_QN, axis=-1) - 1
    upto_QN = jnp.cumsum(count_QN, axis=-1)
    parent_QN = jax.vmap(lambda upto, nth: jnp.searchsorted(upto, nth, side="right"))(upto_QN, nth_QN)
    parent_QN = jnp.where(open_QN, jnp.minimum(parent_QN, N - 1), jnp.arange(N)[None])
    return (parent_QN + jnp.arange(Q)[:, None] * N).reshape(-1)


@dataclass(frozen=True)
class REBASE(DeviceStrategy):
    """Share the next steps of a question out over all its open rows, by a softmax of the verifier's latest scores.

    Wu et al. 2024, "Inference scaling laws" (reward balanced search). Where a beam search keeps the best N / M rows and
    gives each M steps, here a row gets as many as its share of the softmax, rounded: a good one several, a poor one
    none. As there, a row that ends stays a candidate and its place is no longer searched with. Shares that are rounded
    each on its own can miss the budget; here they never do, see `shared_out`. One row is best-of-1.
    """

    n: int
    """Rows of a question: the generation budget."""
    score_temperature: float = 0.2
    """Temperature of the softmax of scores in (0, 1), which Wu et al. call that of balance: low ones expand the best
    row alone, high ones all rows alike."""
    max_rounds: int = 40
    """Rounds, of a step each, after which a question ends; a row that has not ended by then has no answer."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    @property
    def name(self) -> str:
        return f"rebase:n={self.n}{unless_default(self, 'score_temperature', 'max_rounds', 'temperature')}"

    def plain(self) -> REBASE | BestOfN:
        return BestOfN(1, temperature=self.temperature) if self.n == 1 else self

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        live_QN, score_QN = (x.reshape((ops.questions, self.n)) for x in (~ops.done(state), score_B))
        # Less the greatest, so that no live row's weight is lost whatever the temperature.
        best_Q1 = jnp.where(live_QN, score_QN, 0.0).max(axis=-1, keepdims=True)
        weight_QN = jnp.exp((score_QN - best_Q1) / self.score_temperature)
        return ops.fork(state, places_for(shared_out(weight_QN, live_QN), live_QN)), carry, going_on(ops)
