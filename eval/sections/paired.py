"""Differences between numbers of the report that claims rest on, paired over questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.records.measured import by_aggregation
from ttcjax.eval.report.coding import key
from ttcjax.eval.report.drawing.figures import label
from ttcjax.eval.report.section import Section, Summary
from ttcjax.eval.report.verdicts import Claim, higher, lower, turned, unless
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.estimators import LIKELIHOOD
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.search import registry

WEIGHTED = "best_of_n:select=weighted"
"""The strategy that searches are compared with."""
ALONE = "best_of_n:select=weighted,by=likelihood"
"""Votes weighted by the policy's own likelihood: the baseline that has no verifier but the policy."""

AGGREGATION_PAIRS = (("last", "min"), ("min", "product"), ("last", "mean"))
GROUPS = {"1-2": (1, 2), "3-4": (3, 4), "5": (5,)}
"""Difficulty bins that claims speak of together."""
LEAST = 4
"""Least budget that growth is counted from: the first of the bars of Snell et al. 2024, Fig. 3 right."""


def searches(names: Iterable[str]) -> list[str]:
    """Return those strategies that search by the verifier, rather than choose among independent samples."""
    return [name for name in names if registry.named(name).searches and registry.named(name).asks_verifier]


@dataclass(frozen=True, kw_only=True)
class Compared(Estimate):
    """One thing less another at a budget.

    Attributes:
        a: The first.
        b: The second.
        n: The budget.
    """

    a: str
    b: str
    n: int


@dataclass(frozen=True, kw_only=True)
class BySelector(Estimate):
    """A difference at a budget.

    Attributes:
        n: The budget.
        selector: How an answer is selected.
    """

    n: int
    selector: str


@dataclass(frozen=True, kw_only=True)
class Span(Estimate):
    """Change between two budgets.

    Attributes:
        start: The lower budget.
        end: The higher one.
    """

    start: int = field(metadata=key("from"))
    end: int = field(metadata=key("to"))


Spans = dict[str, dict[str, Span]]
"""By strategy and group of bins: `all`, or one of `GROUPS`."""


@dataclass(frozen=True)
class Paired:
    """Differences over the same questions.

    Attributes:
        comparisons: Best-of-N weighted less majority and less the policy's own likelihood, each search less it.
        aggregation: Pairs of step aggregations, and the product less majority if that is among the strategies.
        strategies: Every pair of searches.
        growth: Accuracy at the highest budget less that at the lowest.
        beyond_weighted: How far a search is above best-of-N weighted, in the mean over budgets.
        lead: How far it is above at the highest budget, less the same at the lowest.
    """

    comparisons: list[Compared]
    aggregation: list[Compared]
    strategies: list[Compared]
    growth: Spans = field(default_factory=dict)
    beyond_weighted: Spans = field(default_factory=dict)
    lead: dict[str, Estimate] = field(default_factory=dict)

    def of(self, a: str, b: str) -> dict[int, Compared]:
        """Return the differences between two strategies, by budget."""
        return {row.n: row for row in self.comparisons if (row.a, row.b) == (a, b)}


