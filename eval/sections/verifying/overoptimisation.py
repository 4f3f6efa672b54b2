"""Signs that a search exploits its verifier: what the chosen solutions look like, against what they score.

Snell et al. 2024 see in examples (Figs. 24 to 29) that strong searches find solutions which repeat steps or are over
in one or two, and which the verifier likes; here the same is counted, by strategy and budget. Whoever takes the best
scored of many gets scores above the truth, best-of-N too, and references repeat steps too: a search is judged by what
it adds to those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from etils import epath
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from ttcjax.eval.records.bundle import Records, ReportSettings
from ttcjax.eval.records.measured import aggregate_for
from ttcjax.eval.records.solution_lines import lines_of, texts_at
from ttcjax.eval.report.drawing import figures, markup, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, higher
from ttcjax.eval.sections.paired import WEIGHTED, searches
from ttcjax.eval.stats.difficulty import BINS, quantile_bins
from ttcjax.eval.stats.estimators import Samples, scores_of, step_scores
from ttcjax.eval.stats.intervals import UNKNOWN, Bootstrap, Estimate
from ttcjax.search import registry
from ttcjax.text.steps import StepFormat
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.quality import auroc
from ttcjax.verify.select import choose

SHORT = 2
"""Most steps of a solution that is called short."""
EXAMPLES = 3
"""Wrong answers that are shown, those the verifier likes best."""
MEASURES = {
    "repeated": "chosen with a repeated step (%)",
    "short": f"chosen of {SHORT} steps or fewer (%)",
    "relative_length": "steps, % of the question's median",
    "score": "score of the chosen (%)",
    "right": "chosen that are right (%)",
    "gap": "score minus share right (points)",
}
"""Measures of the chosen solutions, all as shares."""
BEYOND = {"repeated_beyond_reference": "repeated", "short_beyond_reference": "short"}
"""Measures less the same of the reference solutions of the same questions, where those are known."""
BASELINES = (WEIGHTED, "majority")
"""Strategies whose growth is taken off the others': they choose among samples that no verifier has led."""
_SHARES = ("repeated", "short", "right")
_Pair = tuple[np.ndarray, np.ndarray]
"""Sums of each question above and below a ratio."""


def chosen_rows(
    samples: Samples, rule: str, how: str, n: int | None = None, ties: str | None = None, temperature: float = 1.0
) -> np.ndarray:
    """Return the row of the table that disjoint blocks of n samples choose, `[Q, blocks]`; -1 where none can be read.

    Args:
        samples: Of the bank, or of one search at one budget.
        rule: One of `ttcjax.verify.select.RULES`; the chosen answer's best-scored sample stands for it, and its first
            one under a majority that asks no verifier.
        how: What the scores are, see `Samples.scores`.
        n: Samples of a block; all of a run by default.
        ties: See `ttcjax.verify.select.choose`.
        temperature: The same.
    """
    questions, _, count = samples.row.shape
    size = count if n is None else n
    blocks = count // size

    def cut(values_QRN: np.ndarray) -> np.ndarray:
        return values_QRN[:, :, : blocks * size].reshape(-1, size)

    chosen = choose(cut(samples.groups), cut(samples.scores(how)), rule, ties, temperature)
    row = cut(samples.row)[np.arange(len(chosen)), np.maximum(chosen, 0)]
    return np.where(chosen < 0, -1, row).reshape(questions, -1)


def reference_lines(
    questions: Sequence[str], references: Mapping[str, str], steps: StepFormat
) -> dict[str, np.ndarray]:
    """Return which reference solutions repeat a step and which are short, `[Q]` by the measures of `BEYOND`.

    Args:
        questions: Their ids.
        references: Texts of the reference solutions by id.
        steps: Where a step of them ends.
    """
    found = [lines_of(references[question], steps) for question in questions]
    return {
        "repeated_beyond_reference": np.array([repeated for _, repeated in found], float),
        "short_beyond_reference": np.array([count <= SHORT for count, _ in found], float),
    }


Looks = dict[str, Estimate]
"""By measure, of `MEASURES` and, with references, of `BEYOND`."""


@dataclass(frozen=True, kw_only=True)
class Auroc(Estimate):
    """AUROC of the score among right and wrong solutions of a bin: the mean within questions that have both.

    Attributes:
        pooled: The same over all samples of the bin; NaN where all are right or all wrong.
        questions: Those that have both.
    """

    pooled: float
    questions: int


