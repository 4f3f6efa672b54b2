"""The exchange of test-time compute for a larger model, by difficulty (Snell et al. 2024, section 7, Figs. 1 and 9).

The smaller model answers with the strategies chosen for each difficulty bin, the larger one once, greedily, and both
take the same FLOPs in sum. A budget is an upper limit: the smaller model may spend less, as chosen on other questions,
and where it is due more generations than were measured, it is judged by what the measured budgets have.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Line, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, above, below, judged
from ttcjax.eval.sections import baseline
from ttcjax.eval.sections.spending import costs, optimal
from ttcjax.eval.stats import exchange
from ttcjax.eval.stats.allocate import Choice
from ttcjax.eval.stats.difficulty import BINS, quantile_bins
from ttcjax.eval.stats.intervals import UNKNOWN, Bootstrap, Estimate
from ttcjax.model import flops as compute
from ttcjax.search import registry, revision_verifiers
from ttcjax.text.terminal import Shown

GROUPS = {"easy": (1, 2), "medium": (3,), "hard": (4, 5), "all": (1, 2, 3, 4, 5)}
"""Difficulty bins under one name; the paper does not say which bins its three names stand for."""
MARKED: dict[exchange.Convention, tuple[float, float, float]] = {
    "v1": (0.16, 0.79, 22.0),
    "iclr": (0.08, 0.40, 11.0),
    "strict": (0.08, 0.40, 11.0),
}
"""The R of the paper's two versions: much inference is expected at the last, little at the first."""
_GRID = tuple(2.0**i for i in range(-4, 7))
BARS = {
    "search": {"easy": (19.1, 2.2, 2.0), "medium": (-5.6, -35.6, -30.6), "hard": (0.0, -35.3, -52.9)},
    "revisions": {"easy": (21.6, 16.7, 5.4), "medium": (27.8, 3.5, -24.3), "hard": (11.8, -11.9, -37.2)},
}
"""The paper's exchange with a larger model, Fig. 1 right: in % of the larger one's accuracy, at R << 1, about 1, and
>> 1, see `MARKED["v1"]`."""


@dataclass(frozen=True)
class Comparison:
    """The smaller model with its due against the larger one, at an exchange rate.

    Attributes:
        convention: How FLOPs are exchanged, see `ttcjax.eval.stats.exchange`.
        r: Tokens of inference by tokens of pretraining.
        kappa: Generations that the smaller model is due.
        spent: Those it is judged by.
        relative: What it is better by, as a share of the larger one's accuracy; unknown where that is 0, or where it
            is due fewer generations than were measured.
        difference: The same in absolute terms.
    """

    convention: str
    r: float
    kappa: float
    spent: float
    relative: Estimate
    difference: Estimate


@dataclass(frozen=True)
class BreakEven:
    """Up to which R the smaller model is as good.

    Attributes:
        wins: `always`, `below` (that `r`) or `never`, said of the budgets that were measured; `None` over seeds that
            differ.
        r: The R, where there is one.
    """

    wins: str | None
    r: float | None


@dataclass(frozen=True)
class Answering:
    """FLOPs of one answer.

    Attributes:
        larger: Of the larger model.
        smaller: Of the smaller one, by budget.
    """

    larger: float
    smaller: dict[int, float]


@dataclass(frozen=True)
class TrueFlops:
    """Both sides by the FLOPs that training and answering took.

    Attributes:
        training: By side.
        inference: Of an answer.
        questions: Up to so many questions the smaller model takes fewer FLOPs in sum, by budget; `None` where it does
            for any number.
    """

    training: dict[str, float]
    inference: Answering
    questions: dict[int, float | None]


