"""What the shards of an evaluation take, from those that are there: what a stage's `spends` is told, and what it says.

Tokens are read and written ones, of a question and one seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from ttcjax.runtime.shards import Shard


@dataclass(frozen=True)
class Seen:
    """Averages over the questions of a finished shard."""

    questions: int
    tokens: float
    lookahead_tokens: float
    verifier_tokens: float
    seconds: float
    shown: float
    """Answers in view of answers, in sum."""
    rows: float
    revised: float
    """Rows with answers in view."""


@dataclass(frozen=True)
class Units:
    """Averages behind token counts where no shard of a cell is there yet."""

    prompt: float
    """Tokens of a question's prompt."""
    token: float
    """Tokens of a generation."""
    inputs: Mapping[str, epath.Path]
    """Folders of complete stages."""
    bank: Sequence[Seen] = ()
    """Finished shards of the bank at the sampler's temperature."""


@dataclass(frozen=True)
class Spent:
    """Tokens and generations that a question of a cell takes, and the models that they are of."""

    policy: float
    """Tokens that the model which writes reads and writes."""
    verifier: float
    """Tokens that verifiers read."""
    generations: int
    writer: str = "policy"
    """The stage that trained the model which writes."""
    readers: tuple[str, ...] = ("prm",)
    """The stages that trained the verifiers."""
    at_most: bool = False
    """Whether it may come to less."""


def mean(seen: Sequence[Seen], name: str) -> float:
    """Return the average of a field over questions."""
    return statistics.fmean((getattr(one, name) for one in seen), weights=[one.questions for one in seen])


def of_cell(seen: Mapping[Shard, Seen], answers: tuple[tuple[str, int], ...]) -> list[Seen]:
    """Return the finished shards of a cell."""
    return [one for shard, one in seen.items() if shard.answers == answers]


def of_samples(own: Sequence[Seen], generations: int, units: Units) -> tuple[float, float]:
    """Return the tokens of policy and verifier for independent samples, scored whole."""
    if own:
        return units.prompt + mean(own, "tokens"), units.prompt + mean(own, "verifier_tokens")
    return units.prompt + generations * units.token, units.prompt + generations * (units.token + 1)