@dataclass(frozen=True)
class Exploited:
    """A wrong answer that was chosen with a high score.

    Attributes:
        strategy: That chose it.
        n: The budget.
        row: Of the search or, if nothing searches, of the bank.
    """

    strategy: str
    n: int
    row: int


@dataclass(frozen=True)
class Example:
    """An `Exploited` in full.

    Attributes:
        strategy: That chose it.
        n: The budget.
        question: Its id.
        gold: The right answer.
        answer: The one that was chosen.
        steps: Text and score of each step.
    """

    strategy: str
    n: int
    question: str
    gold: str
    answer: str
    steps: list[tuple[str, float]]


@dataclass(frozen=True)
class Exploitation:
    """Looks of the chosen solutions.

    Attributes:
        chosen: By strategy and budget; unknown where nothing is ever chosen.
        growth: The largest budget less the least, by strategy.
        growth_beyond: That less the growth of a baseline (of `BASELINES`), paired, by strategy and baseline.
        references: Share of references that repeat a step or are short.
        auroc: By bin of difficulty.
        exploited: Wrong answers that were chosen with the highest scores at the largest budget.
        examples: The same in full.
    """

    chosen: dict[str, dict[int, Looks]]
    growth: dict[str, Looks]
    growth_beyond: dict[str, dict[str, Looks]]
    references: Looks
    auroc: dict[int, Auroc]
    exploited: list[Exploited]
    examples: list[Example] = field(default_factory=list)


def measure(
    settings: ReportSettings,
    bank: pa.Table,
    search: pa.Table,
    held_samples: Mapping[float, int],
    sampled_at: Mapping[str, Mapping[int, float]],
    steps: StepFormat,
    references: Mapping[str, str] | None = None,
    verifier: str | None = None,
) -> Exploitation:
    """Measure the chosen solutions by strategy and budget, and the verifier by difficulty; examples apart.

    Args:
        settings: Those of the report.
        bank: Rows of the bank, with `estimators.COLUMNS` and what `solution_lines.with_lines` adds.
        search: Rows of all search strategies, the same.
        held_samples: Samples of a question that the bank holds, by temperature.
        sampled_at: At which temperature each strategy samples, by strategy and budget.
        steps: Where a step of a reference ends.
        references: Texts of the reference solutions by question, where they are known.
        verifier: As for `measured.measure`.
    """
    questions = sorted({*bank["question"].to_pylist(), *search["question"].to_pylist()})
    sweep = settings.sweep
    bootstrap = Bootstrap(len(questions), sweep.bootstrap, sweep.bootstrap_seed)
    by_temperature: dict[float, tuple[Samples, pa.Table, np.ndarray]] = {}
    for temperature, count in held_samples.items():
        places = np.flatnonzero(bank["temperature"].to_numpy() == temperature)
        held = bank.take(pa.array(places))
        by_temperature[temperature] = (
            Samples.from_table(held, questions, count).part(0, sweep.judged),
            held,
            places,
        )
    base, base_rows, _ = by_temperature[settings.temperature]
    median_Q = _median_lines(base, base_rows)
    known = {} if references is None else reference_lines(questions, references, steps)
    looks: dict[str, dict[int, Looks]] = {}
    growth: dict[str, Looks] = {}
    ends: dict[str, dict[str, tuple[_Pair, _Pair]]] = {}
    exploited: list[tuple[float, str, int, int]] = []
    strategy_of_row = np.array(search["strategy"].to_pylist(), object)
    for strategy in sweep.strategies:
        named = registry.named(strategy)
        by = named.selector
        own = aggregate_for(named, settings.aggregate, verifier)
        how = scores_of(by, own)
        # What is chosen is judged by the verifier, whatever chose it.
        judged = own
        parts: dict[int, dict[str, _Pair]] = {}
        for n in sweep.budgets:
            inside = (strategy_of_row == strategy) & (search["n"].to_numpy() == n)
            cell = search.filter(pa.array(inside))
            if cell.num_rows and not named.is_best_of_n(n):
                kept = named.at(n).rows()
                samples = Samples.from_table(cell, questions, kept, sweep.seeds)
                table, places = cell, np.flatnonzero(inside)
                plain = named.at(n).plain()
                if plain.chooses_itself:
                    place = samples.chosen(plain.choose, how)
                    row = np.take_along_axis(samples.row, np.maximum(place, 0)[..., None], axis=2)[..., 0]
                    row = np.where(place < 0, -1, row)
                else:
                    row = chosen_rows(samples, by.rule, how, None, by.ties, by.vote_temperature)
            else:
                samples, table, places = by_temperature[sampled_at[strategy][n]]
                row = chosen_rows(samples, by.rule, how, n, by.ties, by.vote_temperature)
            values = _values(table, judged, row, median_Q)
            values |= {measure: values[BEYOND[measure]] - of_Q[:, None] for measure, of_Q in known.items()}
            made = row >= 0
            parts[n] = {m: ((v * made).mean(axis=1), made.mean(axis=1)) for m, v in values.items()}
            searched = named.searches and named.asks_verifier
            if n == max(sweep.budgets) and (searched or not search.num_rows):
                wrong = made & (values["right"] == 0)
                scores = np.where(wrong, values["score"], -np.inf)
                for at in np.argsort(-scores, axis=None, kind="stable")[:EXAMPLES]:
                    if wrong.flat[at]:
                        exploited.append((float(scores.flat[at]), strategy, n, int(places[row.flat[at]])))
        looks[strategy] = {
            n: {
                measure: (bootstrap.rate if measure in _SHARES else bootstrap.ratio)(*pair)
                for measure, pair in cells.items()
            }
            for n, cells in parts.items()
        }
        first, last = parts[min(parts)], parts[max(parts)]
        ends[strategy] = {measure: (last[measure], first[measure]) for measure in last}
        growth[strategy] = {
            measure: _difference(bootstrap, [last], [first]) for measure, (last, first) in ends[strategy].items()
        }
    beyond: dict[str, dict[str, Looks]] = {strategy: {} for strategy in ends}
    for strategy, own in ends.items():
        for other in (name for name in BASELINES if name in ends and name != strategy):
            pairs = {measure: (own[measure], ends[other][measure]) for measure in own}
            beyond[strategy][other] = {
                # What it gained, less what the baseline gained.
                measure: _difference(bootstrap, [last, base_first], [first, base_last])
                for measure, ((last, first), (base_last, base_first)) in pairs.items()
            }
    exploited.sort(key=lambda item: -item[0])
    return Exploitation(
        chosen=looks,
        growth=growth,
        growth_beyond=beyond,
        references={BEYOND[measure]: bootstrap(of_Q) for measure, of_Q in known.items()},
        auroc=_auroc_by_bin(settings, base, base_rows),
        exploited=[Exploited(s, n, row) for _, s, n, row in exploited[:EXAMPLES]],
    )


