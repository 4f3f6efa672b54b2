"""Compute savings: how many times as much a baseline needs for what was reached with less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ttcjax.eval.stats.draws import Drawn
from ttcjax.eval.stats.intervals import Bootstrap

SAVED = 4
"""Times the compute that choosing by difficulty saves at most in Snell et al. 2024."""


@dataclass(frozen=True)
class Saved:
    """Ratio of the generations that a baseline needs to be as accurate to those of what was chosen.

    Where it does not get there within its largest budget, that one stands for what it needs: a lower bound.

    Attributes:
        times: The ratio; with its draws, see `draws.Drawn`.
        low: Lower end of its interval.
        high: Upper end.
        reached: Whether the baseline gets there within its largest budget.
        high_reached: Whether it does at the upper end.
        per_seed: In a study, the ratio of each seed.
    """

    times: float
    low: float
    high: float
    reached: bool
    high_reached: bool
    per_seed: tuple[float | None, ...] = ()


def budget_in_view(saved: Mapping[int, Saved]) -> int | None:
    """Return the largest budget at which a saving of `SAVED` times could be seen, `None` for none.

    Beyond it the baseline's largest budget ends the comparison sooner.

    Args:
        saved: By budget.
    """
    return max((n for n in saved if n > 1 and n * SAVED <= max(saved)), default=None)


def budget_for(budgets: Sequence[int], curve_BR: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """Return the least budget at which a curve reaches a target, `[R]`: linear in the logarithm between budgets.

    Args:
        budgets: Positive and rising.
        curve_BR: Accuracy at each budget, in each of R resamples.
        target_R: What to reach.

    Returns:
        The budgets; the least one where it is enough, infinity where none is.
    """
    found = np.full(target_R.shape, np.inf)
    logs = np.log(budgets)
    for i in reversed(range(len(budgets))):
        reached = curve_BR[i] >= target_R
        if not i:
            return np.where(reached, float(budgets[0]), found)
        below = curve_BR[i - 1] < target_R
        rise = np.where(reached & below, curve_BR[i] - curve_BR[i - 1], 1.0)
        part = (target_R - curve_BR[i - 1]) / rise
        crossing = np.exp(logs[i - 1] + part * (logs[i] - logs[i - 1]))
        found = np.where(reached & below, crossing, found)
    return found


def compute_saved(baseline: Mapping[int, np.ndarray], n: int, chosen_R: np.ndarray, bootstrap: Bootstrap) -> Saved:
    """Return how many times n generations the baseline needs to be as accurate as what was chosen at n.

    Args:
        baseline: Each question's accuracy `[Q]`, by budget.
        n: Generations of what was chosen.
        chosen_R: Mean accuracy of what was chosen in each resample, `[1 + R]`.
        bootstrap: The resamples.
    """
    budgets = list(baseline)
    largest = float(budgets[-1])
    curve_BR = np.stack([bootstrap.means(values) for values in baseline.values()])
    needed_R = budget_for(budgets, curve_BR, chosen_R)
    low, high = bootstrap.quantiles(needed_R)
    return Saved(
        times=Drawn(min(float(needed_R[0]), largest) / n, np.minimum(needed_R[1:], largest) / n),
        low=min(low, largest) / n,
        high=min(high, largest) / n,
        reached=bool(np.isfinite(needed_R[0])),
        high_reached=bool(np.isfinite(high)),
    )
