"""Best-of-N: N independent solutions, chosen among afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

from ttcjax.search.base import SearchOps, SearchResult


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

    def search(self, ops: SearchOps, state: Any) -> SearchResult:
        state, scores = ops.score_all(ops.extend_full(state))
        return SearchResult(state=state, step_scores=scores, rounds=jnp.int32(1))
