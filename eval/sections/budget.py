"""What difficulty costs to know, and what a budget gains by being shared out over questions by difficulty.

Snell et al. 2024 take difficulty from 2048 samples a question and leave them out of the count (section 3.2); here it is
estimated from a few, which are counted. And they give every question the same budget; Damani et al. 2024 do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.sections import optimal
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
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.search import registry

BINS = 5
SAMPLES = (4, 16, 64)
"""Samples m of a question that its difficulty is estimated from."""
TEMPERATURES = (0.25, 1.0, -1.0, -0.25)
"""Of the softmax over 1 - ease: positive ones give more to hard questions, negative ones to easy ones."""
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


def summarise(
    settings: SweepConfig,
    samples: Samples,
    others: Samples,
    how: str,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
) -> dict[str, Any]:
    """Judge difficulty from a few samples, absolute bins, and allocations of a total budget.

    The strategy is chosen as in `optimal.summarise`, with other questions' labels. An allocation is made once, from
    what all of `others` tell, which is not counted; its intervals resample questions and do not share out again.

    Args:
        settings: `folds`, `fold_repeats`, `bootstrap`, `budgets` and `seed` are used.
        samples: Of the bank, those that judge.
        others: Of the bank, those that tell difficulty.
        how: Step aggregation behind the scores.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.

    Returns:
        For the notions `oracle` (by labels) and `predicted` (by scores)

        * `estimated[notion][m]`: `prior` and mean `interval` of `difficulty.beta_posterior`, `agreement` of the
          quantile bins with those of all samples, and by budget `accuracy`, `minus_all` (less what the bins of all
          samples give, paired), `cost` (n + m), `cost_reused` (see `mean_cost`), and `minus_same_cost` (less
          best-of-N weighted with n + m generations, paired) where the bank has as many samples;
        * `thresholds[notion]`: `counts` of questions in the bins of `difficulty.EDGES`, `accuracy` and
          `minus_quantiles` by budget, bins of fewer questions than folds merged;
        * `allocation[n]`, for a total of n generations a question: `uniform`, and `policies[name]` with `accuracy`,
          `minus_uniform` (paired), `most` (the largest share) and `single` (the share of questions with one). The
          policies are those of `allocations`, and `notion:learned`, greedy with `learned_gains`.

        Beside them `thresholds["edges"]`, and `agreement[quantiles or thresholds]` of the two notions.
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

    def chosen(bins_Q: np.ndarray, n: int) -> Choice:
        return choose(settings, np.stack([accuracy[name][n] for name in strategies]), bins_Q, bootstrap)

    quantiles = {notion: difficulty.quantile_bins(values, BINS) for notion, values in ease.items()}
    absolute = {notion: difficulty.threshold_bins(values) for notion, values in ease.items()}
    found: dict[str, Any] = {
        "estimated": {},
        "thresholds": {"edges": list(difficulty.EDGES)},
        "agreement": {
            kind: difficulty.agreement(bins["oracle"], bins["predicted"], ease["oracle"], ease["predicted"])
            for kind, bins in (("quantiles", quantiles), ("thresholds", absolute))
        },
        "allocation": _allocation(size, settings, ease, quantiles, steps, weighted_GQ, bootstrap, budgets),
    }
    for notion, values in per_sample.items():
        known = {n: chosen(quantiles[notion], n) for n in budgets}
        by_threshold = {n: chosen(difficulty.merge_small(absolute[notion], settings.folds), n) for n in budgets}
        found["thresholds"][notion] = {
            "counts": {
                str(number): int((absolute[notion] == number).sum()) for number in range(1, len(difficulty.EDGES) + 2)
            },
            "accuracy": {str(n): dataclasses.asdict(by_threshold[n].estimate()) for n in budgets},
            "minus_quantiles": {str(n): dataclasses.asdict(by_threshold[n].less(known[n])) for n in budgets},
        }
        found["estimated"][notion] = {}
        for m in (m for m in SAMPLES if m <= values.shape[1]):
            posterior = difficulty.beta_posterior(values[:, :m], PRIOR)
            bins_Q = difficulty.quantile_bins(posterior.mean, BINS)
            cells: dict[str, Any] = {
                "prior": list(posterior.prior),
                "interval": float((posterior.high - posterior.low).mean()),
                "agreement": difficulty.agreement(quantiles[notion], bins_Q, ease[notion], posterior.mean),
            }
            for n in budgets:
                got = chosen(bins_Q, n)
                row = {
                    "accuracy": dataclasses.asdict(got.estimate()),
                    "minus_all": dataclasses.asdict(got.less(known[n])),
                    "cost": n + m,
                    "cost_reused": mean_cost(strategies, got.chosen, n, m),
                }
                if n + m <= size:
                    same_Q = accuracy_at(steps, weighted_GQ, np.full(questions, n + m))
                    row["minus_same_cost"] = dataclasses.asdict(got.less(same_Q))
                for measure, cell in row.items():
                    cells.setdefault(measure, {})[str(n)] = cell
            found["estimated"][notion][str(m)] = cells
    return found


