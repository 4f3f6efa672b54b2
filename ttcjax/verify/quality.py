"""Quality of a verifier against the truth: ranking, calibration and the place of the first error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import Ragged

VALIDATION_SCHEMA = pa.schema(
    [
        pa.field("step_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("step_truth", pa.list_(pa.bool_()), nullable=False),
    ]
)
"""Columns of the file with PRM scores of validation solutions, from which thresholds are chosen."""


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting one half.

    The rank-sum (Mann-Whitney) form of the area under the ROC curve; exact, `O(n log n)`.

    Args:
        scores: `[n]` floats.
        labels: `[n]` bools, true for positives.

    Returns:
        A value in [0, 1], 0.5 for chance; NaN if either class is empty.
    """
    labels = np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mid_ranks[inverse][labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def brier(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared distance of scores from targets, both `[n]` in [0, 1]; NaN if empty."""
    if not len(scores):
        return math.nan
    return float(np.mean((np.asarray(scores, np.float64) - np.asarray(targets, np.float64)) ** 2))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores and targets averaged within bins of equal width over [0, 1].

    Attributes:
        edges: Bin limits, `[bins + 1]`; a bin holds its lower limit, the last one both.
        counts: Scores in each bin, `[bins]`.
        scores: Mean score of each bin, `[bins]`; NaN where the bin is empty.
        targets: Mean target of each bin, `[bins]`; NaN where the bin is empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    targets: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: |mean score - mean target| averaged over scores (Guo et al. 2017)."""
        filled = self.counts > 0
        if not filled.any():
            return math.nan
        return float(np.average(np.abs(self.scores - self.targets)[filled], weights=self.counts[filled]))


def reliability(scores: np.ndarray, targets: np.ndarray, bins: int = 10) -> Reliability:
    """Average scores and targets within bins of the score.

    Args:
        scores: `[n]` in [0, 1].
        targets: `[n]` in [0, 1]: outcomes (hard) or success rates (soft).
        bins: Number of bins of equal width.

    Raises:
        UserError: A score lies outside [0, 1] or is not a number.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise UserError("calibration needs scores in [0, 1]: apply the sigmoid to the verifier's output first")
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_scores = np.bincount(index, weights=scores, minlength=bins) / counts
        mean_targets = np.bincount(index, weights=targets, minlength=bins) / counts
    return Reliability(np.linspace(0.0, 1.0, bins + 1), counts, mean_scores, mean_targets)


@dataclass(frozen=True)
class FirstError:
    """Quality of finding the first wrong step of a solution (ProcessBench, Zheng et al. 2024).

    Attributes:
        f1: Harmonic mean of the two accuracies; NaN if either kind of solution is absent.
        error_accuracy: Share of the solutions with an error whose first wrong step is named exactly.
        correct_accuracy: Share of the solutions with no error in which none is seen.
        errors: Solutions with an error.
        corrects: Solutions without.
        threshold: Steps that score below it are called wrong.
    """

    f1: float
    error_accuracy: float
    correct_accuracy: float
    errors: int
    corrects: int
    threshold: float


def first_error(step_scores: Ragged, step_truth: Ragged, threshold: float) -> FirstError:
    """Judge a verifier that calls the first step scoring below `threshold` the first wrong one.

    Args:
        step_scores: One row of step scores a solution.
        step_truth: Whether each step is true; the same row lengths.
        threshold: Chosen on other data than these, see `best_threshold`.

    Raises:
        UserError: Rows of scores and truth differ in length.
    """
    _check_lengths(step_scores, step_truth)
    wrong_at = _first(step_truth, ~step_truth.values.astype(bool))
    called_at = _first(step_scores, step_scores.values.astype(np.float64) < threshold)
    has_error = wrong_at >= 0
    hit = wrong_at == called_at
    errors, corrects = int(has_error.sum()), int((~has_error).sum())
    error_accuracy = float(hit[has_error].mean()) if errors else math.nan
    correct_accuracy = float(hit[~has_error].mean()) if corrects else math.nan
    f1 = float(_harmonic_mean(np.array(error_accuracy), np.array(correct_accuracy)))
    return FirstError(f1, error_accuracy, correct_accuracy, errors, corrects, threshold)


def best_threshold(step_scores: Ragged, step_truth: Ragged) -> float:
    """Return the threshold with the highest first-error F1 on these solutions, which must not be test data.

    Exact over all thresholds: a solution with an error at step e is judged right for thresholds above its
    score at e and up to its lowest score before e, one without an error up to its lowest score. Between two
    neighbouring scores nothing changes, so the middle of the best such gap (the lowest of equals) is returned.

    Args:
        step_scores: One row of step scores a solution.
        step_truth: Whether each step is true; the same row lengths.

    Raises:
        UserError: Row lengths differ, or the solutions do not include both kinds.
    """
    _check_lengths(step_scores, step_truth)
    wrong_at = _first(step_truth, ~step_truth.values.astype(bool))
    has_error = wrong_at >= 0
    if not has_error.any() or has_error.all():
        raise UserError("a first-error threshold needs solutions with and without errors: label more questions")
    scores = step_scores.values.astype(np.float64)
    place = np.arange(len(scores)) - np.repeat(step_scores.offsets[:-1], step_scores.lengths)
    before = place < np.where(has_error, wrong_at, step_scores.lengths)[step_scores.row_of_value]
    lowest_before = np.full(len(step_scores), np.inf)
    np.minimum.at(lowest_before, step_scores.row_of_value[before], scores[before])

    at_error = scores[(step_scores.offsets[:-1] + wrong_at)[has_error]]
    reachable = at_error < lowest_before[has_error]
    lower, upper = np.sort(at_error[reachable]), np.sort(lowest_before[has_error][reachable])
    clean = np.sort(lowest_before[~has_error])

    levels = np.unique(scores)
    thresholds = np.concatenate([levels[:1], (levels[:-1] + levels[1:]) / 2, [np.nextafter(levels[-1], np.inf)]])
    hits = np.searchsorted(lower, thresholds, "left") - np.searchsorted(upper, thresholds, "left")
    passes = len(clean) - np.searchsorted(clean, thresholds, "left")
    f1 = _harmonic_mean(hits / has_error.sum(), passes / len(clean))
    return float(thresholds[np.argmax(f1)])


def _first(rows: Ragged, mask: np.ndarray) -> np.ndarray:
    """Return the place of the first true value of each row, -1 where there is none."""
    hits = np.flatnonzero(mask)
    found, first = np.unique(rows.row_of_value[hits], return_index=True)
    places = np.full(len(rows), -1, np.int64)
    places[found] = hits[first] - rows.offsets[found]
    return places


def _harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b
    return np.where(total == 0, 0.0, 2 * a * b / np.where(total == 0, 1.0, total))


def _check_lengths(step_scores: Ragged, step_truth: Ragged) -> None:
    if not np.array_equal(step_scores.offsets, step_truth.offsets):
        raise UserError("step scores and step truth differ in length: both need one value a step")
