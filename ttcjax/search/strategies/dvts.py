"""Diverse verifier tree search: several small beam searches that never compete with each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax

from ttcjax.config import ConfigError
from ttcjax.search.contract import DeviceStrategy, Ops, going_on, unless_default
from ttcjax.search.strategies.beam import Beam, Ended, keep_best, sqrt_width
from ttcjax.search.strategies.best_of_n import BestOfN


@dataclass(frozen=True)
class DVTS(DeviceStrategy):
    """Split N rows into N / M subtrees of M rows; each keeps its best row and samples M next steps of it, repeat.

    Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models". A prefix that the verifier
    overrates fills its own subtree and no other. What is left open is decided as in `Beam`: a row that ends stays
    a candidate and keeps its place, and the subtree goes on in the places that remain. A width of 1, or an N below
    the width, is best-of-N; N = M, one subtree, is beam search.
    """

    n: int
    """Rows of a question, a multiple of the width unless smaller: the generation budget."""
    width: int | Literal["sqrt"] = 4
    """M: rows of a subtree; `sqrt` is `sqrt_width(n)`."""
    max_rounds: int = 40
    """As in `Beam`."""
    ended: Ended = "stay"
    """As in `Beam`; rows compete within their subtree, of which one, the best, is kept."""
    temperature: float | None = None
    """As in `Beam`."""

    def __post_init__(self) -> None:
        width = self._width
        if self.n > width and self.n % width:
            below, above = self.n // width * width, -(-self.n // width) * width
            raise ConfigError(
                f"dvts: subtrees of {width} rows do not fill n={self.n}: take n={below}, n={above} or width=sqrt"
            )

    @property
    def _width(self) -> int:
        return sqrt_width(self.n) if self.width == "sqrt" else self.width

    @property
    def name(self) -> str:
        return f"dvts:n={self.n},width={self.width}{unless_default(self, 'max_rounds', 'ended', 'temperature')}"

    def plain(self) -> DVTS | Beam | BestOfN:
        if self.n <= self._width or self._width == 1:
            return Beam(self.n, self._width, self.max_rounds, self.ended, self.temperature).plain()
        return dataclasses.replace(self, width=self._width)

    def round(
        self, ops: Ops, state: Any, carry: Any, key_Q: jax.Array, round_Q: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        assert isinstance(self.width, int), "run as it is only when plain"
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        return keep_best(ops, state, score_B, self.width, self.width, self.ended), carry, going_on(ops)
