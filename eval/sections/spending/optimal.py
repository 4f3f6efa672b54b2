"""Gains of choosing the strategy by difficulty at every budget (Snell et al. 2024, Figs. 3 right, 4 and 12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, below, higher, judged, saving
from ttcjax.eval.sections import accuracy as by_strategy
from ttcjax.eval.sections import baseline, paired
from ttcjax.eval.stats.allocate import Choice, choose, regret
from ttcjax.eval.stats.difficulty import BINS, quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.eval.stats.savings import SAVED, Saved, budget_in_view, compute_saved
from ttcjax.search import registry

_V = TypeVar("_V")
_NOTHING = 0.10
"""Accuracy below which nothing works."""
CHOSEN = "chosen"
"""Stands among the strategies of a bin for what is chosen there."""


def choices(
    settings: SweepConfig,
    candidates: Mapping[int, Mapping[str, np.ndarray]],
    bins_Q: np.ndarray,
    bootstrap: Bootstrap,
) -> dict[int, Choice]:
    """Choose a strategy for each bin at every budget, on one fold for the other.

    Args:
        settings: `folds`, `fold_repeats` and `seed` are used.
        candidates: Each question's accuracy `[Q]`, by budget and strategy; of equals the first is chosen.
        bins_Q: The bin of each question.
        bootstrap: Resamples of the questions, in each of which the choice is made anew.
    """
    return {
        n: choose(settings, np.stack(list(accuracy.values())), bins_Q, bootstrap) for n, accuracy in candidates.items()
    }


def by_budget(accuracy: Mapping[str, Mapping[int, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """Turn accuracies by strategy and budget into those by budget and strategy."""
    budgets = next(iter(accuracy.values()))
    return {n: {strategy: values[n] for strategy, values in accuracy.items()} for n in budgets}


@dataclass(frozen=True)
class Notion:
    """Choice by one notion of difficulty, at every budget.

    Attributes:
        accuracy: Of what was chosen.
        regret: How far that is below the best strategy for each question alone.
        minus_best: Less one strategy for all bins, the best of the other folds, paired.
        shares: How often each strategy is chosen, by budget, bin and strategy.
        compute_saved: Against a baseline, where that is among the strategies.
    """

    accuracy: dict[int, Estimate]
    regret: dict[int, Estimate]
    minus_best: dict[int, Estimate]
    shares: dict[int, dict[int, dict[str, float]]]
    compute_saved: dict[int, Saved] = field(default_factory=dict)


Curves = dict[str, dict[int, Estimate]]
"""By strategy, `CHOSEN` among them, and budget."""


@dataclass(frozen=True)
class Chosen:
    """Strategies chosen by difficulty.

    Attributes:
        per_bin: By notion of difficulty and bin.
        oracle: Chosen by difficulty known from labels.
        predicted: Chosen by difficulty as the verifier predicts it.
        agreement: Share of questions that both notions put into the same bin.
    """

    per_bin: dict[str, dict[int, Curves]]
    oracle: Notion | None = None
    predicted: Notion | None = None
    agreement: float | None = None

    @property
    def notions(self) -> dict[str, Notion]:
        """Results by notion of difficulty."""
        both = {"oracle": self.oracle, "predicted": self.predicted}
        return {name: found for name, found in both.items() if found is not None}


def choose_by_difficulty(
    settings: SweepConfig,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    ease: Mapping[str, np.ndarray],
    baseline: str,
) -> Chosen:
    """Choose a strategy for each difficulty bin and budget on one fold and judge it on the other.

    Chosen are strategies that a verifier selects in, as in the paper; where there is none, others.

    Args:
        settings: `folds`, `fold_repeats`, `bootstrap` and `seed` are used.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is, `[Q]`.
        baseline: The strategy that saved compute is counted against, where it is among them.
    """
    offered = verified(accuracy)
    strategies = list(offered)
    questions = len(next(iter(ease.values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)
    bins = {name: quantile_bins(values) for name, values in ease.items()}
    candidates = by_budget(offered)
    found: dict[str, Notion] = {}
    per_bin: dict[str, dict[int, Curves]] = {}
    singles = choices(settings, candidates, np.ones(questions, np.int64), bootstrap)
    for name, bins_Q in bins.items():
        chosen = choices(settings, candidates, bins_Q, bootstrap)
        stacked = {n: np.stack(list(cells.values())) for n, cells in candidates.items()}
        best = {n: bootstrap.means(accuracy_SQ.max(axis=0)) for n, accuracy_SQ in stacked.items()}
        found[name] = Notion(
            accuracy={n: choice.estimate() for n, choice in chosen.items()},
            regret={
                n: bootstrap(regret(stacked[n], choice.accuracy), means_R=best[n] - choice.means())
                for n, choice in chosen.items()
            },
            minus_best={n: choice.less(singles[n]) for n, choice in chosen.items()},
            shares={
                n: {
                    number: dict(zip(strategies, map(float, row), strict=True))
                    for number, row in enumerate(choice.shares, 1)
                }
                for n, choice in chosen.items()
            },
            compute_saved={
                n: compute_saved(accuracy[baseline], n, choice.means(), bootstrap)
                for n, choice in chosen.items()
                if baseline in accuracy
            },
        )
        per_bin[name] = {
            number: _curves_within(bootstrap, accuracy, chosen, bins_Q, number) for number in range(1, BINS + 1)
        }
    first, *others = bins.values()
    agreement = float((first == others[0]).mean()) if others else None
    return Chosen(per_bin, found.get("oracle"), found.get("predicted"), agreement)


def verified(accuracy: Mapping[str, _V]) -> dict[str, _V]:
    """Return what belongs to strategies that a verifier selects in; where there is none, all."""
    found = {name: values for name, values in accuracy.items() if registry.named(name).asks_verifier}
    return found or dict(accuracy)


def _curves_within(
    bootstrap: Bootstrap,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    chosen: Mapping[int, Choice],
    bins_Q: np.ndarray,
    number: int,
) -> Curves:
    return {
        **{
            strategy: {n: bootstrap(values, bins_Q == number) for n, values in cells.items()}
            for strategy, cells in accuracy.items()
        },
        CHOSEN: {n: choice.estimate([number]) for n, choice in chosen.items()},
    }


def figure(found: Chosen, strategies: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """Draw what is gained by choosing, and the compute that best-of-N needs for as much (Fig. 4).

    Args:
        found: What was chosen.
        strategies: Accuracy of each strategy, by budget.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        for i, (strategy, cells) in enumerate(strategies.items()):
            figures.band(axes, list(cells), cells.values(), i, figures.label(strategy))
        for i, (notion, cells) in enumerate(found.notions.items()):
            axes.plot(
                list(cells.accuracy),
                [100 * point.mean for point in cells.accuracy.values()],
                color=figures.MUTED,
                linewidth=2.2,
                linestyle=("-", (0, (4, 2)))[i % 2],
                label=f"chosen by difficulty, {notion}",
            )
        figures.powers_of_two(axes, list(next(iter(strategies.values()))))
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Strategy chosen by difficulty")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return drawn