@dataclass(frozen=True)
class Exchanged:
    """Results of one source of the smaller model.

    Attributes:
        questions: How many.
        larger: Accuracy of the larger model, by bin.
        curve: Accuracy of the smaller one, by bin and budget.
        break_even: By group of `GROUPS` and convention.
        bars: By group, one for each convention and marked R.
        grid: By group, by `v1` for R from 1/16 to 64.
        true_flops: See `in_true_flops`.
    """

    questions: int
    larger: dict[int, Estimate]
    curve: dict[int, dict[int, Estimate]]
    break_even: dict[str, dict[str, BreakEven]]
    bars: dict[str, list[Comparison]]
    grid: dict[str, list[Comparison]]
    true_flops: TrueFlops


@dataclass(frozen=True)
class Exchange:
    """The smaller model against the larger one at equal FLOPs.

    Attributes:
        size_ratio: How many times as many parameters the larger one has.
        conventions: How FLOPs are exchanged.
        r_marked: The paper's R, by convention.
        groups: Bins of each group.
        greedy: Accuracy of one greedy answer, by model.
        sources: By source.
    """

    size_ratio: float
    conventions: list[str]
    r_marked: dict[str, list[float]]
    groups: dict[str, list[int]]
    greedy: dict[str, Estimate]
    sources: dict[str, Exchanged]


@dataclass(frozen=True, eq=False)
class Source:
    """Ways of the smaller model to spend a budget.

    Attributes:
        questions: Question ids, `[Q]`.
        candidates: Each question's accuracy `[Q]`, by budget and strategy; budgets rising from 1.
        flops: What a question costs, by budget and strategy, where it is known.
        models: Those that answer and judge, by their stages; all had to be trained.
    """

    questions: Sequence[str]
    candidates: Mapping[int, Mapping[str, np.ndarray]]
    flops: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    models: tuple[str, ...] = ()


def joined(a: Source, b: Source) -> Source:
    """Return what both sources offer together, at the budgets and on the questions that they share."""
    shared = sorted(set(a.questions) & set(b.questions))
    budgets = sorted(set(a.candidates) & set(b.candidates))
    candidates: dict[int, dict[str, np.ndarray]] = {n: {} for n in budgets}
    for source in (a, b):
        place = {question: i for i, question in enumerate(source.questions)}
        at = [place[question] for question in shared]
        for n in budgets:
            candidates[n] |= {name: values[at] for name, values in source.candidates[n].items()}
    known = [n for n in budgets if n in a.flops and n in b.flops]
    flops = {n: {**a.flops[n], **b.flops[n]} for n in known}
    return Source(shared, candidates, flops, tuple(dict.fromkeys(a.models + b.models)))


def compare(
    settings: SweepConfig,
    sources: Mapping[str, Source],
    ease: Mapping[str, float],
    greedy: Mapping[str, Mapping[str, bool]],
    trained: Mapping[str, Trained],
    larger_tokens: float,
) -> Exchange:
    """Compare the smaller model with the larger one at equal FLOPs.

    Args:
        settings: `seed` and `bootstrap` are used.
        sources: Ways to spend the smaller model's budget.
        ease: Share of right base samples of each question; bins are quantiles of it (`oracle`).
        greedy: Whether `policy` and `larger` are right about each question when they answer once, greedily.
        trained: Every model of the run, `policy` and `larger` among them.
        larger_tokens: Tokens of prompt and answer that the larger model reads and writes a question.
    """
    size_ratio = trained["larger"]["params"] / trained["policy"]["params"]
    everyone = sorted(ease)
    bootstrap = Bootstrap(len(everyone), settings.bootstrap, settings.bootstrap_seed)
    return Exchange(
        size_ratio=size_ratio,
        conventions=list(exchange.CONVENTIONS),
        r_marked={convention: list(values) for convention, values in MARKED.items()},
        groups={name: list(bins) for name, bins in GROUPS.items()},
        greedy={
            model: bootstrap(np.array([right[q] for q in everyone], np.float64)) for model, right in greedy.items()
        },
        sources={
            name: _of_source(
                settings, source, ease, greedy["larger"], size_ratio, in_true_flops(source, trained, larger_tokens)
            )
            for name, source in sources.items()
        },
    )


