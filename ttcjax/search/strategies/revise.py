"""Revisions: chains in parallel, of answers one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ttcjax.config.base import require
from ttcjax.search.contract import HostStrategy, unless_default
from ttcjax.search.session import Outcome, Session
from ttcjax.verify import select


@dataclass(frozen=True)
class Revise(HostStrategy):
    """p chains in parallel, each of s answers one after the other (Snell et al. 2024, section 6.2)."""

    revises: ClassVar[bool] = True

    s: int
    p: int = 1
    select: Literal["hierarchical", "majority", "last", "best"] = "hierarchical"
    """How one answer is chosen; see `ttcjax.verify.select.choose_in_chains`."""
    ties: Literal["first", "verifier"] = "first"
    """Of the votes `majority` and `last`: the first answer decides, or the verifier."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    def __post_init__(self) -> None:
        require(
            self.ties == "first" or self.select in ("majority", "last"),
            f"revise takes ties with select=majority or select=last only, not with select={self.select}: leave it out",
        )

    @property
    def name(self) -> str:
        return f"revise:s={self.s},p={self.p},select={self.select}{unless_default(self, 'ties', 'temperature')}"

    def rows(self) -> int:
        return self.s * self.p

    def at_once(self) -> int:
        return self.p

    def run(self, session: Session, seed: int) -> list[Outcome]:
        reviser = session.require_reviser()
        chains = reviser.score(reviser.sample([self.s] * self.p, seed, temperature=self.temperature))
        return [
            Outcome([a.solution for chain in group for a in chain], self.cost(), chains=tuple(map(tuple, group)))
            for group in chains
        ]

    def choose(self, outcome: Outcome, answers: Sequence[str | None], scores: np.ndarray) -> int | None:
        shape = (1, self.p, self.s)
        groups = select.group_answers(answers).reshape(shape)
        place = int(select.choose_in_chains(groups, np.reshape(scores, shape), self.select, self.ties)[0])
        return None if place < 0 else place