def examples(found: Sequence[Exploited], table: pa.Table, folder: epath.PathLike, steps: StepFormat) -> list[Example]:
    """Return exploited solutions in full.

    Args:
        found: Which.
        table: The rows that they count, with `gold`: of the search, or of the bank if nothing searches.
        folder: Where those were read from.
        steps: Where a step ends.
    """
    places = [item.row for item in found]
    return [
        Example(
            strategy=item.strategy,
            n=item.n,
            question=table["question"][item.row].as_py(),
            gold=table["gold"][item.row].as_py(),
            answer=table["answer"][item.row].as_py(),
            steps=list(zip(steps.split(text), table["step_scores"][item.row].as_py(), strict=False)),
        )
        for item, text in zip(found, texts_at(folder, places), strict=True)
    ]


def _values(table: pa.Table, how: str, row: np.ndarray, median_Q: np.ndarray) -> dict[str, np.ndarray]:
    """Return each measure of the chosen rows; whatever stands at -1 is not looked at."""
    lines = table["lines"].to_numpy()[row]
    score = aggregate(step_scores(table), how)[row]
    right = table["correct"].to_numpy()[row].astype(np.float64)
    return {
        "repeated": table["repeated"].to_numpy()[row].astype(np.float64),
        "short": (lines <= SHORT).astype(np.float64),
        "relative_length": lines / median_Q[:, None],
        "score": score,
        "right": right,
        "gap": score - right,
    }


def _median_lines(samples: Samples, bank: pa.Table) -> np.ndarray:
    """Return the median steps of each question's base samples, at least 1, `[Q]`; 1 where there are none."""
    lines = np.where(samples.row >= 0, bank["lines"].to_numpy()[samples.row], np.nan).reshape(len(samples.row), -1)
    some = np.isfinite(lines).any(axis=1)
    found = np.ones(len(lines))
    found[some] = np.maximum(np.nanmedian(lines[some], axis=1), 1)
    return found


