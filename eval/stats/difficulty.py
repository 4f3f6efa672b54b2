"""Difficulty of questions, from many samples or a few, and the bins that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from ttcjax.runtime.errors import UserError

BINS = 5
"""Bins of difficulty, of equally many questions (Snell et al. 2024, section 3.2)."""
EDGES = (0.5, 0.1)
"""Bounds of easy and hard in pass@1 (Liu et al. 2025)."""
_CONCENTRATION = (0.1, 1000.0)
"""Least and most of a + b that a prior is fitted with."""


def enough(questions: int, folds: int) -> bool:
    """Tell whether every bin of so many questions can be cut into folds."""
    return questions >= BINS * folds


def quantile_bins(ease_Q: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the bin of each question, from 1 (easiest) to `bins`, all of a size or one apart.

    Snell et al. 2024, section 3.2. Questions of equal ease go by their order.

    Args:
        ease_Q: Higher is easier: for oracle bins the share of right base samples.
        bins: Their number.

    Raises:
        UserError: There are fewer questions than bins.
    """
    if len(ease_Q) < bins:
        raise UserError(f"{len(ease_Q)} questions cannot be put into {bins} bins: take more questions")
    rank_Q = np.empty(len(ease_Q), np.int64)
    rank_Q[np.argsort(-np.asarray(ease_Q, np.float64), kind="stable")] = np.arange(len(ease_Q))
    return rank_Q * bins // len(ease_Q) + 1


def threshold_bins(ease_Q: np.ndarray, edges: Sequence[float] = EDGES) -> np.ndarray:
    """Return the bin of each question by absolute pass@1: 1 (easy) from the first edge up, then 2, and so on.

    Liu et al. 2025: easy 50 to 100%, medium 10 to 50%, hard below 10%. Unlike quantiles these mean the same for every
    model; a bin may be empty.

    Args:
        ease_Q: Chance of a right sample, or an estimate of it, 0 to 1.
        edges: Falling, between 0 and 1; a question on an edge is in the easier bin.

    Raises:
        UserError: The edges do not fall, or reach 0 or 1.
    """
    limits = np.asarray(edges, np.float64)
    if not (len(limits) and (np.diff(limits) < 0).all() and 0 < limits[-1] <= limits[0] < 1):
        raise UserError(f"thresholds of difficulty must fall from below 1 to above 0, not {', '.join(map(str, edges))}")
    return 1 + (np.asarray(ease_Q)[:, None] < limits).sum(axis=1)


def merge_small(bins_Q: np.ndarray, least: int) -> np.ndarray:
    """Return bins of at least so many questions: the smallest of those below joins the smaller of its neighbours.

    Numbers of the bins that are left stay; one that joins takes its neighbour's.

    Args:
        bins_Q: The bin of each question; numbers in order of difficulty.
        least: Questions that a bin needs.
    """
    merged = np.array(bins_Q)
    while True:
        names, sizes = np.unique(merged, return_counts=True)
        smallest = int(np.argmin(sizes))
        if sizes[smallest] >= least or len(names) == 1:
            return merged
        beside = [i for i in (smallest - 1, smallest + 1) if 0 <= i < len(names)]
        merged[merged == names[smallest]] = names[min(beside, key=lambda i: sizes[i])]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Knowledge of each question's pass@1 after a few samples.

    Attributes:
        mean: `[Q]`.
        low: Lower end of the central interval, `[Q]`.
        high: Upper end, `[Q]`.
        prior: The parameters (a, b) of the beta distribution before any sample.
        samples: m of each question.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prior: tuple[float, float]
    samples: int


def beta_posterior(values_Qm: np.ndarray, prior: str = "fitted", level: float = 0.95) -> Posterior:
    """Estimate each question's chance of a right sample from m samples: Beta(a + right, b + wrong).

    A fitted prior has the mean and the variance over questions that the samples show, less what the scatter of m
    samples within questions adds to the variance (the method of moments for the beta-binomial distribution); it pulls
    extreme shares towards the mean as far as chance explains them. All questions have equally many samples, so the
    order of questions, and quantile bins with it, is that of their plain means under any prior; thresholds and
    intervals depend on it.

    Args:
        values_Qm: `[Q, m]`: whether each sample is right; or verifier scores in its place, 0 to 1, which count as that
            part of a right sample. The interval is then that of m draws, which scatter more than scores do, and no
            better calibrated than the verifier.
        prior: `fitted` to these samples, or `uniform`: Beta(1, 1).
        level: Of the interval.

    Raises:
        UserError: The prior is unknown, or there is no sample.
    """
    values = np.asarray(values_Qm, np.float64)
    m = values.shape[1]
    if not values.size:
        raise UserError("difficulty cannot be estimated from no sample: take at least one a question")
    if prior not in ("fitted", "uniform"):
        raise UserError(f"unknown prior {prior!r}: use one of fitted, uniform")
    right = values.sum(axis=1)
    a, b = _fit_prior(values) if prior == "fitted" else (1.0, 1.0)
    after, against = a + right, b + (m - right)
    low, high = (betaincinv(after, against, part) for part in ((1 - level) / 2, (1 + level) / 2))
    return Posterior(after / (after + against), low, high, (a, b), m)


def _fit_prior(values_Qm: np.ndarray) -> tuple[float, float]:
    Q, m = values_Qm.shape
    # Samples that are all right, or all wrong, still leave room for one that is not.
    margin = 1 / (values_Qm.size + 2)
    mean = float(np.clip(values_Qm.mean(), margin, 1 - margin))
    if min(Q, m) == 1:  # says nothing of how far questions differ: as much as the uniform prior knows
        return 2 * mean, 2 * (1 - mean)
    noise = float(values_Qm.var(axis=1, ddof=1).mean()) / m
    between = float(values_Qm.mean(axis=1).var(ddof=1)) - noise
    total = mean * (1 - mean) / between - 1 if between > 0 else np.inf
    total = float(np.clip(total, *_CONCENTRATION))
    return mean * total, (1 - mean) * total


def rank_correlation(a_Q: np.ndarray, b_Q: np.ndarray) -> float:
    """Return Spearman's correlation of two measures of the same questions; equal values share their mean rank.

    Not a number where one of them is the same for all.
    """
    ranks = []
    for values in (a_Q, b_Q):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count + 1) / 2)[place])
    a, b = (rank - rank.mean() for rank in ranks)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")


def agreement(
    bins_Q: np.ndarray, other_Q: np.ndarray, ease_Q: np.ndarray, other_ease_Q: np.ndarray
) -> dict[str, float]:
    """Return how far two notions of difficulty agree on the same questions.

    Args:
        bins_Q: Bins by the first notion.
        other_Q: Bins by the second, with numbers that mean the same.
        ease_Q: Behind the first bins; higher is easier.
        other_ease_Q: Behind the second.

    Returns:
        `same` and `within_one`, the shares of questions in the same bin and at most one apart, and
        `rank_correlation` of the ease (Spearman).
    """
    apart = np.abs(bins_Q - other_Q)
    return {
        "same": float((apart == 0).mean()),
        "within_one": float((apart <= 1).mean()),
        "rank_correlation": rank_correlation(ease_Q, other_ease_Q),
    }