def _allocation(
    size: int,
    settings: SweepConfig,
    ease: Mapping[str, np.ndarray],
    bins: Mapping[str, np.ndarray],
    steps: Sequence[int],
    accuracy_GQ: np.ndarray,
    bootstrap: Bootstrap,
    budgets: Sequence[int],
) -> dict[str, Any]:
    """Compare allocations with the same for every question, at totals that leave something to share out."""
    questions = accuracy_GQ.shape[1]
    learned = {
        notion: learned_gains(steps, accuracy_GQ, bins_Q, settings.seed, settings.folds)
        for notion, bins_Q in bins.items()
    }
    found: dict[str, Any] = {}
    for n in (n for n in budgets if 1 < n < size):
        uniform = accuracy_GQ[list(steps).index(n)]
        counts = allocations(ease, n * questions, size)
        counts |= {f"{name}:learned": share_greedily(n * questions, gains) for name, gains in learned.items()}
        cells = {}
        for name in sorted(counts, key=lambda name: name.partition(":")[0]):
            got = accuracy_at(steps, accuracy_GQ, counts[name])
            cells[name] = {
                "accuracy": dataclasses.asdict(bootstrap(got)),
                "minus_uniform": dataclasses.asdict(bootstrap.paired(got, uniform)),
                "most": int(counts[name].max()),
                "single": float((counts[name] == 1).mean()),
            }
        found[str(n)] = {"uniform": dataclasses.asdict(bootstrap(uniform)), "policies": cells}
    return found


