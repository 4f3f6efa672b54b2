"""Particle filtering: rows are resampled at random by how good the verifier finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.search.strategies.best_of_n import BestOfN

_LEAST = 1e-6
"""Scores are kept this far from 0 and 1, where their logits have no value."""


def drawn(weight_QN: jax.Array, uniform_QN: jax.Array) -> jax.Array:
    """Draw N rows of every question with replacement, in proportion to weights, by inverting their sums.

    Args:
        weight_QN: Float32, not negative, not all 0.
        uniform_QN: Numbers in [0, 1), in rising order.

    Returns:
        `[Q, N]` int32: the row drawn for each number.
    """
    upto_QN = jnp.cumsum(weight_QN, axis=-1)
    at_QN = uniform_QN * upto_QN[:, -1:]
    row_QN = jax.vmap(lambda upto, at: jnp.searchsorted(upto, at, side="right"))(upto_QN, at_QN)
    # A product rounded up to the whole sum would lie past the last row that weighs anything.
    last_Q1 = weight_QN.shape[1] - 1 - jnp.argmax(weight_QN[:, ::-1] > 0, axis=-1)[:, None]
    return jnp.minimum(row_QN, last_Q1).astype(jnp.int32)


@dataclass(frozen=True)
class Particles(DeviceStrategy):
    """Let every row take a step, then draw N rows anew in proportion to their weights; repeat until all have ended.

    Puri et al. 2025, "A probabilistic inference approach to inference-time scaling of LLMs using particle-based Monte
    Carlo methods": a row weighs exp(logit(score) / temperature), so that a verifier's mistake is paid by chance, not
    by a rank. Rows that have ended are drawn with the others, by the score they ended with. One row is best-of-1.
    """

    n: int
    """Particles of a question: the generation budget."""
    resample: Literal["systematic", "multinomial"] = "systematic"
    """How rows are drawn: at equal steps from one random start, each row within one of its due, or each by itself, as
    in the paper."""
    score_temperature: float = 1.0
    """Temperature of the weights: low ones keep the best row alone, high ones draw all alike."""
    max_rounds: int = 40
    """Rounds, of a step each, after which a question ends; a row that has not ended by then has no answer."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    @property
    def name(self) -> str:
        rest = unless_default(self, "resample", "score_temperature", "max_rounds", "temperature")
        return f"particles:n={self.n}{rest}"

    def plain(self) -> Particles | BestOfN:
        return BestOfN(1, temperature=self.temperature) if self.n == 1 else self

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        score_QN = jnp.clip(score_B.reshape((ops.questions, self.n)), _LEAST, 1 - _LEAST)
        logit_QN = (jnp.log(score_QN) - jnp.log1p(-score_QN)) / self.score_temperature
        weight_QN = jnp.exp(logit_QN - logit_QN.max(axis=-1, keepdims=True))
        row_QN = drawn(weight_QN, self.uniform(key_Q))
        # Once all have ended nothing is left to propose: another draw would only lose candidates.
        over_Q1 = ops.done(state).reshape(row_QN.shape).all(axis=1, keepdims=True)
        row_QN = jnp.where(over_Q1, jnp.arange(self.n, dtype=jnp.int32)[None], row_QN)
        parent_QN = row_QN + jnp.arange(ops.questions)[:, None] * self.n
        return ops.fork(state, parent_QN.reshape(-1)), carry, going_on(ops)

    def uniform(self, key_Q: jax.Array) -> jax.Array:
        """Return the numbers `[Q, N]` in [0, 1), in rising order, by which a round draws."""
        if self.resample == "multinomial":
            return jnp.sort(jax.vmap(lambda key: jax.random.uniform(key, (self.n,)))(key_Q), axis=-1)
        start_Q1 = jax.vmap(lambda key: jax.random.uniform(key, (1,)))(key_Q)
        return (jnp.arange(self.n, dtype=jnp.float32)[None] + start_Q1) / self.n