def figure_of_bins(found: Chosen, notion: str) -> Figure:
    """Draw each strategy by difficulty (Fig. 3 right with oracle bins, Fig. 12 with predicted ones)."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(13.0, 3.9)
        axes = drawn.subplots(1, BINS, sharey=True)
        for where, (number, strategies) in zip(axes, found.per_bin[notion].items(), strict=True):
            shown = {name: cells for name, cells in strategies.items() if name != CHOSEN}
            for i, (strategy, cells) in enumerate(shown.items()):
                figures.band(where, list(cells), cells.values(), i, figures.label(strategy))
            figures.powers_of_two(where, list(next(iter(shown.values())))[::-2])
            where.set(title=f"bin {number}" + (" (easiest)" if number == 1 else ""), xlabel="N")
        axes[0].set_ylabel("accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
        drawn.suptitle(f"Accuracy by difficulty, {notion} bins", x=0.01, ha="left", fontsize=11)
        return drawn


def render(found: Chosen, console: Console) -> None:
    """Print the accuracy of the chosen strategies by budget, less the best single one, and the compute saved."""
    budgets = map(str, next(iter(found.notions.values())).accuracy)
    table = tables.table("strategy chosen by difficulty: accuracy in %", ["N =", *budgets])
    for notion, cells in found.notions.items():
        table.add_row(notion, *map(tables.cell, cells.accuracy.values()))
        table.add_row("- best single", *map(tables.difference_cell, cells.minus_best.values()), style="dim")
        if cells.compute_saved:
            table.add_row("x best-of-N", *map(tables.saved_cell, cells.compute_saved.values()), style="dim")
    console.print(table)


def csv_rows(found: Chosen) -> list[tuple[Any, ...]]:
    """Return (bins, measure, bin, strategy, budget, mean, low, high)."""
    rows: list[tuple[Any, ...]] = []
    for notion, cells in found.notions.items():
        measures = {"accuracy": cells.accuracy, "regret": cells.regret, "minus_best": cells.minus_best}
        for measure, points in measures.items():
            rows += [(notion, measure, "", "", n, *point.ends) for n, point in points.items()]
        for n, saved in cells.compute_saved.items():
            rows.append((notion, "compute_saved", "", "", n, saved.times, saved.low, saved.high))
        for n, by_bin in cells.shares.items():
            rows += [
                (notion, "share", number, strategy, n, share, "", "")
                for number, shares in by_bin.items()
                for strategy, share in shares.items()
            ]
    return rows + [
        (notion, "accuracy", number, strategy, n, *point.ends)
        for notion, bins in found.per_bin.items()
        for number, strategies in bins.items()
        for strategy, points in strategies.items()
        for n, point in points.items()
    ]


class ComputeOptimal(Section[Chosen]):
    """The strategy chosen by difficulty, where there are questions enough for bins and folds."""

    name = "compute_optimal"
    result = Chosen
    drawings = (
        Drawing[Chosen](
            Entry(
                "by_difficulty",
                "Strategies by difficulty",
                "On easy questions (bins 1 and 2) beam search loses accuracy as the budget grows: it exploits the "
                "verifier. On harder ones (3 and 4) it is better throughout, and on the hardest nothing works.",
                "data.num_test of 10 or more",
                paper="3 right",
                tables=("by_difficulty",),
            ),
            draw=lambda found, _: figure_of_bins(found, "oracle"),
            greedy=baseline.once_by_bin("oracle"),
        ),
        Drawing[Chosen](
            Entry(
                "compute_optimal",
                "The strategy chosen by difficulty",
                "Choosing by difficulty reaches best-of-N's accuracy with up to 4 times fewer generations, with bins "
                "that need no labels too; at high budgets these gain less.",
                "data.num_test of 10 or more",
                paper="4",
                tables=("by_difficulty",),
            ),
            draw=lambda found, summary: figure(found, summary.of(by_strategy.SECTION).strategies),
            greedy=baseline.once(0),
        ),
        Drawing[Chosen](
            Entry(
                "by_difficulty_predicted",
                "Strategies by predicted difficulty",
                "Bins of difficulty as the verifier predicts it, without labels, show the same as those of the truth.",
                "data.num_test of 10 or more",
                paper="12",
                tables=("by_difficulty",),
            ),
            draw=lambda found, _: figure_of_bins(found, "predicted"),
            greedy=baseline.once_by_bin("predicted"),
        ),
    )
    tables = (
        Table[Chosen](
            "by_difficulty", "bins measure bin strategy budget mean low high", lambda found, _: csv_rows(found)
        ),
    )

    def wanted(self, records: Records) -> bool:
        return records.binned

    def compute(self, records: Records) -> Chosen:
        ease = {notion: np.array(list(values.values())) for notion, values in records.ease.items()}
        return choose_by_difficulty(records.settings.sweep, records.measured.accuracy, ease, paired.WEIGHTED)

    def text(self, found: Chosen, summary: Summary, console: Console) -> None:
        render(found, console)

    def claims(self, found: Chosen, summary: Summary) -> Iterator[Claim]:
        compared = summary.get(paired.SECTION)
        beam = None if compared is None else paired.beam_by_difficulty(compared)
        if beam is not None and BINS in found.per_bin.get("oracle", {}):
            yield _on_the_hardest(found.per_bin["oracle"][BINS], beam)
        for notion, cells in found.notions.items():
            where = f"compute_optimal.{notion}"
            what = f"Best-of-N weighted needs more compute than choosing by {notion} difficulty"
            paper = f"up to {SAVED} times as much: 16 generations do what 64 do"
            yield from saving(what, cells.compute_saved, "Fig. 4", paper, f"{where}.compute_saved")
            n = budget_in_view(cells.compute_saved) or max(cells.minus_best)
            text = f"Choosing by {notion} difficulty beats the best single strategy (N = {n})"
            paper = "it is above each of its strategies at low budgets; with oracle difficulty at high ones too"
            yield higher(text, "Fig. 4", paper, cells.minus_best[n], f"{where}.minus_best")


SECTION = ComputeOptimal()


def _on_the_hardest(hardest: Curves, beam: str) -> Claim:
    n = max(hardest[beam])
    cells = {name: points[n] for name, points in hardest.items() if name != CHOSEN}
    best = max(cells, key=lambda name: cells[name].mean)
    what = f"all under {_NOTHING:.0%}, {figures.label(best)} best"
    text = f"On the hardest questions (bin {BINS}) nothing works: {what} (N = {n})"
    cell = cells[best]
    # It is the best of some by what is judged, so its lower end is that of an interval for all of them (Bonferroni).
    wider = NormalDist().inv_cdf(1 - 0.025 / len(cells)) / NormalDist().inv_cdf(1 - 0.025)
    held = below(cell.mean - wider * (cell.mean - cell.low), cell.high, _NOTHING)
    paper = "no method makes progress there: a few % at best"
    return judged(text, "Fig. 3 right", paper, cell, held, "compute_optimal.per_bin.oracle[5]", unit="%")
