"""The cost of knowing difficulty, and the gain of a budget shared out over questions by it.

Snell et al. 2024 take difficulty from 2048 samples a question and leave them out of the count (section 3.2); here it is
estimated from a few, which are counted. And they give every question the same budget; Damani et al. 2024 do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.sections import baseline
from ttcjax.eval.sections.spending import optimal
from ttcjax.eval.stats import difficulty
from ttcjax.eval.stats.allocate import (
    Choice,
    accuracy_at,
    choose,
    curve_gains,
    cuts,
    pass_gains,
    share_greedily,
    share_out,
    softmax_weights,
)
from ttcjax.eval.stats.estimators import Samples
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.search import registry

SAMPLES = (4, 16, 64)
"""Samples m of a question that its difficulty is estimated from."""
TEMPERATURES = (0.25, 1.0, -1.0, -0.25)
"""Temperatures of the softmax over 1 - ease: positive ones give more to hard questions, negative ones to easy ones."""
PRIOR = "fitted"


def grid(samples: int, budgets: Sequence[int] = ()) -> list[int]:
    """Return the budgets at which accuracy is estimated for allocations: two an octave, all that are given, the last.

    Args:
        samples: N of a question, the last.
        budgets: Others to have; those above N are left out.
    """
    octaves = [1 << i for i in range(samples.bit_length())]
    return sorted({n for n in (*octaves, *(3 * n // 2 for n in octaves), *budgets, samples) if 0 < n <= samples})


def allocations(ease: Mapping[str, np.ndarray], total: int, most: int) -> dict[str, np.ndarray]:
    """Return generations for each question by every policy that looks at difficulty alone, `[Q]` each.

    Args:
        ease: For each notion of difficulty each question's chance of a right sample, or an estimate of it.
        total: Generations for all questions, the sum of each allocation; each question gets one at least.
        most: Generations that no question exceeds.

    Returns:
        By `notion:softmax=T` for each of `TEMPERATURES`, see `allocate.softmax_weights`, and by `notion:greedy`, see
        `allocate.share_greedily`, with the gains of pass@k.
    """
    found: dict[str, np.ndarray] = {}
    for notion, ease_Q in ease.items():
        for temperature in TEMPERATURES:
            weights = softmax_weights(1 - ease_Q, temperature)
            found[f"{notion}:softmax={temperature:g}"] = share_out(total, weights, 1, most)
        found[f"{notion}:greedy"] = share_greedily(total, pass_gains(ease_Q, most))
    return found


def learned_gains(
    grid_G: Sequence[int], accuracy_GQ: np.ndarray, bins_Q: np.ndarray, seed: int, folds: int = 2
) -> np.ndarray:
    """Return what one more generation is foreseen to bring each question, `[N, Q]`, from other questions of its bin.

    The mean accuracy of the bin's questions in the other folds, between budgets as in `accuracy_at`, on its least
    concave majorant. For `allocate.share_greedily` with at least one generation each: what the first brings is 0 here.

    Args:
        grid_G: Budgets, from 1 to N.
        accuracy_GQ: Each question's accuracy at each of them.
        bins_Q: By a difficulty that is known before.
        seed: Decides the cut into folds.
        folds: Their number.
    """
    every = np.log(np.arange(1, grid_G[-1] + 1))
    gains = np.zeros((len(every), accuracy_GQ.shape[1]))
    for train, judged in cuts(bins_Q, folds, np.random.default_rng(seed)):
        mean = np.interp(every, np.log(grid_G), accuracy_GQ[:, train].mean(axis=1))
        gains[1:, judged] = curve_gains(mean)[:, None]
    return gains


def mean_cost(strategies: Sequence[str], chosen: np.ndarray, n: int, m: int) -> float:
    """Return generations a question where the m samples that told its difficulty are used again.

    Best-of-N and majority at n take those they need from the m, and cost n, or m where that is more (the vote stays
    one of n); a search takes none and costs m + n.

    Args:
        strategies: Names.
        chosen: Place of the strategy among them for each question, of any shape.
        n: Budget of every strategy.
        m: Samples behind the difficulty.
    """
    costs = np.array([max(n, m) if registry.named(name).is_best_of_n(n) else n + m for name in strategies])
    return float(costs[chosen].mean())


ByBudget = dict[int, Estimate]


@dataclass(frozen=True)
class Estimated:
    """The strategy chosen by difficulty that so many samples tell.

    Attributes:
        prior: Of `difficulty.beta_posterior`.
        interval: Mean width of its intervals.
        agreement: Of the quantile bins with those of all samples.
        accuracy: Of what was chosen, by budget.
        minus_all: Less what the bins of all samples give, paired.
        cost: Generations, those of the samples included.
        cost_reused: The same where samples are used again, see `mean_cost`.
        minus_same_cost: Less best-of-N weighted with as many generations, paired, where the bank has as many.
    """

    prior: list[float]
    interval: float
    agreement: dict[str, float]
    accuracy: ByBudget
    minus_all: ByBudget
    cost: dict[int, int]
    cost_reused: dict[int, float]
    minus_same_cost: ByBudget = field(default_factory=dict)


@dataclass(frozen=True)
class ByThreshold:
    """The strategy chosen by absolute bins, those of fewer questions than folds merged.

    Attributes:
        counts: Questions of each bin, before.
        accuracy: Of what was chosen, by budget.
        minus_quantiles: Less what quantile bins give, paired.
    """

    counts: dict[int, int]
    accuracy: ByBudget
    minus_quantiles: ByBudget


@dataclass(frozen=True)
class Thresholds:
    """Absolute bins.

    Attributes:
        edges: See `difficulty.EDGES`.
        oracle: By difficulty known from labels.
        predicted: By difficulty as the verifier predicts it.
    """

    edges: list[float]
    oracle: ByThreshold
    predicted: ByThreshold

    @property
    def notions(self) -> dict[str, ByThreshold]:
        """Results by notion of difficulty."""
        return {"oracle": self.oracle, "predicted": self.predicted}


@dataclass(frozen=True)
class Policy:
    """One way to share out a total budget.

    Attributes:
        accuracy: Of it.
        minus_uniform: Less the same for every question, paired.
        most: The largest share.
        single: Share of questions with one generation.
    """

    accuracy: Estimate
    minus_uniform: Estimate
    most: int
    single: float


@dataclass(frozen=True)
class Allocation:
    """A total budget shared out over questions, which is made once from all samples and not counted.

    Attributes:
        uniform: Accuracy with the same for every question.
        policies: By name: those of `allocations`, and `notion:learned`, greedy with `learned_gains`.
    """

    uniform: Estimate
    policies: dict[str, Policy]


@dataclass(frozen=True)
class Budgets:
    """Difficulty from a few samples, absolute bins, and allocations of a total budget.

    Attributes:
        estimated: By notion of difficulty and number of samples.
        thresholds: By absolute bins.
        agreement: Of the two notions, by `quantiles` and `thresholds`.
        allocation: By generations a question.
    """

    estimated: dict[str, dict[int, Estimated]]
    thresholds: Thresholds
    agreement: dict[str, dict[str, float]]
    allocation: dict[int, Allocation]


def spend(
    settings: SweepConfig,
    samples: Samples,
    others: Samples,
    how: str,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
) -> Budgets:
    """Judge difficulty from a few samples, absolute bins, and allocations of a total budget.

    The strategy is chosen as in `optimal.choose_by_difficulty`, with other questions' labels. Intervals of allocations
    resample questions and do not share out again.

    Args:
        settings: `folds`, `fold_repeats`, `bootstrap`, `budgets` and `seed` are used.
        samples: Of the bank, those that judge.
        others: Of the bank, those that tell difficulty.
        how: Step aggregation behind the scores.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
    """
    questions, _, size = samples.row.shape
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)
    per_sample = {
        "oracle": others.correct.reshape(questions, -1),
        "predicted": others.final_scores(how).reshape(questions, -1),
    }
    ease = {notion: values.mean(axis=1) for notion, values in per_sample.items()}
    strategies = list(optimal.verified(accuracy))
    budgets = list(next(iter(accuracy.values())))
    steps = grid(size, budgets)
    weighted_GQ = np.stack([samples.accuracy("weighted", how, n) for n in steps])

    def chosen(bins_Q: np.ndarray) -> dict[int, Choice]:
        return {
            n: choose(settings, np.stack([accuracy[name][n] for name in strategies]), bins_Q, bootstrap)
            for n in budgets
        }

    def estimated(values: np.ndarray, m: int, quantiles_Q: np.ndarray, known: Mapping[int, Choice]) -> Estimated:
        posterior = difficulty.beta_posterior(values[:, :m], PRIOR)
        bins_Q = difficulty.quantile_bins(posterior.mean)
        got = chosen(bins_Q)
        same = {n: accuracy_at(steps, weighted_GQ, np.full(questions, n + m)) for n in budgets if n + m <= size}
        return Estimated(
            prior=list(map(float, posterior.prior)),
            interval=float((posterior.high - posterior.low).mean()),
            agreement=_floats(difficulty.agreement(quantiles_Q, bins_Q, values.mean(axis=1), posterior.mean)),
            accuracy={n: choice.estimate() for n, choice in got.items()},
            minus_all={n: choice.less(known[n]) for n, choice in got.items()},
            cost={n: n + m for n in budgets},
            cost_reused={n: mean_cost(strategies, choice.chosen, n, m) for n, choice in got.items()},
            minus_same_cost={n: got[n].less(same_Q) for n, same_Q in same.items()},
        )

    quantiles = {notion: difficulty.quantile_bins(values) for notion, values in ease.items()}
    absolute = {notion: difficulty.threshold_bins(values) for notion, values in ease.items()}
    known = {notion: chosen(bins_Q) for notion, bins_Q in quantiles.items()}

    def by_threshold(notion: str) -> ByThreshold:
        got = chosen(difficulty.merge_small(absolute[notion], settings.folds))
        numbers = range(1, len(difficulty.EDGES) + 2)
        return ByThreshold(
            counts={number: int((absolute[notion] == number).sum()) for number in numbers},
            accuracy={n: choice.estimate() for n, choice in got.items()},
            minus_quantiles={n: choice.less(known[notion][n]) for n, choice in got.items()},
        )

    return Budgets(
        estimated={
            notion: {m: estimated(values, m, quantiles[notion], known[notion]) for m in SAMPLES if m <= values.shape[1]}
            for notion, values in per_sample.items()
        },
        thresholds=Thresholds(list(difficulty.EDGES), by_threshold("oracle"), by_threshold("predicted")),
        agreement={
            kind: _floats(difficulty.agreement(bins["oracle"], bins["predicted"], ease["oracle"], ease["predicted"]))
            for kind, bins in (("quantiles", quantiles), ("thresholds", absolute))
        },
        allocation=_allocation(size, settings, ease, quantiles, steps, weighted_GQ, bootstrap, budgets),
    )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _allocation(
    size: int,
    settings: SweepConfig,
    ease: Mapping[str, np.ndarray],
    bins: Mapping[str, np.ndarray],
    steps: Sequence[int],
    accuracy_GQ: np.ndarray,
    bootstrap: Bootstrap,
    budgets: Sequence[int],
) -> dict[int, Allocation]:
    """Compare allocations with the same for every question, at totals that leave something to share out."""
    questions = accuracy_GQ.shape[1]
    learned = {
        notion: learned_gains(steps, accuracy_GQ, bins_Q, settings.seed, settings.folds)
        for notion, bins_Q in bins.items()
    }
    found: dict[int, Allocation] = {}
    for n in (n for n in budgets if 1 < n < size):
        uniform = accuracy_GQ[list(steps).index(n)]
        counts = allocations(ease, n * questions, size)
        counts |= {f"{name}:learned": share_greedily(n * questions, gains) for name, gains in learned.items()}
        cells = {}
        for name in sorted(counts, key=lambda name: name.partition(":")[0]):
            got = accuracy_at(steps, accuracy_GQ, counts[name])
            cells[name] = Policy(
                accuracy=bootstrap(got),
                minus_uniform=bootstrap.paired(got, uniform),
                most=int(counts[name].max()),
                single=float((counts[name] == 1).mean()),
            )
        found[n] = Allocation(bootstrap(uniform), cells)
    return found


def figure(found: Budgets) -> Figure:
    """Draw accuracy by what was spent, difficulty included or not, and what allocations gain over the same for all."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(14.5, 4.2)
        left, right = drawn.subplots(1, 2)
        estimated = found.estimated["predicted"]
        for i, (m, cells) in enumerate(estimated.items()):
            figures.band(left, list(cells.cost.values()), cells.accuracy.values(), i, f"m = {m}, counted")
            left.plot(
                list(cells.accuracy),
                [100 * point.mean for point in cells.accuracy.values()],
                color=figures.COLOURS[i],
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                label=f"m = {m}, not counted",
            )
        figures.powers_of_two(left, list(found.thresholds.predicted.accuracy))
        left.set(
            xlabel="generations a question",
            ylabel="accuracy (%)",
            title="Strategy chosen by difficulty predicted from m samples",
        )
        if estimated:
            left.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        totals = found.allocation
        names = list(next(iter(totals.values())).policies) if totals else []
        for i, name in enumerate(names):
            points = [cells.policies[name].minus_uniform for cells in totals.values()]
            oracle = name.startswith("oracle")
            right.plot(
                list(totals),
                [100 * point.mean for point in points],
                color=figures.COLOURS[i % (len(TEMPERATURES) + 2)],
                marker=figures.MARKERS[i % (len(TEMPERATURES) + 2)],
                markersize=4,
                linewidth=1.6,
                linestyle=(0, (4, 2)) if oracle else "-",
                label="_nolegend_" if oracle else policy_label(name).partition(",")[0],
            )
        right.axhline(0, color=figures.MUTED, linewidth=1)
        figures.powers_of_two(right, list(totals) or [1])
        right.set(
            xlabel="generations a question, on average",
            ylabel="points above the same for all",
            title="Best-of-N weighted, shared out (dashed: by oracle difficulty)",
        )
        if names:
            right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return drawn


