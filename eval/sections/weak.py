"""How much of the gain is the verifier's: the same samples with worse ones, and with the policy's own likelihood.

After Snell et al. 2025, App. K, Fig. 17, which puts such verifiers into the exchange with a larger model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.stats.estimators import LIKELIHOOD, Samples
from ttcjax.eval.stats.intervals import Bootstrap

FLIPPED = 0.2
"""Share of scores p that become 1 - p."""
DRAWS = 20
"""Draws of the noise that are averaged, at least, for each question; a block of samples is one."""
NAMES = {
    "random": "random scores",
    "flipped": f"PRM, {FLIPPED:.0%} of its scores flipped",
    "standard": "PRM",
    "likelihood": "policy's own likelihood",
    "likelihood_best": "likeliest sample alone",
    "none": "no verifier (majority)",
}
ALONE = ("likelihood", "likelihood_best", "none")
"""Those that ask no verifier: what one must beat to be worth its compute."""


def flip(scores: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return scores of which a share, chosen one by one at random, is turned from p to 1 - p."""
    return np.where(rng.random(scores.shape) < share, 1 - scores, scores)


def accuracies(samples: Samples, how: str, n: int, seed: int) -> dict[str, np.ndarray]:
    """Return each question's accuracy `[Q]` under best-of-N weighted with every verifier of `NAMES`.

    Beside them the policy judges itself (`token_likelihood`): its votes weighted, and its likeliest sample alone.

    Args:
        samples: Of the bank.
        how: Step aggregation behind the standard scores.
        n: Budget.
        seed: Of the noise.
    """
    standard = samples.scores(how)
    rng = np.random.default_rng(seed)
    # Disjoint blocks have noise of their own, permutations of them do not; and of one sample nothing is selected.
    draws = 1 if n == 1 else -(-DRAWS // (standard.shape[2] // n))
    noisy: dict[str, list[np.ndarray]] = {"random": [], "flipped": []}
    for _ in range(draws):
        noisy["random"].append(samples.select("weighted", rng.random(standard.shape), n))
        noisy["flipped"].append(samples.select("weighted", flip(standard, FLIPPED, rng), n))
    return {
        **{name: np.mean(found, axis=0) for name, found in noisy.items()},
        "standard": samples.accuracy("weighted", how, n),
        "likelihood": samples.accuracy("weighted", LIKELIHOOD, n),
        "likelihood_best": samples.accuracy("best", LIKELIHOOD, n),
        "none": samples.accuracy("majority", how, n),
    }


def summarise(settings: SweepConfig, samples: Samples, how: str) -> dict[str, Any]:
    """Compare verifiers at every budget.

    Returns:
        `accuracy[verifier][n]` with intervals, and, paired, `minus_none[verifier][n]`, `minus_weaker[verifier][n]`:
        less the one before it among random, flipped and standard, and `prm_minus[name][n]`: the PRM less each of
        `ALONE`.
    """
    bootstrap = Bootstrap(len(samples.questions), settings.bootstrap, settings.bootstrap_seed)
    found = {n: accuracies(samples, how, n, settings.seed) for n in settings.budgets}
    return {
        "accuracy": {
            name: {str(n): dataclasses.asdict(bootstrap(values[name])) for n, values in found.items()} for name in NAMES
        },
        "minus_none": {
            name: {
                str(n): dataclasses.asdict(bootstrap.paired(values[name], values["none"]))
                for n, values in found.items()
            }
            for name in NAMES
            if name != "none"
        },
        "minus_weaker": {
            name: {
                str(n): dataclasses.asdict(bootstrap.paired(values[name], values[weaker]))
                for n, values in found.items()
            }
            for weaker, name in (("random", "flipped"), ("flipped", "standard"))
        },
        "prm_minus": {
            name: {
                str(n): dataclasses.asdict(bootstrap.paired(values["standard"], values[name]))
                for n, values in found.items()
            }
            for name in ALONE
        },
    }


def figure(summary: dict[str, Any]) -> Figure:
    """Draw accuracy against the budget, a line a verifier."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(6.5, 4.0)
        axes = drawn.add_subplot()
        for i, (name, cells) in enumerate(summary["accuracy"].items()):
            figures.band(axes, [int(n) for n in cells], cells.values(), i, NAMES[name])
        figures.powers_of_two(axes, [int(n) for n in summary["accuracy"]["none"]])
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Best-of-N weighted by verifier")
        figures.legend_below(drawn)
        return drawn


def render(summary: dict[str, Any], console: Console) -> None:
    """Print each verifier's accuracy by budget, and what it gains over none."""
    table = tables.table("weak verifiers: accuracy in % by budget", ["N =", *summary["accuracy"]["none"]])
    for name, cells in summary["accuracy"].items():
        table.add_row(NAMES[name], *map(tables.cell, cells.values()))
        if name in summary["minus_none"]:
            table.add_row("- none", *map(tables.difference_cell, summary["minus_none"][name].values()), style="dim")
    for name, cells in summary["prm_minus"].items():
        if name != "none":  # that one stands above already
            table.add_row(f"PRM\n- {NAMES[name]}", *map(tables.difference_cell, cells.values()), style="dim")
    console.print(table)


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (verifier, measure, budget, mean, low, high)."""
    return [
        (name, measure, n, cell["mean"], cell["low"], cell["high"])
        for measure, verifiers in summary.items()
        for name, cells in verifiers.items()
        for n, cell in cells.items()
    ]
