"""From the scores of a solution's steps, or from its likelihood, to one score for the solution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ttcjax.config import Aggregation
from ttcjax.runtime.errors import UserError

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths, stored one after the other.

    Attributes:
        values: All values, `[total]`.
        offsets: Row `i` is `values[offsets[i] : offsets[i + 1]]`, `[rows + 1]`; starts at 0, ends at `total`.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Cut `values` into rows of the given lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[float]], dtype: type = np.float64) -> Ragged:
        """Store a list of lists."""
        arrays = [np.asarray(row, dtype) for row in rows]
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
        return cls.from_lengths(values, np.array([len(array) for array in arrays], np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Values in each row, `[rows]`."""
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> np.ndarray:
        """The row each value stands in, `[total]`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def keep(self, mask: np.ndarray) -> Ragged:
        """Return the rows where `mask` (`[rows]`, bool) is true."""
        return Ragged.from_lengths(self.values[np.repeat(mask, self.lengths)], self.lengths[mask])


def token_likelihood(logprob: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the geometric mean of the tokens' probabilities, exp(logprob / tokens): the policy's score of a solution.

    A mean, as a plain product would favour short solutions; at most 1, so that it can weigh votes.

    Args:
        logprob: Of whole solutions under the policy at temperature 1, in nats, `[rows]`.
        tokens: Their tokens, the end mark included, `[rows]`.
    """
    return np.exp(np.asarray(logprob, np.float64) / np.maximum(tokens, 1))


def aggregate(step_scores: Ragged | Iterable[Sequence[float]], how: str = "last") -> np.ndarray:
    """Reduce the step scores of each solution to one score (Snell et al. 2024, section 5.1 and App. E).

    Args:
        step_scores: One row of step scores a solution.
        how: One of `AGGREGATIONS`: `last`, `min`, `product` or `mean` over the steps.

    Returns:
        Scores, `[rows]` float64. A solution with no step scores 0: nothing speaks for it.

    Raises:
        UserError: `how` is none of these.
    """
    if how not in AGGREGATIONS:
        raise UserError(f"unknown step aggregation {how!r}: use one of {', '.join(AGGREGATIONS)}")
    steps = step_scores if isinstance(step_scores, Ragged) else Ragged.from_lists(step_scores)
    lengths = steps.lengths
    filled = lengths > 0
    scores = np.zeros(len(steps))
    if not filled.any():
        return scores
    # The values of all steps are many times the solutions, so they are converted only where precision needs it.
    starts = steps.offsets[:-1][filled]
    if how == "last":
        scores[filled] = steps.values[steps.offsets[1:][filled] - 1]
        return scores
    if how == "min":
        scores[filled] = np.minimum.reduceat(steps.values, starts)
        return scores
    values = steps.values.astype(np.float64)
    if how == "product":
        scores[filled] = np.multiply.reduceat(values, starts)
    else:
        scores[filled] = np.add.reduceat(values, starts) / lengths[filled]
    return scores
