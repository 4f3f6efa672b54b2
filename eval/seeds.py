"""What several seeds of one experiment say together: each number over seeds, with an interval that has training in it.

A run's own intervals are of its questions, as if its models were the only ones that training gives. Here seeds and
questions are both random: training again gives other models, and another test set other questions. All seeds answer the
same questions, and the statistic of a run is taken for

    truth + question + seed + question x seed,

questions being what a resample of them changes in all seeds alike, and question x seed what it changes in each seed for
itself. With the same resamples of questions in every seed, the bootstrap tells the first and the last apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

VALUES = ("mean", "difference", "times")
"""What the estimate of a cell of a summary is called; `times` is a ratio, and combined by its logarithm."""
LEVEL = 0.95
_QUIET = 0.6
"""So near to the median that hardly a study with variance of training is taken for one without."""

Draws = Mapping[str, np.ndarray]
"""Bootstrap replicates of the cells of a summary, `[R]` each, by the path of the cell; see `path_of`."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and how sure it is.

    Attributes:
        mean: Over seeds.
        low: Lower end of its interval.
        high: Upper end.
        questions: Standard error from questions, with these seeds.
        seeds: Standard error from training, beyond what questions in each seed explain.
        df: Degrees of freedom of the two together.
    """

    mean: float
    low: float
    high: float
    questions: float
    seeds: float
    df: float


def half_width(
    common: np.ndarray, own: np.ndarray, observed: np.ndarray, seeds: int, questions: int, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return half the width of the interval of a mean over seeds, and its degrees of freedom.

    Its variance is `common`, that of its replicates, in which seeds are fixed and questions resampled, plus the variance
    of training by the number of seeds: the observed one less what questions give each seed for itself, not below 0.
    Degrees of freedom are Satterthwaite's (1946): S - 1 of the observed variance between seeds, Q - 1 of questions. Where
    seeds differ less than in `_QUIET` of all studies without any variance of training, they are those of questions: the
    quantile of so few degrees would cover too much there.

    Readers and cases of radiology are the same design (Obuchowski and Rockette 1995; Hillis 2007); this is their
    variance, bounded below by that of questions alone. What else was tried, and how much each covers, stands in
    docs/study.md.

    Args:
        common: Variance of the mean over seeds from questions.
        own: Variance of one seed's statistic from questions, without what all seeds have in common.
        observed: Variance between the statistics of seeds.
        seeds: How many, S, two or more.
        questions: How many, Q.
        level: Coverage of the interval.
    """
    between = np.maximum(observed - own, 0.0) / seeds
    variance = common + between
    told = observed > own * stats.chi2.ppf(_QUIET, seeds - 1) / (seeds - 1)
    of_seeds = np.where(told, (observed / seeds) ** 2 / (seeds - 1), 0.0)
    below = of_seeds + common**2 / max(questions - 1, 1)
    df = np.divide(variance**2, below, out=np.full(np.shape(below), np.inf), where=below > 0)
    return stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance), df


def spread(values_S: np.ndarray, draws_SR: np.ndarray, questions: int, level: float = LEVEL) -> Spread:
    """Return the mean of a statistic over seeds with an interval over seeds and questions, see `half_width`.

    Args:
        values_S: The statistic of each of two or more seeds.
        draws_SR: Its replicates, of the same resamples in every seed.
        questions: How many were resampled.
        level: Coverage of the interval.
    """
    seeds = len(values_S)
    mean_R = draws_SR.mean(axis=0)
    common = mean_R.var(ddof=1)
    own = (draws_SR - mean_R).var(axis=1, ddof=1).sum() / (seeds - 1)
    observed = values_S.var(ddof=1)
    half, df = half_width(common, own, observed, seeds, questions, level)
    mean, training = float(values_S.mean()), max(0.0, float(observed - own)) / seeds
    return Spread(
        mean, mean - float(half), mean + float(half), math.sqrt(float(common)), math.sqrt(training), float(df)
    )
