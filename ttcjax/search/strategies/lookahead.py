"""Beam search that judges a step by where it leads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from ttcjax.config import ConfigError
from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.search.strategies.beam import Beam, Ended, keep_best
from ttcjax.search.strategies.best_of_n import BestOfN


@dataclass(frozen=True)
class Lookahead(DeviceStrategy):
    """Beam search whose score of a step is the verifier's at the end of a greedy rollout of k further steps.

    Snell et al. 2024, section 5.2 and Fig. 2. A rollout decides which rows are kept and is then dropped: rows go on
    from their own ends, and their step scores are the verifier's of their own steps, as a beam search leaves them.
    A rollout that reaches the end of its solution stops there, and a row that has ended is scored as it ended; a
    step cut at `SamplerConfig.max_step_tokens` counts as one of the k. What the paper leaves open is decided as in
    `Beam`.
    """

    n: int
    """Rows (beams) of a question; the generation budget is n (k + 1)."""
    width: int | Literal["sqrt"] = 4
    """M: next steps sampled from each kept prefix; `sqrt` is `sqrt_width(n)`."""
    k: int = field(default=1, metadata={"least": 0})
    """Steps of a rollout; 0 is `Beam`. The paper runs 1 and 3."""
    max_rounds: int = 40
    """As in `Beam`."""
    ended: Ended = "stay"
    """As in `Beam`; they compete with what rollouts of the others score."""
    temperature: float | None = None
    """As in `Beam`; rollouts are greedy."""

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ConfigError(f"a lookahead's k must be a whole number from 0, not {self.k}")

    @property
    def name(self) -> str:
        rest = unless_default(self, "max_rounds", "ended", "temperature")
        return f"lookahead:n={self.n},width={self.width},k={self.k}{rest}"

    def cost(self) -> int:
        """Return n (k + 1), or n where it comes to best-of-N, which rolls nothing out."""
        return self.n * (self.k + 1) if isinstance(self.plain(), Lookahead) else self.n

    def plain(self) -> Lookahead | Beam | BestOfN:
        """Return the search with its width as a number; the beam search for k = 0, and best-of-N where that is."""
        beam = Beam(self.n, self.width, self.max_rounds, self.ended, self.temperature).plain()
        if isinstance(beam, BestOfN) or self.k == 0:
            return beam
        return dataclasses.replace(self, width=beam.width)

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        assert isinstance(self.width, int), "run as it is only when plain"
        state, _ = ops.score_step(ops.extend_step(state, round_Q))
        state, score_B = ops.lookahead(state, self.k)
        return keep_best(ops, state, score_B, self.width, self.n, self.ended), carry, going_on(ops)
