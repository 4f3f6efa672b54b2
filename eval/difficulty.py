"""How hard questions are, and the bins that follow from it."""

from __future__ import annotations

import numpy as np

from ttcjax.errors import UserError


def quantile_bins(ease_Q: np.ndarray, bins: int = 5) -> np.ndarray:
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
