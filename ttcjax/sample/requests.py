"""What an engine is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

from ttcjax.config import ModelConfig
from ttcjax.model.params import Params


@dataclass(frozen=True)
class Model:
    """Parameters with the config they were made for."""

    params: Params
    config: ModelConfig
    tokenizer: str | None = None
    """Fingerprint of the tokenizer it was trained with; `None` where that is not known."""


@dataclass(frozen=True)
class Solution:
    """One sampled solution."""

    tokens: tuple[int, ...]
    """What the policy sampled, end mark included, prompt not."""
    text: str
    finished: bool
    """Ended by the end mark, not by the length limit."""
    logprob: float
    """Of the tokens under the policy at temperature 1."""
    step_scores: tuple[float, ...] = ()
    """The verifier's score of each complete step, where a verifier has read it."""
    tokens_sampled: int = 0
    """Tokens drawn at this solution's place, those of dropped beams included."""
    tokens_verified: int = 0
    """Tokens the verifier read at this place, those of rollouts included."""
    tokens_lookahead: int = 0
    """Tokens of a search's rollouts drawn at this place, beside `tokens_sampled`; a rollout is scored and dropped."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in tokens, with the id that decides its random numbers."""

    id: str
    tokens: tuple[int, ...]
    max_tokens: int | None = None
    """Longest solution, where that is less than what a call allows."""


@dataclass(frozen=True)
class Request:
    """Samples `first .. first + count - 1` of a prompt."""

    prompt: Prompt
    first: int
    count: int


@dataclass(frozen=True)
class Begun:
    """A row that has tokens of its own after the prompt, and the numbers that decide what follows them."""

    tokens: tuple[int, ...]
    sample: int
    """Index of the sample."""
    round: int
    """How often the sample went on before: rows of equal tokens in another round draw afresh."""
