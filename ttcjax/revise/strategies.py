"""Strategies that revise: `revise:s=8,p=2` and `refine:steps=8`.

They run on the host, an answer of every chain at a time; `ttcjax.search.chains.Reviser` is all they ask for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ttcjax.search import registry
from ttcjax.search.chains import Answer, Chains, Reviser
from ttcjax.tables import require


@dataclass(frozen=True)
class Revise:
    """p chains in parallel, each of s answers one after the other (Snell et al. 2024, section 6.2)."""

    s: int
    p: int = 1
    select: Literal["hierarchical", "majority", "last", "best"] = "hierarchical"
    """How one answer is chosen; see `ttcjax.select.choose_in_chains`."""
    ties: Literal["first", "verifier"] = "first"
    """Of the votes `majority` and `last`: the first answer decides, or the verifier."""

    def __post_init__(self) -> None:
        require(
            self.ties == "first" or self.select in ("majority", "last"),
            f"revise takes ties with select=majority or select=last only, not with select={self.select}: leave it out",
        )

    @property
    def name(self) -> str:
        ties = "" if self.ties == "first" else f",ties={self.ties}"
        return f"revise:s={self.s},p={self.p},select={self.select}{ties}"

    def cost(self) -> int:
        """Generations a question: s * p."""
        return self.s * self.p

    def run(self, reviser: Reviser, seed: int) -> Chains:
        """Return p chains of s answers of every question."""
        return reviser.sample([self.s] * self.p, seed)


@dataclass(frozen=True)
class Refine:
    """An answer that gives way only to better ones: r_t = revise(r_1 .. r_t-1), kept if the verifier's score rises.

    What was not kept is forgotten: in view are the answers that were, the newest last.
    """

    steps: int
    """T: tries to better the first answer."""

    @property
    def name(self) -> str:
        return f"refine:steps={self.steps}"

    def cost(self) -> int:
        """Generations a question: the first answer and T tries."""
        return 1 + self.steps

    def run(self, reviser: Reviser, seed: int, readable: Callable[[Answer], bool]) -> Chains:
        """Return one chain of T + 1 answers of every question, scored, and marked where they were kept.

        Args:
            reviser: Has a verifier.
            seed: Root of all random numbers.
            readable: Whether an answer can be read: one that cannot never takes the place of one that can, whatever
                its score.
        """

        def score(answer: Answer) -> float:
            return answer.score if answer.score is not None and readable(answer) else -1.0

        first = reviser.sample([1], seed)
        tried = [[dataclasses.replace(chain[0], kept=True)] for [chain] in reviser.score(first)]
        for step in range(1, self.steps + 1):
            kept = [[a for a in chain if a.kept] for chain in tried]
            new = reviser.revise([[[a.text for a in chain]] for chain in kept], [[0]] * len(kept), step, seed)
            scored = reviser.score_new([[[a.text for a in chain]] for chain in kept], new)
            for chain, before, [answer] in zip(tried, kept, scored, strict=True):
                chain.append(dataclasses.replace(answer, kept=score(answer) > score(before[-1])))
        return [[chain] for chain in tried]


STRATEGIES = {"revise": Revise, "refine": Refine}


def is_one(text: str) -> bool:
    """Return whether a strategy's name is of a kind that revises."""
    return text.partition(":")[0] in STRATEGIES


def parse(text: str) -> Revise | Refine:
    """Read a strategy's name; see `ttcjax.search.registry.parse`.

    Raises:
        ConfigError: An unknown strategy or key, or a value it may not take.
    """
    return registry.read(text, STRATEGIES)
