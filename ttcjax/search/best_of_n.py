"""Best-of-N: N independent solutions, chosen among afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax

from ttcjax.search.base import SearchOps


@dataclass(frozen=True)
class BestOfN:
    """Sample N solutions and score every step of each (Snell et al. 2024, section 5.2)."""

    n: int
    select: Literal["weighted", "best", "majority"] = "weighted"
    """How the answer is chosen among the N."""

    @property
    def name(self) -> str:
        return f"best_of_n:n={self.n},select={self.select}"

    def cost(self) -> int:
        return self.n

    def resolved(self) -> BestOfN:
        return self

    @property
    def max_rounds(self) -> int:
        return 1

    def round(self, ops: SearchOps, state: Any, step_scores: jax.Array, round_Q: jax.Array) -> tuple[Any, jax.Array]:
        return ops.score_all(ops.extend_full(state))
