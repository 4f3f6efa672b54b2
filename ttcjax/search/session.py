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
from ttcjax.search.contract import Strategy
from ttcjax.verify import select
from ttcjax.verify.aggregate import aggregate, token_likelihood

OWN = "own"
"""The rule of the strategy itself, among `Outcome.choices`."""


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

    def judged(self, outcome: Outcome, strategy: Strategy) -> Outcome:
        """Return what a strategy has found with the answers and, where the verifier has read them, the scores of its
        candidates."""
        answers = tuple(map(self.answer, outcome.candidates))
        scores = self.scores(outcome) if _is_read(outcome) else None
        return dataclasses.replace(outcome, strategy=strategy, answers=answers, scores=scores)

    def scores(self, outcome: Outcome) -> tuple[float, ...]:
        """Return the verifier's scores of an outcome's candidates, which it has read."""
        if outcome.chains:
            return tuple(answer.score or 0.0 for chain in outcome.chains for answer in chain)
        return tuple(aggregate([c.step_scores for c in outcome.candidates], self.aggregate).tolist())


def _is_read(outcome: Outcome) -> bool:
    return any(candidate.step_scores or candidate.tokens_verified for candidate in outcome.candidates)


def read(session: Session, found: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes with candidates that the verifier has read; what the strategy did not ask for is not counted."""
    if any(map(_is_read, found)):
        return list(found)
    scored = session.engine.score(session.prompts, [outcome.candidates for outcome in found])
    seen = [
        dataclasses.replace(outcome, candidates=[dataclasses.replace(s, tokens_verified=0) for s in group])
        for outcome, group in zip(found, scored, strict=True)
    ]
    return [dataclasses.replace(outcome, scores=session.scores(outcome)) for outcome in seen]


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
    strategy: Strategy | None = None
    """That found them; this and the fields below are filled in by `ttcjax.search.ops.run`."""
    answers: tuple[str | None, ...] = ()
    """Final answer of each candidate; `None` cannot be read."""
    scores: tuple[float, ...] | None = None
    """The verifier's score of each candidate; `None` where it has read none, see `read`."""

    @property
    def likelihoods(self) -> np.ndarray:
        """The policy's own scores `[N]` of the candidates; see `ttcjax.verify.aggregate.token_likelihood`."""
        logprobs, lengths = [c.logprob for c in self.candidates], [len(c.tokens) for c in self.candidates]
        return token_likelihood(np.array(logprobs), np.array(lengths))

    @property
    def choices(self) -> dict[str, int | None]:
        """Place of the chosen candidate under every rule; `None` where no answer can be read.

        The rules are `select.RULES`, of chains `select.CHAIN_RULES` too, and `OWN`, the strategy's. Those that need
        the verifier's scores are there once it has read the candidates.
        """
        assert self.strategy is not None, "what is to choose is what `ttcjax.search.ops.run` has found"
        groups_1N, scores_1N = select.group_answers(self.answers)[None], None
        if self.scores is not None:
            scores_1N = np.array([self.scores], np.float64)
        rules = [rule for rule in select.RULES if scores_1N is not None or not select.asks_verifier(rule)]
        found = {rule: select.choose(groups_1N, scores_1N, rule) for rule in rules}
        if scores_1N is not None and self.chains:
            shape = (1, len(self.chains), -1)
            chained = groups_1N.reshape(shape), scores_1N.reshape(shape)
            found |= {rule: select.choose_in_chains(*chained, rule) for rule in select.CHAIN_RULES}
        own = self.likelihoods[None] if self.strategy.selector.by == "likelihood" else scores_1N
        if own is not None or not self.strategy.asks_verifier:
            found[OWN] = self.strategy.choose(groups_1N, np.zeros(groups_1N.shape) if own is None else own)
        return {rule: None if place[0] < 0 else int(place[0]) for rule, place in found.items()}