def _difference(bootstrap: Bootstrap, plus: Sequence[_Pair], minus: Sequence[_Pair]) -> Estimate:
    """Return ratios of sums less others, over the same resamples; unknown where one divides by 0.

    Resamples in which one does say nothing and are left out.
    """
    pairs = [*plus, *minus]
    if not all(under.sum() for _, under in pairs):
        return UNKNOWN
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus))
    return bootstrap.of(signs @ np.stack([bootstrap.ratios(top, under) for top, under in pairs]))


def _auroc_by_bin(settings: ReportSettings, samples: Samples, bank: pa.Table) -> dict[int, Auroc]:
    """Judge the score of whole solutions, by bins of pass@1 where there are questions enough for them."""
    score = samples.scores(settings.aggregate).reshape(len(samples.questions), -1)
    right = samples.correct.reshape(score.shape)
    there = (samples.row >= 0).reshape(score.shape)
    bins = BINS if len(score) >= 2 * BINS else 1
    number = quantile_bins(samples.pass_at_1(), bins)
    found = {}
    bootstrap = Bootstrap(len(score), settings.sweep.bootstrap, settings.sweep.bootstrap_seed)
    within = np.array([auroc(score[q][there[q]], right[q][there[q]]) for q in range(len(score))])
    for b in range(1, bins + 1):
        inside = number == b
        pooled = auroc(score[inside][there[inside]], right[inside][there[inside]])
        known = inside & np.isfinite(within)
        estimate = bootstrap(within, known) if known.any() else UNKNOWN
        found[b] = estimate.as_a(Auroc, pooled=float(pooled), questions=int(known.sum()))
    return found


def figure(found: Exploitation) -> Figure:
    """Draw what becomes of the chosen solutions as the budget grows, and the verifier by difficulty."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(12.0, 7.2)
        grid = drawn.subplots(2, 3).ravel()
        for where, measure in zip(grid, MEASURES, strict=True):
            for i, (strategy, cells) in enumerate(found.chosen.items()):
                known = {n: cell[measure] for n, cell in cells.items() if cell[measure].known}
                figures.band(where, list(known), known.values(), i, figures.label(strategy))
            figures.powers_of_two(where, list(next(iter(found.chosen.values()))))
            where.set(xlabel="generation budget N", title=MEASURES[measure])
        figures.legend_below(drawn)
        return drawn


def render(found: Exploitation, console: Console) -> None:
    """Print the gap between score and truth by budget, and the AUROC by difficulty."""
    chosen = found.chosen
    budgets = list(map(str, next(iter(chosen.values()))))
    table = tables.table(f"chosen solutions: {MEASURES['gap']}", ["N =", *budgets])
    for strategy, cells in chosen.items():
        table.add_row(figures.label(strategy), *(_cell(cell["gap"]) for cell in cells.values()))
    console.print(table)
    columns = [name for name in BASELINES if name in chosen]
    if columns and len(chosen) > 1:
        title = f"growth of that gap, N = {budgets[0]} to {budgets[-1]} (points)"
        table = tables.table(title, ["", "by itself", *(f"- {figures.label(name)}" for name in columns)])
        for strategy, beyond in found.growth_beyond.items():
            growth = [found.growth[strategy], *(beyond.get(name) for name in columns)]
            table.add_row(figures.label(strategy), *("" if g is None else _cell(g["gap"]) for g in growth))
        console.print(table)
    if "repeated" in found.references:
        title = f"solutions that repeat a step, in % (references: {100 * found.references['repeated'].mean:.1f})"
        table = tables.table(title, ["N =", *budgets])
        for strategy, cells in chosen.items():
            table.add_row(figures.label(strategy), *(_cell(cell["repeated"]) for cell in cells.values()))
        console.print(table)
    bins = found.auroc
    table = tables.table(
        "AUROC of the verifier on whole solutions, by difficulty (1 easiest)", ["bin", *map(str, bins)]
    )
    table.add_row("all samples", *(markup.number(b.pooled) for b in bins.values()))
    table.add_row("within questions", *(markup.number(b.mean) for b in bins.values()))
    console.print(table)


def _cell(point: Estimate) -> Text | str:
    if not point.known:
        return "n/a"
    return tables.two_lines(f"{100 * point.mean:.1f}", f"{100 * point.low:.0f}..{100 * point.high:.0f}")


def csv_rows(found: Exploitation) -> list[tuple[Any, ...]]:
    """Return (strategy, measure, budget, mean, low, high)."""
    return [
        (strategy, measure, n, *cell.ends)
        for strategy, cells in found.chosen.items()
        for n, measures in cells.items()
        for measure, cell in measures.items()
    ]


def auroc_rows(found: Exploitation) -> list[tuple[Any, ...]]:
    """Return (bin, questions, pooled, mean, low, high) of the verifier's AUROC."""
    return [(number, cell.questions, cell.pooled, *cell.ends) for number, cell in found.auroc.items()]


