"""Chains of answers: a model answers, then answers again with its last answers in view.

Snell et al. 2024, section 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ttcjax.config import InView
from ttcjax.data.task import Task
from ttcjax.engine.engine import Begun, Engine, Prompt, Solution
from ttcjax.runtime.errors import UserError
from ttcjax.search.context import Context, View
from ttcjax.text.prompt import restated
from ttcjax.verify.aggregate import aggregate


@dataclass(frozen=True)
class Answer:
    """One answer of a chain."""

    solution: Solution
    shown: int
    """How many of the chain's answers before it were in view."""
    score: float | None = None
    """The verifier's, where one has read it: of an ORM that of the last step; 0 where no step is whole."""
    kept: bool | None = None
    """Whether it took the place of the answer before, where a strategy decides that."""

    @property
    def text(self) -> str:
        return self.solution.text


Chains = list[list[list[Answer]]]
"""`[question][chain][answer]`."""


def read_answer(task: Task, answer: Answer) -> str | None:
    """Return the canonical final answer; `None` where there is none, or the text was cut off."""
    return task.extract(answer.text) if answer.solution.finished else None


class Reviser:
    """Grows and scores the chains of some questions with an engine whose policy is a revision model."""

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        view: InView,
        *,
        history: bool = True,
        aggregate: str = "last",
    ):
        """Take on some questions.

        Args:
            engine: Its verifier, if it has one, scores answers.
            prompts: One a question.
            view: What the model was trained to have in view.
            history: Show the verifier what the model was shown.
            aggregate: How the scores of an answer's steps become its score: one of `verify.aggregate.AGGREGATIONS`.
        """
        self.engine = engine
        self.prompts = prompts
        self._context = Context(engine.tokenizer, view.max_answers, restate=view.restate)
        self._history = history
        self._aggregate = aggregate

    def sample(
        self,
        lengths: Sequence[int],
        seed: int,
        stop: Callable[[int, Answer], bool] = lambda question, answer: False,
        temperature: float | None = None,
    ) -> Chains:
        """Sample chains of every question.

        An answer depends on the seed, the question, the number of its chain and its place there: the first ones
        are what `Engine.sample` draws, and a longer or a further chain changes nothing in the others.

        Args:
            lengths: Answers of each chain, at most.
            seed: Root of all random numbers.
            stop: Told a question's place and a new answer, whether the answer ends its chain.
            temperature: That of the sampler by default.

        Raises:
            UserError: The model has no room for a question and an answer.
        """
        if not lengths or min(lengths) < 1:
            raise UserError("a chain needs at least one answer")
        first = self.engine.sample(self.prompts, len(lengths), seed, temperature=temperature)
        chains = [[[Answer(solution, 0)] for solution in group] for group in first]
        for step in range(1, max(lengths)):
            going_on = [
                [c for c, chain in enumerate(group) if len(chain) == step < lengths[c] and not stop(i, chain[-1])]
                for i, group in enumerate(chains)
            ]
            answers = [[[a.text for a in group[c]] for c in on] for group, on in zip(chains, going_on, strict=True)]
            for group, on, new in zip(
                chains, going_on, self.revise(answers, going_on, step, seed, temperature), strict=True
            ):
                for c, answer in zip(on, new, strict=True):
                    group[c].append(answer)
        return chains

    def revise(
        self,
        answers: Sequence[Sequence[Sequence[str]]],
        numbers: Sequence[Sequence[int]],
        step: int,
        seed: int,
        temperature: float | None = None,
    ) -> list[list[Answer]]:
        """Sample one more answer after each of the given ones.

        Args:
            answers: For each question and chain the answers so far, the newest last.
            numbers: For each question the chains' numbers, for their random keys.
            step: Answers drawn in these chains before, for the keys too.
            seed: Root of all random numbers.
            temperature: That of the sampler by default.
        """
        views = [[self._view(i, texts) for texts in group] for i, group in enumerate(answers)]
        begun = [
            [Begun(view.tokens, number, step) for view, number in zip(group, own, strict=True)]
            for group, own in zip(views, numbers, strict=True)
        ]
        found = self.engine.resume(self.prompts, begun, seed, temperature=temperature)
        return [
            [Answer(solution, view.answers) for solution, view in zip(group, row, strict=True)]
            for group, row in zip(found, views, strict=True)
        ]

    def score(self, chains: Chains) -> Chains:
        """Return the chains with the verifier's score of every answer."""
        before = [[[a.text for a in chain[:k]] for chain in group for k in range(len(chain))] for group in chains]
        scored = self.score_new(before, [[a for chain in group for a in chain] for group in chains])
        found: Chains = []
        for group, row in zip(chains, scored, strict=True):
            flat = iter(row)
            found.append([[next(flat) for _ in chain] for chain in group])
        return found

    def score_new(
        self,
        before: Sequence[Sequence[Sequence[str]]],
        answers: Sequence[Sequence[Answer]],
    ) -> list[list[Answer]]:
        """Return answers with the verifier's scores.

        Args:
            before: For each question and answer the answers it came after, the newest last.
            answers: Some answers of every question.
        """
        shown = [
            [self._view(i, texts).tokens if self._history else () for texts in group] for i, group in enumerate(before)
        ]
        scored = self.engine.score(self.prompts, [[a.solution for a in row] for row in answers], shown)
        return [
            [
                dataclasses.replace(answer, solution=solution, score=score)
                for answer, solution, score in zip(row, found, self._scores(found), strict=True)
            ]
            for row, found in zip(answers, scored, strict=True)
        ]

    def _scores(self, solutions: Sequence[Solution]) -> list[float]:
        return aggregate([solution.step_scores for solution in solutions], self._aggregate).tolist()

    def tokens(self, chains: Chains) -> int:
        """Return the tokens that the model reads and writes for chains of all questions.

        The prompt is read once a question; what is in view of an answer, the question again where it is restated, is
        read anew for each.
        """
        total = sum(len(prompt.tokens) for prompt in self.prompts)
        for i, group in enumerate(chains):
            for chain in group:
                for place, answer in enumerate(chain):
                    before = [a.text for a in chain[place - answer.shown : place]]
                    total += len(answer.solution.tokens) + len(self._view(i, before).tokens)
        return total

    def _view(self, question: int, answers: Sequence[str]) -> View:
        tokens = self.prompts[question].tokens
        room = self.engine.policy_config.max_seq_len - len(tokens) - self.engine.sampler.max_tokens
        return self._context.view(tuple(restated(self.engine.tokenizer, tokens)), answers, room)
