"""Differences between numbers of the report that claims rest on, paired over questions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ttcjax.config import SweepConfig
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.search import registry

WEIGHTED = "best_of_n:select=weighted"
"""What searches are compared with."""

AGGREGATION_PAIRS = (("last", "min"), ("min", "product"), ("last", "mean"))
GROUPS = {"1-2": (1, 2), "3-4": (3, 4), "5": (5,)}
"""Difficulty bins that claims speak of together."""
LEAST = 4
"""Least budget that growth is counted from: the first of the bars of Snell et al. 2024, Fig. 3 right."""


def searches(names: Iterable[str]) -> list[str]:
    """Return those strategies that search by the verifier, rather than choose among independent samples."""
    return [name for name in names if registry.named(name).searches and registry.named(name).selector.asks_verifier]


def summarise(
    settings: SweepConfig,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    aggregation: Mapping[str, Mapping[int, np.ndarray]],
    bins_Q: np.ndarray | None,
) -> dict[str, Any]:
    """Compute differences over the same questions.

    Args:
        settings: `budgets`, `seed` and `bootstrap` are used.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        aggregation: The same by step aggregation.
        bins_Q: The difficulty bin of each question, from 1; `None` where there are too few questions for bins.

    Returns:
        `aggregation`: `a` less `b` at every `n`, for pairs of step aggregations, and the product less majority if that
        is among the strategies; `strategies`: the same for every pair of searches; `growth[strategy][bins]`: accuracy
        at `to` less that at `from` generations, for all questions and for groups of bins; and, with best-of-N weighted
        among the strategies, `beyond_weighted[strategy][bins]`: how far a search is above it, in the mean over the
        budgets `from` to `to`, and `lead[strategy]`: how far it is above at `to`, less the same at `from`.
    """
    questions = len(next(iter(aggregation["last"].values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)

    def differences(a: str, b: str, left: Mapping[int, np.ndarray], right: Mapping[int, np.ndarray]) -> list[Any]:
        return [
            {"a": a, "b": b, "n": n, **dataclasses.asdict(bootstrap.paired(left[n], right[n]))}
            for n in settings.budgets
        ]

    found: dict[str, Any] = {
        "aggregation": [row for a, b in AGGREGATION_PAIRS for row in differences(a, b, aggregation[a], aggregation[b])],
        "strategies": [
            row
            for a, b in itertools.combinations(searches(accuracy), 2)
            for row in differences(a, b, accuracy[a], accuracy[b])
        ],
    }
    if "majority" in accuracy:
        found["aggregation"] += differences("product", "majority", aggregation["product"], accuracy["majority"])
    ends = _ends(settings.budgets)
    if ends is not None:
        inside = {"all": np.ones(questions, bool)}
        if bins_Q is not None:
            inside |= {name: np.isin(bins_Q, numbers) for name, numbers in GROUPS.items()}
        low, high = ends
        budgets = [n for n in settings.budgets if low <= n <= high]

        def over(values_Q: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Any]:
            return {"from": low, "to": high, **dataclasses.asdict(bootstrap.difference(values_Q, mask))}

        found["growth"] = {
            strategy: {name: over(cells[high] - cells[low], mask) for name, mask in inside.items()}
            for strategy, cells in accuracy.items()
        }
        if WEIGHTED in accuracy:
            ahead = {
                strategy: {n: cells[n] - accuracy[WEIGHTED][n] for n in budgets}
                for strategy, cells in ((name, accuracy[name]) for name in searches(accuracy))
            }
            found["beyond_weighted"] = {
                strategy: {name: over(np.mean(list(cells.values()), axis=0), mask) for name, mask in inside.items()}
                for strategy, cells in ahead.items()
            }
            found["lead"] = {
                strategy: dataclasses.asdict(bootstrap.of(bootstrap.means(cells[high] - cells[low])))
                for strategy, cells in ahead.items()
            }
    return found


def _ends(budgets: Sequence[int]) -> tuple[int, int] | None:
    low, high = min((n for n in budgets if n >= LEAST), default=0), max(budgets)
    return (low, high) if 0 < low < high else None