def policy_label(name: str) -> str:
    """Return how figures and tables call a policy, e.g. `more to hard (T 0.25), oracle` for `oracle:softmax=0.25`."""
    notion, _, rule = name.partition(":")
    kind, _, value = rule.partition("=")
    if not value:
        return f"{'greedy by pass@k' if kind == 'greedy' else 'greedy by learned gains'}, {notion}"
    temperature = float(value)
    return f"more to {'hard' if temperature > 0 else 'easy'} (T {abs(temperature):g}), {notion}"


def render(found: Budgets, console: Console) -> None:
    """Print what bins by few samples give, less best-of-N that spends those on answers, and what allocations gain.

    With difficulty as the verifier predicts it, which is what one has; the tables on disk have the oracle's too.
    """
    threshold = found.thresholds.predicted.accuracy
    title = "strategy chosen by difficulty predicted from m samples: accuracy in %"
    table = tables.table(title, ["N =", *map(str, threshold)])
    for m, cells in found.estimated["predicted"].items():
        table.add_row(f"m = {m}", *map(tables.cell, cells.accuracy.values()))
        same = cells.minus_same_cost
        less = (tables.difference_cell(same[n]) if n in same else "" for n in threshold)
        table.add_row(f"- best-of-N at N + {m}", *less, style="dim")
    table.add_row("50/10% bins", *map(tables.cell, threshold.values()))
    console.print(table)
    totals = found.allocation
    if not totals:
        return
    table = tables.table("shared out over questions: points above the same for all", ["N =", *map(str, totals)])
    table.add_row("the same for all (%)", *(tables.cell(cells.uniform) for cells in totals.values()))
    for name in (name for name in next(iter(totals.values())).policies if name.startswith("predicted")):
        gains = (cells.policies[name].minus_uniform for cells in totals.values())
        table.add_row(policy_label(name), *map(tables.difference_cell, gains))
    console.print(table)


