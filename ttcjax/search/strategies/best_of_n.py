"""Best-of-N: N independent solutions, chosen among afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax

from ttcjax.config.base import require
from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.verify.select import Selector


@dataclass(frozen=True)
class BestOfN(DeviceStrategy):
    """Sample N solutions and score every step of each (Snell et al. 2024, section 5.2)."""

    max_rounds: ClassVar[int] = 1

    n: int
    select: Literal["weighted", "best", "majority", "softmax"] = "weighted"
    """How the answer is chosen among the N, see `ttcjax.verify.select.choose`."""
    vote_temperature: float = 1.0
    """Of the votes of `softmax`: high ones make it `majority`, low ones `best`."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""
    ties: Literal["first", "verifier"] = "first"
    """Of `majority`: the earliest sample decides, or the verifier."""
    by: Literal["verifier", "likelihood"] = "verifier"
    """Whose scores select, `weighted` or `best`: the verifier's, or the policy's own, see
    `ttcjax.verify.aggregate.token_likelihood`."""

    def __post_init__(self) -> None:
        require(
            self.by == "verifier" or self.select in ("weighted", "best"),
            f"best_of_n takes by with select=weighted or select=best only, not with select={self.select}: leave it out",
        )
        require(
            self.ties == "first" or self.select == "majority",
            f"best_of_n takes ties with select=majority only, not with select={self.select}: leave it out",
        )
        require(
            self.vote_temperature == 1.0 or self.select == "softmax",
            f"best_of_n takes a vote_temperature with select=softmax only, not with select={self.select}: leave it out",
        )

    @property
    def selector(self) -> Selector:
        ties = self.ties if self.select == "majority" else None
        return Selector(self.select, ties, self.vote_temperature, self.by)

    @property
    def name(self) -> str:
        # A softmax at a temperature of sampling is read only with that of its votes beside it.
        both = self.select == "softmax" and self.temperature is not None
        votes = f",vote_temperature={self.vote_temperature!r}" if both else unless_default(self, "vote_temperature")
        return f"best_of_n:n={self.n},select={self.select}{votes}{unless_default(self, 'temperature', 'ties', 'by')}"

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        state, _ = ops.score_all(ops.extend_full(state))
        return state, carry, going_on(ops)
