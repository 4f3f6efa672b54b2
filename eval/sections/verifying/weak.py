"""How much of the gain is the verifier's: the same samples with worse ones, and with the policy's own likelihood.

After Snell et al. 2025, App. K, Fig. 17, which puts such verifiers into the exchange with a larger model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, higher
from ttcjax.eval.sections import baseline
from ttcjax.eval.stats.estimators import LIKELIHOOD, Samples
from ttcjax.eval.stats.intervals import Bootstrap, Estimate

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


Cells = dict[str, dict[int, Estimate]]
"""By verifier and budget."""


@dataclass(frozen=True)
class Weak:
    """Verifiers at every budget.

    Attributes:
        accuracy: Of best-of-N weighted by each of `NAMES`.
        minus_none: The same less majority, paired.
        minus_weaker: `flipped` less `random` and `standard` less `flipped`, paired.
        prm_minus: The PRM less each of `ALONE`, paired.
    """

    accuracy: Cells
    minus_none: Cells
    minus_weaker: Cells
    prm_minus: Cells


def compare(settings: SweepConfig, samples: Samples, how: str) -> Weak:
    """Compare verifiers at every budget.

    Args:
        settings: `budgets`, `seed` and `bootstrap` are used.
        samples: Of the bank.
        how: Step aggregation behind the standard scores.
    """
    bootstrap = Bootstrap(len(samples.questions), settings.bootstrap, settings.bootstrap_seed)
    found = {n: accuracies(samples, how, n, settings.seed) for n in settings.budgets}

    def less(a: str, b: str) -> dict[int, Estimate]:
        return {n: bootstrap.paired(values[a], values[b]) for n, values in found.items()}

    return Weak(
        accuracy={name: {n: bootstrap(values[name]) for n, values in found.items()} for name in NAMES},
        minus_none={name: less(name, "none") for name in NAMES if name != "none"},
        minus_weaker={name: less(name, weaker) for weaker, name in (("random", "flipped"), ("flipped", "standard"))},
        prm_minus={name: less("standard", name) for name in ALONE},
    )


def figure(found: Weak) -> Figure:
    """Draw accuracy against the budget, a line a verifier."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(6.5, 4.0)
        axes = drawn.add_subplot()
        for i, (name, cells) in enumerate(found.accuracy.items()):
            figures.band(axes, list(cells), cells.values(), i, NAMES[name])
        figures.powers_of_two(axes, list(found.accuracy["none"]))
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Best-of-N weighted by verifier")
        figures.legend_below(drawn)
        return drawn


def render(found: Weak, console: Console) -> None:
    """Print each verifier's accuracy by budget, and what it gains over none."""
    table = tables.table("weak verifiers: accuracy in % by budget", ["N =", *map(str, found.accuracy["none"])])
    for name, cells in found.accuracy.items():
        table.add_row(NAMES[name], *map(tables.cell, cells.values()))
        if name in found.minus_none:
            table.add_row("- none", *map(tables.difference_cell, found.minus_none[name].values()), style="dim")
    for name, cells in found.prm_minus.items():
        if name != "none":  # that one stands above already
            table.add_row(f"PRM\n- {NAMES[name]}", *map(tables.difference_cell, cells.values()), style="dim")
    console.print(table)


def csv_rows(found: Weak) -> list[tuple[Any, ...]]:
    """Return (verifier, measure, budget, mean, low, high)."""
    by_measure = {
        "accuracy": found.accuracy,
        "minus_none": found.minus_none,
        "minus_weaker": found.minus_weaker,
        "prm_minus": found.prm_minus,
    }
    return [
        (name, measure, n, *cell.ends)
        for measure, verifiers in by_measure.items()
        for name, cells in verifiers.items()
        for n, cell in cells.items()
    ]


class WeakVerifiers(Section[Weak]):
    """Worse verifiers on the same samples."""

    name = "weak_verifiers"
    result = Weak
    drawings = (
        Drawing[Weak](
            Entry(
                "weak_verifiers",
                "Weak verifiers",
                "The better the verifier, the more test-time compute brings: random scores are no better than "
                "majority, with a fifth of its scores flipped the verifier still helps, and it is best as it is. The "
                "paper puts such verifiers into the exchange with a larger model; here they select among base "
                "samples. Beside them the policy judges itself: votes weighted by the likelihood of their tokens cost "
                "nothing, and a verifier must beat them.",
                "sweep.strategies, sweep.budgets",
                iclr="17",
                tables=("weak_verifiers",),
            ),
            draw=lambda found, _: figure(found),
            greedy=baseline.once(0),
        ),
    )
    tables = (Table[Weak]("weak_verifiers", "verifier measure budget mean low high", lambda found, _: csv_rows(found)),)

    def compute(self, records: Records) -> Weak:
        return compare(records.settings.sweep, records.measured.samples, records.settings.aggregate)

    def text(self, found: Weak, summary: Summary, console: Console) -> None:
        render(found, console)

    def claims(self, found: Weak, summary: Summary) -> Iterator[Claim]:
        for name, text in (
            ("flipped", "A PRM with a fifth of its scores flipped beats random scores"),
            ("standard", "The PRM beats itself with a fifth of its scores flipped"),
        ):
            cells = found.minus_weaker[name]
            n = max(cells)
            paper = "the better the verifier, the more test-time compute brings"
            where = "weak_verifiers.minus_weaker"
            yield higher(f"{text} (N = {n})", "ICLR Fig. 17", paper, cells[n], where)


SECTION = WeakVerifiers()
