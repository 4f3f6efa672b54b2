"""Beam search over steps, guided by the verifier."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.search.strategies.best_of_n import BestOfN

Ended: TypeAlias = Literal["stay", "compete"]
"""What becomes of rows that have ended while others go on: they keep their places, or compete for them."""


def sqrt_width(n: int) -> int:
    """Return the largest divisor of `n` not above its square root."""
    return next(m for m in range(math.isqrt(n), 0, -1) if n % m == 0)


def select_parents(score_QN: jax.Array, live_QN: jax.Array, width: int, ended: Ended = "stay") -> jax.Array:
    """Decide which row each place continues.

    Among the L live rows of a question, or of another group of N adjacent rows, the best `ceil(L / width)` are
    kept, ties going to the lower index. The live places are dealt out to them in order of rank, `width` to each,
    the last taking what remains; so the number of rows never changes. Rows that have ended keep their places.

    Where ended rows compete, those among the best `ceil(N / width)` of all rows keep their places, one each. The others
    are dropped while any row is live, and their places are dealt out with the live ones: L above counts both, and if
    fewer rows are live than would be kept, all are.

    Args:
        score_QN: Scores; those of ended rows are ignored unless they compete.
        live_QN: Rows that have not ended.
        width: Children of a kept row (M in Snell et al. 2024).
        ended: Whether ended rows compete.

    Returns:
        Parents `[Q * N]` as row numbers of the whole batch.
    """
    Q, N = score_QN.shape
    ranked_QN = jnp.argsort(jnp.where(live_QN, -score_QN, jnp.inf), axis=-1, stable=True)
    dealt_QN = live_QN
    if ended == "compete":
        rank_QN = jnp.argsort(jnp.argsort(-score_QN, axis=-1, stable=True), axis=-1)
        dealt_QN |= (rank_QN >= -(-N // width)) & live_QN.any(axis=-1, keepdims=True)
    place_QN = jnp.cumsum(dealt_QN, axis=-1) - 1
    last_Q1 = live_QN.sum(axis=-1, keepdims=True) - 1
    place_QN = jnp.minimum(jnp.maximum(place_QN, 0) // width, jnp.maximum(last_Q1, 0))
    parent_QN = jnp.take_along_axis(ranked_QN, place_QN, axis=-1)
    parent_QN = jnp.where(dealt_QN, parent_QN, jnp.arange(N)[None])
    return (parent_QN + jnp.arange(Q)[:, None] * N).reshape(-1)


def keep_best(ops: Ops, state: Any, score_B: jax.Array, width: int, group: int, ended: Ended) -> Any:
    """Continue the best rows of every group of `group` adjacent rows in all its live places; see `select_parents`."""
    live_B = ~ops.done(state)
    return ops.fork(state, select_parents(score_B.reshape((-1, group)), live_B.reshape((-1, group)), width, ended))


@dataclass(frozen=True)
class Beam(DeviceStrategy):
    """Keep the best N / M prefixes by the verifier's latest step score, sample M next steps of each, repeat.

    Snell et al. 2024, section 5.2 and Fig. 2 (whose caption says "top M"; the text, followed here, keeps N / M).
    Where the paper is silent: a row that ends stays a candidate and keeps its place in the count N, unless told to
    compete for it; equal rows all stay; ties go to the lower index; a width that does not divide the live rows gives
    the last kept one fewer children; an N below the width, or a width of 1, is best-of-N, since nothing would be
    dropped.
    """

    n: int
    """Rows (beams) of a question: the generation budget."""
    width: int | Literal["sqrt"] = 4
    """M: next steps sampled from each kept prefix; `sqrt` is `sqrt_width(n)`."""
    max_rounds: int = 40
    """Rounds, of a step each, after which a question ends; a row that has not ended by then has no answer."""
    ended: Ended = "stay"
    """Whether rows that have ended `stay` whatever they score, or `compete` with all others, by the score they ended
    with, and are dropped where they are not among the best N / M; one cut off at its length limit has ended too."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    @property
    def name(self) -> str:
        return f"beam:n={self.n},width={self.width}{unless_default(self, 'max_rounds', 'ended', 'temperature')}"

    def plain(self) -> Beam | BestOfN:
        width = sqrt_width(self.n) if self.width == "sqrt" else self.width
        if width == 1 or self.n < width:
            return BestOfN(self.n, temperature=self.temperature)
        return dataclasses.replace(self, width=width)

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        assert isinstance(self.width, int), "run as it is only when plain"
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        return keep_best(ops, state, score_B, self.width, self.n, self.ended), carry, going_on(ops)
