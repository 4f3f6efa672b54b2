"""Refinement: an answer gives way only to what the verifier finds better."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ttcjax.config.base import ConfigError
from ttcjax.search.chains import Answer, Chains, Reviser
from ttcjax.search.contract import HostStrategy, unless_default
from ttcjax.search.session import Outcome, Session


@dataclass(frozen=True)
class Refine(HostStrategy):
    """An answer that gives way only to better ones: r_t = revise(r_1 .. r_t-1), kept if the verifier's score rises.

    What was not kept is forgotten: in view are the answers that were, the newest last. A budget of N generations is
    the first answer and N - 1 tries.
    """

    revises: ClassVar[bool] = True
    may_stop: ClassVar[bool] = False

    steps: int = field(metadata={"least": 0})
    """T: tries to better the first answer."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    @property
    def name(self) -> str:
        return f"refine:steps={self.steps}{unless_default(self, 'temperature')}"

    def rows(self) -> int:
        """Return the first answer and T tries."""
        return 1 + self.steps

    def at_once(self) -> int:
        return 1

    def run(self, session: Session, seed: int) -> list[Outcome]:
        chains = self.chains(
            session.require_reviser(), seed, lambda answer: session.answer(answer.solution) is not None
        )
        return [
            Outcome([answer.solution for answer in chain], self.cost(), chains=(tuple(chain),)) for [chain] in chains
        ]

    @classmethod
    def at_budget(cls, budget: int, given: Mapping[str, Any]) -> dict[str, Any]:
        if "steps" in given:
            raise ConfigError("must not fix steps, which sweep.budgets gives: leave it out")
        return {"steps": budget - 1}

    @property
    def asks_verifier(self) -> bool:
        return True

    def choose(self, groups_QN: np.ndarray, scores_QN: np.ndarray) -> np.ndarray:
        # The answer kept last is the first of those that nothing else beats.
        ranked_QN = np.where(groups_QN >= 0, scores_QN, -1.0)
        return np.where((groups_QN >= 0).any(axis=1), ranked_QN.argmax(axis=1), -1)

    def before(self, groups_N: np.ndarray, scores_N: np.ndarray) -> list[list[int]]:
        kept, found, best = [], [], -math.inf
        for place, score in enumerate(np.where(groups_N >= 0, scores_N, -1.0).tolist()):
            found.append(list(kept))
            if score > best:
                kept, best = [*kept, place], score
        return found

    def chains(self, reviser: Reviser, seed: int, readable: Callable[[Answer], bool]) -> Chains:
        """Return one chain of T + 1 answers of every question, scored, and marked where they were kept.

        Args:
            reviser: Has a verifier.
            seed: Root of all random numbers.
            readable: Whether an answer can be read: one that cannot never takes the place of one that can, whatever
                its score.
        """

        def score(answer: Answer) -> float:
            return answer.score if answer.score is not None and readable(answer) else -1.0

        first = reviser.sample([1], seed, temperature=self.temperature)
        tried = [[dataclasses.replace(chain[0], kept=True)] for [chain] in reviser.score(first)]
        for step in range(1, self.steps + 1):
            kept = [[a for a in chain if a.kept] for chain in tried]
            shown = [[[a.text for a in chain]] for chain in kept]
            new = reviser.revise(shown, [[0]] * len(kept), step, seed, temperature=self.temperature)
            scored = reviser.score_new(shown, new)
            for chain, before, [answer] in zip(tried, kept, scored, strict=True):
                chain.append(dataclasses.replace(answer, kept=score(answer) > score(before[-1])))
        return [[chain] for chain in tried]
