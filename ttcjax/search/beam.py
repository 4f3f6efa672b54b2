"""Beam search over steps, guided by the verifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ttcjax.search.base import SearchOps
from ttcjax.search.best_of_n import BestOfN


def sqrt_width(n: int) -> int:
    """Return the largest divisor of `n` not above its square root."""
    return next(m for m in range(math.isqrt(n), 0, -1) if n % m == 0)


def select_parents(score_QN: jax.Array, live_QN: jax.Array, width: int) -> jax.Array:
    """Decide which row each place continues.

    Among the L live rows of a question the best `ceil(L / width)` are kept, ties going to the lower index.
    The live places are dealt out to them in order of rank, `width` to each, the last taking what remains; so
    the number of rows never changes. Rows that have ended keep their places.

    Args:
        score_QN: Verifier scores; those of ended rows are ignored.
        live_QN: Rows that have not ended.
        width: Children of a kept row (M in Snell et al. 2024).

    Returns:
        Parents `[Q * N]` as row numbers of the whole batch.
    """
    Q, N = score_QN.shape
    ranked_QN = jnp.argsort(jnp.where(live_QN, -score_QN, jnp.inf), axis=-1, stable=True)
    place_QN = jnp.cumsum(live_QN, axis=-1) - 1
    parent_QN = jnp.take_along_axis(ranked_QN, jnp.maximum(place_QN, 0) // width, axis=-1)
    parent_QN = jnp.where(live_QN, parent_QN, jnp.arange(N)[None])
    return (parent_QN + jnp.arange(Q)[:, None] * N).reshape(-1)


@dataclass(frozen=True)
class Beam:
    """Keep the best N / M prefixes by the verifier's latest step score, sample M next steps of each, repeat.

    Snell et al. 2024, section 5.2 and Fig. 2 (whose caption says "top M"; the text, followed here, keeps N / M).
    Where the paper is silent: a row that ends stays a candidate and keeps its place in the count N; an N below
    the width, or a width of 1, is best-of-N, since nothing would be dropped.
    """

    n: int
    """Rows (beams) of a question: the generation budget."""
    width: int | Literal["sqrt"] = 4
    """M: next steps sampled from each kept prefix; `sqrt` is `sqrt_width(n)`."""
    max_rounds: int = 40

    @property
    def name(self) -> str:
        return f"beam:n={self.n},width={self.width}"

    def cost(self) -> int:
        return self.n

    def resolved(self) -> Beam | BestOfN:
        width = sqrt_width(self.n) if self.width == "sqrt" else self.width
        return BestOfN(self.n) if width == 1 or self.n < width else Beam(self.n, width, self.max_rounds)

    def round(self, ops: SearchOps, state: Any, step_scores: jax.Array, round_Q: jax.Array) -> tuple[Any, jax.Array]:
        """Run one round; the strategy must be `resolved`."""
        assert isinstance(self.width, int)
        live_before = ~ops.done(state)
        before = ops.steps(state)
        state, score = ops.score_step(ops.extend_step(state, round_Q))
        # A step cut at its length limit, or the unfinished end of a row, is scored but is no step.
        ended_step = live_before & (ops.steps(state) > before)
        index = jnp.where(ended_step, before, ops.max_steps)
        step_scores = step_scores.at[jnp.arange(len(before)), index].set(score, mode="drop")
        live = ~ops.done(state)
        parents = select_parents(score.reshape(ops.questions, -1), live.reshape(ops.questions, -1), self.width)
        return ops.fork(state, parents), step_scores[parents]