def csv_rows(found: Budgets) -> list[tuple[Any, ...]]:
    """Return (part, name, m, measure, budget, cost, mean, low, high).

    The cost is that of difficulty and answers; of allocations, whose difficulty is not counted, that of answers.
    """
    rows: list[tuple[Any, ...]] = []
    for notion, by_m in found.estimated.items():
        for m, cells in by_m.items():
            measures = {
                "accuracy": cells.accuracy,
                "minus_all": cells.minus_all,
                "minus_same_cost": cells.minus_same_cost,
            }
            for measure, points in measures.items():
                rows += [("estimated", notion, m, measure, n, cells.cost[n], *p.ends) for n, p in points.items()]
            rows += [
                ("estimated", notion, m, "accuracy_reused", n, cost, *cells.accuracy[n].ends)
                for n, cost in cells.cost_reused.items()
            ]
            rows += [
                ("estimated", notion, m, measure, "", "", value, "", "") for measure, value in cells.agreement.items()
            ]
    for notion, by_threshold in found.thresholds.notions.items():
        measures = {"accuracy": by_threshold.accuracy, "minus_quantiles": by_threshold.minus_quantiles}
        for measure, points in measures.items():
            rows += [("thresholds", notion, "", measure, n, "", *point.ends) for n, point in points.items()]
    for kind, values in found.agreement.items():
        rows += [("agreement", kind, "", measure, "", "", value, "", "") for measure, value in values.items()]
    for n, allocation in found.allocation.items():
        rows.append(("allocation", "uniform", "", "accuracy", n, n, *allocation.uniform.ends))
        for name, policy in allocation.policies.items():
            rows.append(("allocation", name, "", "accuracy", n, n, *policy.accuracy.ends))
            rows.append(("allocation", name, "", "minus_uniform", n, n, *policy.minus_uniform.ends))
    return rows


class BudgetOfDifficulty(Section[Budgets]):
    """The cost of knowing difficulty, and budgets shared out, where there are questions enough for bins and folds."""

    name = "budget"
    result = Budgets
    drawings = (
        Drawing[Budgets](
            Entry(
                "budget",
                "What difficulty costs to know, and budgets shared out over questions",
                "The paper takes difficulty from 2048 samples a question and does not count them. Here it is "
                "estimated from a few, counted and not; and a total budget is shared out over the questions by "
                "difficulty.",
                "data.num_test of 10 or more",
                tables=("budget",),
            ),
            draw=lambda found, _: figure(found),
            greedy=baseline.once(0),
        ),
    )
    tables = (
        Table[Budgets]("budget", "part name m measure budget cost mean low high", lambda found, _: csv_rows(found)),
    )

    def wanted(self, records: Records) -> bool:
        return records.binned

    def compute(self, records: Records) -> Budgets:
        settings, measured = records.settings, records.measured
        return spend(settings.sweep, measured.samples, measured.others, settings.aggregate, measured.accuracy)

    def text(self, found: Budgets, summary: Summary, console: Console) -> None:
        render(found, console)


SECTION = BudgetOfDifficulty()