def compare(
    settings: SweepConfig,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    alone: Mapping[int, np.ndarray],
    aggregation: Mapping[str, Mapping[int, np.ndarray]],
    bins_Q: np.ndarray | None,
) -> Paired:
    """Compute differences over the same questions.

    Args:
        settings: `strategies`, `budgets`, `seed` and `bootstrap` are used.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        alone: The same of `ALONE`, by budget.
        aggregation: The same by step aggregation and budget.
        bins_Q: The difficulty bin of each question, from 1; `None` where there are too few questions for bins.
    """
    questions = len(next(iter(aggregation["last"].values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)
    compared = {**accuracy, ALONE: accuracy.get(ALONE, alone)}

    def differences(a: str, b: str, left: Mapping[int, np.ndarray], right: Mapping[int, np.ndarray]) -> list[Compared]:
        return [bootstrap.paired(left[n], right[n]).as_a(Compared, a=a, b=b, n=n) for n in settings.budgets]

    aggregated = [row for a, b in AGGREGATION_PAIRS for row in differences(a, b, aggregation[a], aggregation[b])]
    if "majority" in accuracy:
        aggregated += differences("product", "majority", aggregation["product"], accuracy["majority"])
    return Paired(
        comparisons=[
            row for a, b in _pairs(settings.strategies) for row in differences(a, b, compared[a], compared[b])
        ],
        aggregation=aggregated,
        strategies=[
            row
            for a, b in itertools.combinations(searches(accuracy), 2)
            for row in differences(a, b, accuracy[a], accuracy[b])
        ],
        **_between_budgets(settings.budgets, accuracy, bins_Q, bootstrap),
    )


def _pairs(strategies: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is compared: weighted with majority and the policy's own likelihood, each search with weighted."""
    if WEIGHTED not in strategies:
        return []
    voting = ["majority"] if "majority" in strategies else []
    searching = [(name, WEIGHTED) for name in strategies if registry.named(name).searches]
    return [(WEIGHTED, name) for name in (*voting, ALONE)] + searching


def _between_budgets(
    budgets: Sequence[int],
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    bins_Q: np.ndarray | None,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Return `growth`, `beyond_weighted` and `lead`, where there are two budgets to compare."""
    ends = _ends(budgets)
    if ends is None:
        return {}
    low, high = ends
    inside = {"all": np.ones(bootstrap.counts.shape[1], bool)}
    if bins_Q is not None:
        inside |= {name: np.isin(bins_Q, numbers) for name, numbers in GROUPS.items()}

    def over(values_Q: np.ndarray) -> dict[str, Span]:
        return {
            name: bootstrap.difference(values_Q, mask).as_a(Span, start=low, end=high) for name, mask in inside.items()
        }

    found: dict[str, Any] = {
        "growth": {strategy: over(cells[high] - cells[low]) for strategy, cells in accuracy.items()}
    }
    if WEIGHTED in accuracy:
        between = [n for n in budgets if low <= n <= high]
        ahead = {name: {n: accuracy[name][n] - accuracy[WEIGHTED][n] for n in between} for name in searches(accuracy)}
        found["beyond_weighted"] = {name: over(np.mean(list(cells.values()), axis=0)) for name, cells in ahead.items()}
        found["lead"] = {name: bootstrap.of(bootstrap.means(cells[high] - cells[low])) for name, cells in ahead.items()}
    return found


def _ends(budgets: Sequence[int]) -> tuple[int, int] | None:
    low, high = min((n for n in budgets if n >= LEAST), default=0), max(budgets)
    return (low, high) if 0 < low < high else None


def beam_by_difficulty(found: Paired) -> str | None:
    """Return the beam search that claims on difficulty speak of; `None` without one, or without bins."""
    beams = [name for name, groups in found.growth.items() if name.startswith("beam:") and "5" in groups]
    return None if not beams else "beam:width=4" if "beam:width=4" in beams else beams[0]


class Differences(Section[Paired]):
    """Differences between strategies, and between ways to make one score of a solution's steps."""

    name = "paired"
    result = Paired

    def compute(self, records: Records) -> Paired:
        sweep, measured = records.settings.sweep, records.measured
        alone = {n: measured.samples.accuracy("weighted", LIKELIHOOD, n) for n in sweep.budgets}
        bins_Q = quantile_bins(measured.others.pass_at_1()) if records.binned else None
        return compare(sweep, measured.accuracy, alone, by_aggregation(measured.samples, sweep.budgets), bins_Q)

    def claims(self, found: Paired, summary: Summary) -> Iterator[Claim]:
        yield from _searching(found)
        yield from _by_difficulty(found)
        yield from _aggregating(found)
        yield from _voting(found)


SECTION = Differences()


def _voting(paired: Paired) -> Iterator[Claim]:
    found = paired.of(WEIGHTED, "majority")
    if found:
        # At the largest budget the bank holds few blocks of samples, and a quarter of it is clearer.
        n = max(found) // 4 if max(found) // 4 in found else max(found)
        text = f"Best-of-N weighted by the PRM beats the majority vote (N = {n})"
        paper = "32% against 28% at 32 generations, 40% against 30% at 2048"
        yield higher(text, "Fig. 14", paper, found[n], "paired.comparisons")


def _searching(paired: Paired) -> Iterator[Claim]:
    for strategy in dict.fromkeys(row.a for row in paired.comparisons):
        found = paired.of(strategy, WEIGHTED)
        if not found:
            continue
        name, largest = label(strategy), max(found)
        low = min((n for n in found if n >= LEAST), default=largest)
        if strategy.startswith("beam:"):
            where, paper = "paired.comparisons", "34% against about 29% at 16 generations"
            if low < largest:
                text = f"Search ({name}) beats best-of-N weighted at a low budget (N = {low})"
                yield higher(text, "Fig. 3 left", paper, found[low], where)
            if strategy in paired.lead:
                text = f"Its lead over best-of-N weighted shrinks with budget ({name}, N = {low} to {largest})"
                paper = "the lead at small budgets is gone at 256"
                reason = None if found[low].mean > 0 else f"here it has no lead at N = {low}"
                claim = lower(text, "Fig. 3 left", paper, paired.lead[strategy], f"paired.lead[{strategy}]")
                yield unless(reason, claim)
        if strategy.startswith(("beam:width=sqrt", "lookahead:")):
            text = f"Search ({name}) falls below best-of-N weighted at the highest budget (N = {largest})"
            paper = "below it at 256; beams of width 4 end level with it"
            yield lower(text, "Fig. 3 left", paper, found[largest], "paired.comparisons")
    rows = [
        row for row in paired.strategies if {row.a.partition(":")[0], row.b.partition(":")[0]} == {"beam", "lookahead"}
    ]
    for row in rows:
        if row.n == max(r.n for r in rows) and _width(row.a) == _width(row.b):
            first = row.a.startswith("lookahead")
            a, b = (row.a, row.b) if first else (row.b, row.a)
            text = f"{label(a)} is worse than {label(b)} at an equal budget (N = {row.n})"
            paper = "lookahead does worst at equal budgets"
            yield lower(text, "Fig. 3 left", paper, row if first else turned(row), "paired.strategies")


def _width(strategy: str) -> str:
    return strategy.partition("width=")[2].partition(",")[0]


def _by_difficulty(paired: Paired) -> Iterator[Claim]:
    beam = beam_by_difficulty(paired)
    if beam is None:
        return
    name, cell = label(beam), paired.growth[beam]["1-2"]
    at = f"N = {cell.start} to {cell.end}"
    text = f"On easy questions (bins 1-2) {name} loses accuracy with budget ({at})"
    paper = "it degrades as the budget grows: it over-optimises the verifier"
    yield lower(text, "Fig. 3 right", paper, cell, f"paired.growth[{beam}][1-2]")
    if beam in paired.beyond_weighted:
        text = f"On harder questions (bins 3-4) {name} beats best-of-N weighted (mean over {at})"
        paper = "it beats best-of-N at all budgets shown, 4 to 256"
        cell = paired.beyond_weighted[beam]["3-4"]
        yield higher(text, "Fig. 3 right", paper, cell, f"paired.beyond_weighted[{beam}][3-4]")


def _aggregating(paired: Paired) -> Iterator[Claim]:
    names = {"last": "the last step's score", "min": "the lowest step's", "product": "the product of all steps'"}
    paper = "in order: last, lowest, majority vote, product"
    for a, b in (("last", "min"), ("min", "product")):
        cells = {row.n: row for row in paired.aggregation if (row.a, row.b) == (a, b)}
        if cells:
            text = f"As a solution's score {names[a]} beats {names[b]} (N = {max(cells)})"
            yield higher(text, "Fig. 13", paper, cells[max(cells)], "paired.aggregation")
    cells = {row.n: row for row in paired.aggregation if (row.a, row.b) == ("product", "majority")}
    if cells:
        text = f"Votes weighted by the product of all steps' scores fall below the majority vote (N = {max(cells)})"
        yield lower(text, "Fig. 13", paper, cells[max(cells)], "paired.aggregation")
