"""Best-of-N that stops: samples come in waves, and a question whose vote is settled draws no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import betainc

from ttcjax.config.base import require
from ttcjax.engine.engine import Solution
from ttcjax.search.contract import HostStrategy, unless_default
from ttcjax.search.session import Outcome, Session
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.select import Selector


@dataclass(frozen=True)
class Adaptive(HostStrategy):
    """Draw samples wave by wave, until the vote is settled or N are drawn.

    A sample is the same whatever the waves: what is found is the head of what `BestOfN` with the same seed draws.
    """

    n: int
    """Most samples of a question."""
    wave: int = 4
    """Samples drawn between two looks at the vote."""
    stop: Literal["likely", "decided"] = "likely"
    """When a vote is settled: where the posterior is sure enough that the leading answer is more likely than the next
    (Aggarwal et al. 2023, "Let's sample step by step", their beta criterion), or only where nothing that the samples
    left could say would change it. What is `decided` has the answer of all N samples. Where votes are weighted, sums of
    scores stand for counts in `likely`: it waits longer the lower a verifier scores."""
    confidence: float = 0.95
    """Least probability of `likely`."""
    select: Literal["majority", "weighted"] = "majority"
    """How votes are counted: each as one, or by the verifier's score, which then reads every wave."""
    temperature: float | None = None
    """Temperature of sampling; `None` for that of the sampler."""

    def __post_init__(self) -> None:
        require(0 < self.confidence < 1, f"adaptive: confidence must lie in (0, 1), not {self.confidence}")
        require(
            self.stop == "likely" or self.confidence == 0.95,
            "adaptive takes a confidence with stop=likely only, not with stop=decided: leave it out",
        )

    @property
    def selector(self) -> Selector:
        return Selector(self.select)

    @property
    def name(self) -> str:
        return f"adaptive:n={self.n}{unless_default(self, 'wave', 'stop', 'confidence', 'select', 'temperature')}"

    def rows(self) -> int:
        return self.n

    def at_once(self) -> int:
        return self.wave

    def prompt_reads(self, drawn: int) -> int:
        return -(-drawn // self.wave)

    def plain(self) -> Adaptive | BestOfN:
        return self if self.wave < self.n else BestOfN(self.n, self.select, temperature=self.temperature)

    def settled(self, answers: Sequence[str | None], weights: Sequence[float]) -> bool:
        """Return whether a question needs no further sample.

        Args:
            answers: Of the samples so far; `None` cannot be read and has no vote.
            weights: Of their votes, in [0, 1].
        """
        votes: dict[str, float] = {}
        for answer, weight in zip(answers, weights, strict=True):
            if answer is not None:
                votes[answer] = votes.get(answer, 0.0) + weight
        if not votes:
            return False
        # In the order of their first samples, which decides between equals.
        first, *others = sorted(votes, key=lambda answer: -votes[answer])
        lead, second = votes[first], max((votes[other] for other in others), default=0.0)
        if self.stop == "likely":
            return float(betainc(second + 1, lead + 1, 0.5)) > self.confidence
        left, order = self.n - len(answers), list(votes)
        # An answer not given yet would come after the leading one, and lose to it at equal weight.
        safe = all(
            lead - votes[other] > left or (lead - votes[other] == left and order.index(first) < order.index(other))
            for other in others
        )
        return safe and lead >= left

    def run(self, session: Session, seed: int) -> list[Outcome]:
        found: list[list[Solution]] = [[] for _ in session.prompts]
        going = list(range(len(found)))
        for drawn in range(0, self.n, self.wave):
            prompts = [session.prompts[i] for i in going]
            new = session.engine.sample(
                prompts, min(self.wave, self.n - drawn), seed, first_sample=drawn, temperature=self.temperature
            )
            if self.select == "weighted":
                new = session.engine.score(prompts, new)
            for i, solutions in zip(going, new, strict=True):
                found[i] += solutions
            going = [i for i in going if not self.settled(*self._votes(session, found[i]))]
            if not going:
                break
        return [Outcome(solutions, len(solutions)) for solutions in found]

    def _votes(self, session: Session, solutions: Sequence[Solution]) -> tuple[list[str | None], list[float]]:
        answers = [session.answer(solution) for solution in solutions]
        if self.select == "majority":
            return answers, [1.0] * len(answers)
        return answers, aggregate([solution.step_scores for solution in solutions], session.aggregate).tolist()
