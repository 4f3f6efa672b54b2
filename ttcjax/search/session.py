"""What a strategy is run with, and what it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ttcjax.data.task import Task
from ttcjax.engine.engine import Engine, Prompt, Solution
from ttcjax.runtime.errors import UserError
from ttcjax.search.chains import Answer, Reviser
from ttcjax.verify.aggregate import aggregate, token_likelihood
from ttcjax.verify.select import RULES, Selector


@dataclass(frozen=True)
class Session:
    """Some questions, and the models that answer them."""

    engine: Engine
    task: Task
    """Of the questions: reads their answers."""
    prompts: Sequence[Prompt]
    """One a question."""
    aggregate: str = "last"
    """How step scores become the score of a solution; see `ttcjax.verify.aggregate.aggregate`."""
    reviser: Reviser | None = None
    """Of the same questions, where the engine's policy is a revision model."""

    def require_reviser(self) -> Reviser:
        """Return the reviser.

        Raises:
            UserError: The engine's policy is no revision model.
        """
        if self.reviser is None:
            raise UserError("this strategy revises answers: load the engine with policy='revision'")
        return self.reviser

    def answer(self, solution: Solution) -> str | None:
        """Return the canonical final answer; `None` where there is none, or the text was cut off."""
        return self.task.extract(solution.text) if solution.finished else None

    def scores(self, outcome: Outcome, by: str = "verifier") -> np.ndarray:
        """Return the scores `[N]` of an outcome's candidates.

        Args:
            outcome: With candidates that the verifier has read (`read`), unless the policy's likelihood is asked for.
            by: As `Selector.by`.
        """
        candidates = outcome.candidates
        if outcome.chains:
            return np.array([answer.score or 0.0 for chain in outcome.chains for answer in chain])
        if by == "likelihood":
            return token_likelihood(
                np.array([c.logprob for c in candidates]), np.array([len(c.tokens) for c in candidates])
            )
        return aggregate([c.step_scores for c in candidates], self.aggregate)

    def choices(self, outcome: Outcome) -> dict[str, int | None]:
        """Return the place of the candidate that each of `select.RULES` chooses; `None` where no answer can be read.

        Args:
            outcome: As for `scores`.
        """
        answers, scores = [self.answer(candidate) for candidate in outcome.candidates], self.scores(outcome)
        return {rule: Selector(rule).choose_one(answers, scores) for rule in RULES}


def read(session: Session, found: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes with candidates that the verifier has read; what the strategy did not ask for is not counted."""
    if any(candidate.step_scores or candidate.tokens_verified for outcome in found for candidate in outcome.candidates):
        return list(found)
    scored = session.engine.score(session.prompts, [outcome.candidates for outcome in found])
    return [
        dataclasses.replace(outcome, candidates=[dataclasses.replace(s, tokens_verified=0) for s in group])
        for outcome, group in zip(found, scored, strict=True)
    ]


@dataclass(frozen=True)
class Round:
    """One round of a search, by the places of a question's rows."""

    parents: tuple[int, ...]
    """Where the row that stands at each place afterwards stood in the round; whoever is nobody's parent was dropped."""
    scores: tuple[float, ...]
    """The verifier's score by which the rows of the round were judged."""
    steps: tuple[str, ...]
    """What each of them sampled in it; empty for one that had ended."""


@dataclass(frozen=True)
class Outcome:
    """Candidates that a strategy has found for a question, and how it came to them."""

    candidates: list[Solution]
    """What an answer is chosen among: with the scores of their steps, where a verifier has read them, and with what
    each place has cost."""
    generations: int
    """That were spent, as Snell et al. 2024 count them."""
    rounds: tuple[Round, ...] = ()
    """Every round of a search, where it was asked to write them down."""
    chains: tuple[tuple[Answer, ...], ...] = ()
    """The candidates as they followed each other, of strategies that revise."""
