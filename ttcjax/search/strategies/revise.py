"""Revisions: chains in parallel, of answers one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ttcjax.config.base import ConfigError, require
from ttcjax.search.contract import HostStrategy, unless_default
from ttcjax.search.session import Outcome, Session
from ttcjax.verify import select


@dataclass(frozen=True)
class Revise(HostStrategy):
    """p chains in parallel, each of s answers one after the other (Snell et al. 2024, section 6.2).

    A budget of N generations is one chain of N answers, or N / p of them in each of the chains that are named, or as
    many chains of the s answers that are; below p it is N chains of one answer, below s one chain of N.
    """

    revises: ClassVar[bool] = True
    may_stop: ClassVar[bool] = False

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

    @classmethod
    def at_budget(cls, budget: int, given: Mapping[str, Any]) -> dict[str, Any]:
        named = [key for key in ("s", "p") if key in given]
        if len(named) == 2:
            raise ConfigError("must not fix both s and p, of which sweep.budgets gives one: leave one out")
        [key] = named or ["p"]
        count = min(int(given.get(key, 1)), budget)
        if budget % count:
            what = "chains" if key == "p" else "answers a chain"
            below, above = budget // count * count, -(-budget // count) * count
            raise ConfigError(f"{count} {what} do not divide a budget of {budget}: take {below} or {above}")
        return {key: count, "s" if key == "p" else "p": budget // count}

    @property
    def asks_verifier(self) -> bool:
        return self.select in ("hierarchical", "best") or self.ties == "verifier"

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

    def choose(self, groups_QN: np.ndarray, scores_QN: np.ndarray) -> np.ndarray:
        shape = (len(groups_QN), self.p, self.s)
        return select.choose_in_chains(groups_QN.reshape(shape), scores_QN.reshape(shape), self.select, self.ties)

    def before(self, groups_N: np.ndarray, scores_N: np.ndarray) -> list[list[int]]:
        return [list(range(place - place % self.s, place)) for place in range(len(groups_N))]
