"""What a strategy leaves: candidates, and on demand how they came about."""

from __future__ import annotations

from dataclasses import dataclass

from ttcjax.sample.requests import Solution


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
    """What a strategy has found for a question."""

    candidates: list[Solution]
    """What an answer is chosen among, with the scores of their steps and what each place has cost."""
    rounds: tuple[Round, ...] = ()
    """Every round of a search, where it was asked to write them down."""