def _of_source(
    settings: SweepConfig,
    source: Source,
    ease: Mapping[str, float],
    larger: Mapping[str, bool],
    size_ratio: float,
    true_flops: TrueFlops,
) -> Exchanged:
    bins_Q = quantile_bins(np.array([ease[q] for q in source.questions]))
    larger_Q = np.array([larger[q] for q in source.questions], np.float64)
    bootstrap = Bootstrap(len(source.questions), settings.bootstrap, settings.bootstrap_seed)
    curve = optimal.choices(settings, up_to(source.candidates), bins_Q, bootstrap)
    numbers = range(1, BINS + 1)
    break_even: dict[str, dict[str, BreakEven]] = {}
    bars: dict[str, list[Comparison]] = {}
    grid: dict[str, list[Comparison]] = {}
    for name, bins in GROUPS.items():
        small_R = {n: choice.means(bins) for n, choice in curve.items()}
        larger_R = bootstrap.means(larger_Q, np.isin(bins_Q, bins))
        break_even[name] = {
            convention: _break_even(small_R, float(larger_R[0]), size_ratio, convention)
            for convention in exchange.CONVENTIONS
        }
        compared = functools.partial(_compared, curve, larger_Q, bins, size_ratio)
        bars[name] = [compared(r, convention) for convention, marked in MARKED.items() for r in marked]
        grid[name] = [compared(r, "v1") for r in _GRID]
    return Exchanged(
        questions=len(source.questions),
        larger={number: bootstrap(larger_Q, bins_Q == number) for number in numbers},
        curve={number: {n: choice.estimate([number]) for n, choice in curve.items()} for number in numbers},
        break_even=break_even,
        bars=bars,
        grid=grid,
        true_flops=true_flops,
    )


