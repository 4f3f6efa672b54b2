"""Test-time compute in the place of a larger model: the exchange of FLOPs (Snell et al. 2024, section 7).

A model of P parameters costs 6 P FLOPs a token of pretraining and 2 P a token of inference. A model M times as large
costs M times both. Given the FLOPs that the larger model takes more, the smaller one may answer with kappa times its
inference: how large that is depends on R, the tokens of inference that are expected for each token of pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from ttcjax.eval.stats.allocate import accuracy_at
from ttcjax.runtime.errors import UserError

Convention = Literal["v1", "iclr", "strict"]
"""Convention by which inference is charged.

`v1`: 2 P a token, of both models (the first version of the paper).
`iclr`: 4 P, since a verifier of the same size reads along; of the larger model too, which has none (the published one).
`strict`: 4 P for the smaller model with its verifier, 2 P for the larger one, which answers once without."""
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def kappa(size_ratio: float, r: float, convention: Convention = "v1") -> float:
    """Return how many times its plain inference the smaller model may spend.

    From 6 P D_pre + kappa Y = M (6 P D_pre) + Y' with R = D_inf / D_pre: `v1` and `iclr` give
    M + 6 (M - 1) / (c R) with c = 2 and 4, `strict` gives M / 2 + 6 (M - 1) / (4 R). A unit is one answer of the
    smaller model, under `iclr` and `strict` with its reading by the verifier.

    Args:
        size_ratio: M, parameters of the larger model for each of the smaller.
        r: R; infinite where pretraining costs nothing.
        convention: Convention by which inference is charged.

    Raises:
        UserError: M is below 1, or R is not positive.
    """
    if not (size_ratio >= 1 and math.isfinite(size_ratio)):
        raise UserError(
            f"the larger model must be as large at least: a ratio of {size_ratio:g} is below 1 or no number"
        )
    if not r > 0:
        raise UserError(f"R = D_inference / D_pretrain must be positive, not {r:g}")
    inference = 2.0 if convention == "v1" else 4.0
    each = size_ratio / 2 if convention == "strict" else size_ratio
    return each + 6 * (size_ratio - 1) / (inference * r)


def ratio_of_budget(size_ratio: float, budget: float, convention: Convention = "v1") -> float | None:
    """Return the R at which a budget is the fair one: the inverse of `kappa`.

    Returns:
        R, or `None` where the budget is below what the smaller model is due at every R.
    """
    least = kappa(size_ratio, math.inf, convention)
    if budget <= least:
        return None
    inference = 2.0 if convention == "v1" else 4.0
    return 6 * (size_ratio - 1) / (inference * (budget - least))


def at_budget(curve: Mapping[int, np.ndarray], budget: float) -> np.ndarray:
    """Return the smaller model's accuracies, a question or a resample, at any budget from the least measured one on.

    Linear in the logarithm between measured budgets. Above the largest one its own: a budget is an upper limit.

    Args:
        curve: Accuracies, an array at each budget; budgets positive and rising.
        budget: Where to look.

    Raises:
        UserError: The budget is below all that were measured.
    """
    budgets = list(curve)
    if budget < budgets[0]:
        raise UserError(f"nothing is known at {budget:g} generations: add smaller budgets than {budgets[0]}")
    accuracy_BQ = np.stack(list(curve.values()))
    return accuracy_at(budgets, accuracy_BQ, np.full(accuracy_BQ.shape[1], min(budget, budgets[-1])))


def break_even(
    budgets: Sequence[float],
    accuracy: Sequence[float],
    large: float,
    size_ratio: float,
    convention: Convention = "v1",
) -> float | None:
    """Return the R up to which test-time compute wins: where its accuracy falls to that of the larger model.

    Less R means more budget. What counts is from which budget on the smaller model stays as good up to the largest
    budget measured: a curve that falls again has won in between and is not said to win.

    Args:
        budgets: Of the smaller model, positive and rising.
        accuracy: The smaller model's at each.
        large: Accuracy of the larger model, answering once.
        size_ratio: M.
        convention: Convention by which inference is charged.

    Returns:
        R; infinite where the smaller model is as good at every budget that it is due; `None` where it is not as good at
        the largest budget measured.
    """
    if accuracy[-1] < large:
        return None
    first = len(budgets) - 1
    while first and accuracy[first - 1] >= large:
        first -= 1
    budget = budgets[first]
    if first:
        before, low, value = budgets[first - 1], accuracy[first - 1], accuracy[first]
        budget = before * (budget / before) ** ((large - low) / (value - low))
    found = ratio_of_budget(size_ratio, budget, convention)
    return math.inf if found is None else found