class OverOptimisation(Section[Exploitation]):
    """Signs that a search exploits its verifier."""

    name = "over_optimisation"
    result = Exploitation
    drawings = (
        Drawing[Exploitation](
            Entry(
                "over_optimisation",
                "Signs that searches exploit the verifier",
                "Strong searches find solutions that the verifier likes and that are not right: steps repeated to the "
                "end, or one or two steps in all. The paper shows examples; here the same is counted. What stands at "
                "N = 1 is the policy's own; scores outrun the truth under best-of-N too, and references repeat steps "
                "too, so a search exploits its verifier by what it adds to those.",
                "sweep.strategies, sweep.budgets",
                paper="24 to 29",
                iclr="27 to 32",
                tables=("over_optimisation", "verifier_by_difficulty"),
            ),
            draw=lambda found, _: figure(found),
        ),
    )
    tables = (
        Table[Exploitation](
            "over_optimisation", "strategy measure budget mean low high", lambda found, _: csv_rows(found)
        ),
        Table[Exploitation](
            "verifier_by_difficulty", "bin questions pooled mean low high", lambda found, _: auroc_rows(found)
        ),
    )

    def compute(self, records: Records) -> Exploitation:
        bank, search = records.bank, records.search
        sampled_at = records.measured.temperatures
        steps = records.task.steps
        found = measure(
            records.settings,
            bank,
            search,
            records.bank_samples,
            sampled_at,
            steps,
            records.references,
            records.verifier,
        )
        table, stage = (search, "search") if search.num_rows else (bank, "bank")
        return replace(found, examples=examples(found.exploited, table, records.workdir / stage, steps))

    def text(self, found: Exploitation, summary: Summary, console: Console) -> None:
        render(found, console)

    def html(self, found: Exploitation, summary: Summary) -> str:
        if not found.examples:
            return ""
        parts = []
        for example in found.examples:
            title = f"{figures.label(example.strategy)}, N = {example.n}, question {example.question}"
            steps = [(markup.text(text, lines=True), f"{score:.3f}") for text, score in example.steps]
            rows = [[f'<span class="text">{text}</span>', score] for text, score in steps]
            table = markup.table(["step", "score"], rows, markup.text(title))
            gold = f'<p class="caption">The right answer is {markup.text(example.gold)}.</p>'
            parts.append(f"<div>{table}{gold}</div>")
        return f'<h3>Wrong answers that the verifier likes best</h3><div class="side">{"".join(parts)}</div>'

    def claims(self, found: Exploitation, summary: Summary) -> Iterator[Claim]:
        source = "Figs. 24 to 29"
        paper = "examples of beams that repeat themselves, or are over in a step or two, with high scores"
        for strategy in searches(found.growth_beyond):
            if registry.named(strategy).revises:  # The paper's examples are of searches by the verifier of steps.
                continue
            name = figures.label(strategy)
            # The best of many scores is above the truth in any selection: a search exploits its verifier by what it
            # adds.
            for baseline, growth in found.growth_beyond[strategy].items():
                other = figures.label(baseline)
                text = f"The score of what {name} chooses outruns the truth with budget, by more than {other}"
                if growth["gap"].known:
                    where = f"over_optimisation.growth_beyond[{strategy}][{baseline}].gap"
                    yield higher(text, source, paper, growth["gap"], where)
            cells = found.chosen[strategy]
            n = max(cells)
            cell = cells[n].get("repeated_beyond_reference", UNKNOWN)
            if cell.known:
                text = f"What {name} chooses repeats a step more often than reference solutions do (N = {n})"
                where = f"over_optimisation.chosen[{strategy}][{n}].repeated_beyond_reference"
                yield higher(text, source, paper, cell, where)


SECTION = OverOptimisation()