def up_to(candidates: Mapping[int, Mapping[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """Return what a budget may be spent on, by budget: each strategy with that many generations or fewer.

    Larger budgets come first, so that they are taken where less is not shown to be better.

    Args:
        candidates: Each question's accuracy `[Q]`, by budget and strategy.
    """
    return {
        n: {
            f"{name} at {m}": values
            for m in sorted((m for m in candidates if m <= n), reverse=True)
            for name, values in candidates[m].items()
        }
        for n in candidates
    }


def _compared(
    curve: Mapping[int, Choice],
    larger_Q: np.ndarray,
    bins: Sequence[int],
    size_ratio: float,
    r: float,
    convention: exchange.Convention,
) -> Comparison:
    kappa = exchange.kappa(size_ratio, r, convention)
    if kappa < min(curve):
        # The smaller model is due less than the least that was measured, under `strict` less than one answer.
        return Comparison(convention, r, float(kappa), float(kappa), UNKNOWN, UNKNOWN)
    first = next(iter(curve.values()))
    inside_Q = first.inside(bins)
    larger_R = first.bootstrap.means(larger_Q, inside_Q)
    small_R = exchange.at_budget({n: choice.means(bins) for n, choice in curve.items()}, kappa)
    small_Q = exchange.at_budget({n: choice.accuracy for n, choice in curve.items()}, kappa)
    difference = first.bootstrap.difference(small_Q - larger_Q, inside_Q, means_R=small_R - larger_R)
    relative = UNKNOWN
    if larger_R[0] > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_R = np.where(larger_R > 0, (small_R - larger_R) / larger_R, np.nan)
        relative = first.bootstrap.of(ratio_R)
        if not difference.spread:
            low, high = difference.low / larger_R[0], difference.high / larger_R[0]
            relative = dataclasses.replace(relative, low=float(low), high=float(high))
    return Comparison(convention, r, float(kappa), float(min(kappa, max(curve))), relative, difference)


def _break_even(
    small_R: Mapping[int, np.ndarray], larger: float, size_ratio: float, convention: exchange.Convention
) -> BreakEven:
    """Return up to which R the smaller model is as good."""
    means = [float(values_R[0]) for values_R in small_R.values()]
    r = exchange.break_even(list(small_R), means, larger, size_ratio, convention)
    wins = "never" if r is None else "always" if math.isinf(r) else "below"
    return BreakEven(wins, r if wins == "below" else None)


def in_true_flops(source: Source, trained: Mapping[str, Trained], larger_tokens: float) -> TrueFlops:
    """Return how many questions both sides may answer for the same FLOPs, training as it was included.

    Logical FLOPs (`ttcjax.model.flops`). A budget of the smaller model costs what its dearest strategy does. Sampling
    what models were trained on (step labels, trajectories, attempts) counts as training, as far as it is known.

    Args:
        source: Its `flops` and `models` are used.
        trained: `params`, `tokens_seen` and `data_flops` of each model.
        larger_tokens: As for `compare`.
    """
    once = compute.inference(trained["larger"]["params"], larger_tokens)
    training = {
        "smaller": sum(
            compute.training(trained[m]["params"], trained[m]["tokens_seen"]) + trained[m].get("data_flops", 0.0)
            for m in source.models
        ),
        "larger": compute.training(trained["larger"]["params"], trained["larger"]["tokens_seen"]),
    }
    spare = training["larger"] - training["smaller"]
    each = {n: max(flops.values()) for n, flops in source.flops.items()}
    questions = {n: max(0.0, spare / (f - once)) if f > once else None for n, f in each.items()}
    return TrueFlops(training, Answering(once, each), questions)


def figure(found: Exchange) -> Figure:
    """Draw the smaller model's curves with the larger one's stars by bin, and the bars of Fig. 1 right."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(12.0, 3.9 * len(found.sources))
        grid = drawn.subplots(len(found.sources), 2, squeeze=False)
        for (left, right), (name, cells) in zip(grid, found.sources.items(), strict=True):
            _curves(left, found, cells)
            left.set_title(
                f"{name}: {cells.questions} questions by difficulty; stars: {_times(found)} as large", pad=16
            )
            _bars(right, cells)
            right.set_title(f"{name}: better than the larger model by")
        return drawn


def _times(found: Exchange) -> str:
    return f"{found.size_ratio:.1f} times"


def _curves(axes: Axes, found: Exchange, cells: Exchanged) -> None:
    budgets = list(next(iter(cells.curve.values())))
    kappas = [exchange.kappa(found.size_ratio, r, "v1") for r in found.r_marked["v1"]]
    for i, (number, by_budget) in enumerate(cells.curve.items()):
        figures.band(axes, budgets, by_budget.values(), i, f"bin {number}")
        colour = figures.COLOURS[i % len(figures.COLOURS)]
        height = 100 * cells.larger[number].mean
        axes.plot(kappas, [height] * len(kappas), "*", color=colour, markersize=11, markeredgecolor="white")
        last = 100 * by_budget[budgets[-1]].mean
        axes.plot([budgets[-1], max(kappas)], [last, last], color=colour, linewidth=1, linestyle=(0, (2, 3)))
    for r, kappa in zip(found.r_marked["v1"], kappas, strict=True):
        axes.axvline(kappa, color=figures.MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            f"R = {r:g}",
            (kappa, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=figures.MUTED,
            fontsize=8,
        )
    ticks = [1 << i for i in range(0, math.ceil(math.log2(max(*kappas, budgets[-1]))) + 1, 2)]
    figures.powers_of_two(axes, ticks)
    axes.set(xlabel="generation budget N of the smaller model", ylabel="accuracy (%)", ylim=(-3, 103))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _bars(axes: Axes, cells: Exchanged) -> None:
    names = [name for name in GROUPS if name != "all"]
    for i in range(len(MARKED["v1"])):
        rows = [[row for row in cells.bars[name] if row.convention == "v1"][i] for name in names]
        known = [(j, row.relative) for j, row in enumerate(rows) if row.relative.known]
        at = [j + 0.27 * (i - 1) for j, _ in known]
        means = [100 * point.mean for _, point in known]
        axes.bar(at, means, width=0.25, color=figures.COLOURS[i + 1], label=f"R = {rows[0].r:g}", zorder=2)
        # Percentiles need not hold the mean, by a rounding error where all questions are alike.
        low = [100 * max(point.mean - point.low, 0.0) for _, point in known]
        high = [100 * max(point.high - point.mean, 0.0) for _, point in known]
        axes.errorbar(at, means, yerr=[low, high], fmt="none", ecolor=figures.MUTED, elinewidth=1, capsize=2, zorder=3)
    axes.axhline(0, color="black", linewidth=0.8)
    bins = [f"bin{'s' * (len(GROUPS[n]) > 1)} {'-'.join(map(str, GROUPS[n]))}" for n in names]
    axes.set_xticks(range(len(names)), [f"{n} ({which})" for n, which in zip(names, bins, strict=True)])
    axes.set_ylabel("% of the larger model's accuracy")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def render(found: Exchange, console: Console) -> None:
    """Print the relative differences at the paper's R, and up to which R the smaller model wins."""
    title = f"% better than a model {_times(found)} as large, R = D_inference / D_pretrain"
    table = tables.table(title, ["", *(f"R = {r:g}" for r in MARKED["v1"]), "wins"])
    for name, cells in found.sources.items():
        for group in GROUPS:
            rows = [row for row in cells.bars[group] if row.convention == "v1"]
            points = [tables.difference_cell(row.relative) if row.relative.known else "n/a" for row in rows]
            even = cells.break_even[group]["v1"]
            wins = (even.wins or "by seed") if even.r is None else f"R < {even.r:.2g}"
            table.add_row(f"{name}, {group}", *points, wins)
    console.print(table)
    larger, smaller = (100 * found.greedy[model].mean for model in ("larger", "policy"))
    for name, cells in found.sources.items():
        if not cells.true_flops.questions:
            continue
        n, questions = list(cells.true_flops.questions.items())[-1]
        upto = "any number of questions" if questions is None else f"up to {questions:,.0f} questions"
        text = f"{name}: in the FLOPs that training and answering took, {n} generations cost less for {upto}"
        console.print(Shown(text), soft_wrap=True)
    text = f"once and greedily the larger one is right in {larger:.1f}%, the smaller in {smaller:.1f}%"
    console.print(Shown(text), soft_wrap=True)


def csv_rows(found: Exchange) -> list[tuple[Any, ...]]:
    """Return (source, measure, convention, group or bin, R or budget, kappa, mean, low, high)."""
    rows: list[tuple[Any, ...]] = []
    for source, cells in found.sources.items():
        for number, point in cells.larger.items():
            rows.append((source, "larger", "", number, "", "", *point.ends))
        for number, by_budget in cells.curve.items():
            rows += [(source, "smaller", "", number, n, "", *point.ends) for n, point in by_budget.items()]
        for group, by_convention in cells.break_even.items():
            rows += [
                (source, f"wins {even.wins or 'by seed'}", convention, group, "" if even.r is None else even.r)
                + ("",) * 4
                for convention, even in by_convention.items()
            ]
        for n, questions in cells.true_flops.questions.items():
            rows.append((source, "questions for equal true FLOPs", "", "", n, "", questions, "", ""))
        for part, compared in (("bars", cells.bars), ("grid", cells.grid)):
            for group, comparisons in compared.items():
                for row in comparisons:
                    place = (row.convention, group, row.r, row.kappa)
                    rows.append((source, f"{part} relative", *place, *row.relative.ends))
                    rows.append((source, f"{part} difference", *place, *row.difference.ends))
    return rows


def sources_of(records: Records) -> dict[str, Source]:
    """Return what searches, revisions and both together make of the policy."""
    measured, spent = records.measured, records.of(costs.SECTION)
    flops = {
        n: {name: cells[n].flops for name, cells in spent.per_question.items()} for n in records.settings.sweep.budgets
    }
    searched = {name: cells for name, cells in measured.accuracy.items() if not registry.named(name).revises}
    candidates = optimal.by_budget(optimal.verified(searched))
    sources = {"search": Source(records.questions, candidates, flops, ("policy", "prm"))}
    if records.settings.revision.enabled:
        splits = records.splits
        ratios = splits.by_ratio("hierarchical")
        flops = {n: {name: spent.revisions[name].flops for name in names} for n, names in ratios.items()}
        models = ("policy", "revision", revision_verifiers.stage_of(splits.verifier))
        sources["revisions"] = Source(splits.chains.questions, ratios, flops, models)
        sources["both"] = joined(sources["search"], sources["revisions"])
    return sources


def _greedy(summary: Summary) -> list[Line]:
    """Return the policy's greedy answer in each bin, as a line of the bin's colour, in the curves of each source."""
    once, found = summary.of(baseline.SECTION), []
    for i, source in enumerate(summary.of(SECTION).sources):
        bins = once if source == "search" or once.chains is None else once.chains
        found += [(2 * i, cell, k) for k, cell in enumerate(bins.per_bin["oracle"].values())]
    return found


class LargerModel(Section[Exchange]):
    """Test-time compute against a larger model, where one was trained."""

    name = "exchange"
    result = Exchange
    drawings = (
        Drawing[Exchange](
            Entry(
                "exchange",
                "Test-time compute against a larger model",
                "At equal FLOPs the small model with test-time compute beats one about 14 times as large on easy and "
                "medium questions, or where little inference is expected (R below 1). On hard ones, and where much "
                "is, the larger model wins: the two are not exchanged one for one.",
                "larger.enabled True",
                paper="9 and 1 right",
                iclr="8 and 1 right",
                tables=("exchange",),
            ),
            draw=lambda found, _: figure(found),
            greedy=_greedy,
        ),
    )
    tables = (
        Table[Exchange](
            "exchange", "source measure convention group at kappa mean low high", lambda found, _: csv_rows(found)
        ),
    )

    def wanted(self, records: Records) -> bool:
        return records.settings.larger and records.trained is not None

    def compute(self, records: Records) -> Exchange:
        trained, prompts, ease = records.trained, records.prompts, records.ease["oracle"]
        assert trained is not None
        tokens = np.mean([prompts[q] for q in ease]) + np.mean(records.answered["larger"]["tokens"].to_numpy())
        sources = sources_of(records)
        return compare(records.settings.sweep, sources, ease, records.right, trained, float(tokens))

    def text(self, found: Exchange, summary: Summary, console: Console) -> None:
        render(found, console)

    def claims(self, found: Exchange, summary: Summary) -> Iterator[Claim]:
        """Claim the sign of each bar that the paper prints."""
        times = f"{found.size_ratio:.0f} times larger model"
        for source, groups in BARS.items():
            bars = found.sources[source].bars if source in found.sources else {}
            for group, printed in groups.items():
                cells = {cell.r: cell for cell in bars.get(group, []) if cell.convention == "v1"}
                for r, percent in zip(MARKED["v1"], printed, strict=True):
                    if percent and r in cells and cells[r].relative.known:
                        yield _bar(source, group, times, cells[r], percent)


SECTION = LargerModel()


def _bar(source: str, group: str, times: str, cell: Comparison, percent: float) -> Claim:
    """Return a claim at equal FLOPs. A smaller model that loses with less than its due may win with all of it."""
    found = cell.relative
    verb, held = ("beats", above) if percent > 0 else ("loses to", below)
    short = cell.spent < cell.kappa
    due = f", judged by {cell.spent:.0f} of {cell.kappa:.0f} generations" if short else ""
    text = f"On {group} questions the small model with {source} {verb} the {times} (R = {cell.r:g}{due})"
    verdict = "not measured" if short and found.low <= 0 else held(found.low, found.high)
    where = f"exchange.sources.{source}.bars.{group}"
    return judged(text, "Fig. 1 right", f"{percent:+.1f}%", found, verdict, where, unit="%")