def figure(summary: dict[str, Any]) -> Figure:
    """Draw accuracy by what was spent, difficulty included or not, and what allocations gain over the same for all.

    Args:
        summary: What `summarise` returns, with JSON's own types.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(14.5, 4.2)
        left, right = drawn.subplots(1, 2)
        for i, (m, cells) in enumerate(summary["estimated"]["predicted"].items()):
            points = cells["accuracy"].values()
            figures.band(left, list(cells["cost"].values()), points, i, f"m = {m}, counted")
            left.plot(
                [int(n) for n in cells["accuracy"]],
                [100 * point["mean"] for point in points],
                color=figures.COLOURS[i],
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                label=f"m = {m}, not counted",
            )
        budgets = [int(n) for n in summary["thresholds"]["predicted"]["accuracy"]]
        figures.powers_of_two(left, budgets)
        left.set(
            xlabel="generations a question",
            ylabel="accuracy (%)",
            title="Strategy chosen by difficulty predicted from m samples",
        )
        if summary["estimated"]["predicted"]:
            left.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        totals = summary["allocation"]
        names = list(next(iter(totals.values()))["policies"]) if totals else []
        for i, name in enumerate(names):
            points = [cells["policies"][name]["minus_uniform"] for cells in totals.values()]
            oracle = name.startswith("oracle")
            right.plot(
                [int(n) for n in totals],
                [100 * point["mean"] for point in points],
                color=figures.COLOURS[i % (len(TEMPERATURES) + 2)],
                marker=figures.MARKERS[i % (len(TEMPERATURES) + 2)],
                markersize=4,
                linewidth=1.6,
                linestyle=(0, (4, 2)) if oracle else "-",
                label="_nolegend_" if oracle else policy_label(name).partition(",")[0],
            )
        right.axhline(0, color=figures.MUTED, linewidth=1)
        figures.powers_of_two(right, [int(n) for n in totals] or [1])
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


def render(summary: dict[str, Any], console: Console) -> None:
    """Print what bins by few samples give, less best-of-N that spends those on answers, and what allocations gain.

    With difficulty as the verifier predicts it, which is what one has; the tables on disk have the oracle's too.
    """
    budgets = list(summary["thresholds"]["predicted"]["accuracy"])
    title = "strategy chosen by difficulty predicted from m samples: accuracy in %"
    table = tables.table(title, ["N =", *budgets])
    for m, cells in summary["estimated"]["predicted"].items():
        table.add_row(f"m = {m}", *map(tables.cell, cells["accuracy"].values()))
        same = cells.get("minus_same_cost", {})
        less = (tables.difference_cell(same[n]) if n in same else "" for n in budgets)
        table.add_row(f"- best-of-N at N + {m}", *less, style="dim")
    cells = summary["thresholds"]["predicted"]
    table.add_row("50/10% bins", *map(tables.cell, cells["accuracy"].values()))
    console.print(table)
    if not summary["allocation"]:
        return
    totals = summary["allocation"]
    table = tables.table("shared out over questions: points above the same for all", ["N =", *totals])
    table.add_row("the same for all (%)", *(tables.cell(cells["uniform"]) for cells in totals.values()))
    for name in (name for name in next(iter(totals.values()))["policies"] if name.startswith("predicted")):
        gains = (cells["policies"][name]["minus_uniform"] for cells in totals.values())
        table.add_row(policy_label(name), *map(tables.difference_cell, gains))
    console.print(table)


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (part, name, m, measure, budget, cost, mean, low, high).

    The cost is that of difficulty and answers; of allocations, whose difficulty is not counted, that of answers.
    """
    rows: list[tuple[Any, ...]] = []

    def add(part: str, name: str, m: str, measure: str, n: str, cost: float | str, cell: dict[str, float]) -> None:
        rows.append((part, name, m, measure, n, cost, cell["mean"], cell["low"], cell["high"]))

    for notion, by_m in summary["estimated"].items():
        for m, cells in by_m.items():
            for measure in ("accuracy", "minus_all", "minus_same_cost"):
                for n, cell in cells.get(measure, {}).items():
                    add("estimated", notion, m, measure, n, cells["cost"][n], cell)
            for n, cost in cells["cost_reused"].items():
                add("estimated", notion, m, "accuracy_reused", n, cost, cells["accuracy"][n])
            rows += [
                ("estimated", notion, m, measure, "", "", value, "", "")
                for measure, value in cells["agreement"].items()
            ]
    for notion in summary["estimated"]:
        cells = summary["thresholds"][notion]
        for measure in ("accuracy", "minus_quantiles"):
            for n, cell in cells[measure].items():
                add("thresholds", notion, "", measure, n, "", cell)
    for kind, values in summary["agreement"].items():
        rows += [("agreement", kind, "", measure, "", "", value, "", "") for measure, value in values.items()]
    for n, cells in summary["allocation"].items():
        add("allocation", "uniform", "", "accuracy", n, n, cells["uniform"])
        for name, policy in cells["policies"].items():
            for measure in ("accuracy", "minus_uniform"):
                add("allocation", name, "", measure, n, n, policy[measure])
    return rows
