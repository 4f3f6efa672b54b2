"""Signs that a search exploits its verifier: what the chosen solutions look like, against what they score.

Snell et al. 2024 see in examples (Figs. 24 to 29) that strong searches find solutions which repeat steps or are over
in one or two, and which the verifier likes; here the same is counted, by strategy and budget. Whoever takes the best
scored of many gets scores above the truth, best-of-N too, and references repeat steps too: a search is judged by what
it adds to those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from etils import epath
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from ttcjax.config import ExperimentConfig
from ttcjax.eval.collect import temperatures
from ttcjax.eval.records import sample_rows
from ttcjax.eval.report import figures, tables
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.estimators import LIKELIHOOD, Samples, scores_of, step_scores
from ttcjax.eval.stats.intervals import Bootstrap, Estimate, as_table
from ttcjax.runtime import records
from ttcjax.runtime.parquet import read_shard
from ttcjax.search import registry
from ttcjax.text.steps import LINES
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
"""What is measured of the chosen solutions, all as shares."""
BEYOND = {"repeated_beyond_reference": "repeated", "short_beyond_reference": "short"}
"""Measures less the same of the reference solutions of the same questions, where those are known."""
BASELINES = ("best_of_n:select=weighted", "majority")
"""Strategies whose growth is taken off the others': they choose among samples that no verifier has led."""
_SHARES = ("repeated", "short", "right")
_BATCH = 10_000
_Pair = tuple[np.ndarray, np.ndarray]
"""Sums of each question above and below a ratio."""


def lines_of(text: str) -> tuple[int, bool]:
    """Return how many steps a solution has, blank lines aside, and whether one stands in it twice or more."""
    lines = [line.strip() for line in LINES.split(text) if line.strip()]
    return len(lines), len(set(lines)) < len(lines)


def with_lines(table: pa.Table, folder: epath.PathLike) -> pa.Table:
    """Return rows with the columns `lines` and `repeated`, see `lines_of`.

    Texts are read a shard at a time and dropped at once: those of a large bank do not fit into memory together.

    Args:
        table: What `rows.read_folder` read from the folder, in its order.
        folder: Of the bank or the search.

    Raises:
        UserError: A shard is missing or corrupt.
    """
    counts, repeats = [], []
    for path, digest in records.members(folder).items():
        for batch in read_shard(path, sample_rows.SCHEMA, ("text",), sha256=digest).to_batches(max_chunksize=_BATCH):
            found = [lines_of(text) for text in batch["text"].to_pylist()]
            counts += [count for count, _ in found]
            repeats += [repeat for _, repeat in found]
    return table.append_column("lines", pa.array(counts, pa.int32())).append_column(
        "repeated", pa.array(repeats, pa.bool_())
    )


def texts_at(folder: epath.PathLike, places: Sequence[int]) -> list[str]:
    """Return the texts of some rows of a folder, counted in the order of `rows.read_folder`."""
    found: dict[int, str] = {}
    start = 0
    for path in records.members(folder):
        count = read_shard(path, sample_rows.SCHEMA, ("sample",)).num_rows
        inside = [place - start for place in places if start <= place < start + count]
        if inside:
            texts = read_shard(path, sample_rows.SCHEMA, ("text",))["text"]
            found |= {start + place: texts[place].as_py() for place in inside}
        start += count
    return [found[place] for place in places]


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


def reference_lines(questions: Sequence[str], references: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return which reference solutions repeat a step and which are short, `[Q]` by the measures of `BEYOND`.

    Args:
        questions: Their ids.
        references: Texts of the reference solutions by id.
    """
    found = [lines_of(references[question]) for question in questions]
    return {
        "repeated_beyond_reference": np.array([repeated for _, repeated in found], float),
        "short_beyond_reference": np.array([count <= SHORT for count, _ in found], float),
    }


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    references: Mapping[str, str] | None = None,
    chosen: temperatures.Chosen | None = None,
) -> dict[str, Any]:
    """Measure the chosen solutions by strategy and budget, and the verifier by difficulty.

    Args:
        config: The experiment.
        bank: Rows of the bank, with `estimators.COLUMNS` and what `with_lines` adds.
        search: Rows of all search strategies, the same.
        references: Texts of the reference solutions by question, where they are known.
        chosen: What won on validation, where a strategy asks for it.

    Returns:
        `chosen[strategy][n][measure]` for `MEASURES` and, with references, `BEYOND`, over what was chosen, with
        intervals (null where nothing ever is); `growth[strategy][measure]`, the largest budget less the least;
        `growth_beyond[strategy][baseline][measure]`, that less the growth of a baseline (of `BASELINES`), paired;
        `references[measure]`, the share of references that repeat a step or are short; `auroc[bin]`, how well the
        score tells right from wrong solutions: `pooled` over the bin's samples, and within questions that have both
        (`mean` with its interval, `questions`); `exploited`, (strategy, budget, row) of wrong answers that were chosen
        with the highest scores at the largest budget, a row of the search or, if nothing searches, of the bank.
    """
    questions = sorted({*bank["question"].to_pylist(), *search["question"].to_pylist()})
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    grid = temperatures.Grid.of(config)
    bank_samples = temperatures.BankSamples.of(grid, config.sweep.samples, config.sweep.judged)
    by_temperature: dict[float, tuple[Samples, pa.Table, np.ndarray]] = {}
    for temperature, count in bank_samples.at(chosen).items():
        places = np.flatnonzero(bank["temperature"].to_numpy() == temperature)
        held = bank.take(pa.array(places))
        by_temperature[temperature] = (
            Samples.from_table(held, questions, count).part(0, config.sweep.judged),
            held,
            places,
        )
    base, base_rows, _ = by_temperature[config.sampler.temperature]
    median_Q = _median_lines(base, base_rows)
    known = {} if references is None else reference_lines(questions, references)
    found: dict[str, dict[str, Any]] = {"chosen": {}, "growth": {}, "growth_beyond": {}}
    ends: dict[str, dict[str, tuple[_Pair, _Pair]]] = {}
    exploited: list[tuple[float, str, int, int]] = []
    strategy_of_row = np.array(search["strategy"].to_pylist(), object)
    for strategy in config.sweep.strategies:
        named = registry.named(strategy)
        by = named.selector
        how = scores_of(by, config.prm.aggregate)
        # What is chosen is judged by the verifier, whatever chose it.
        judged = config.prm.aggregate if how == LIKELIHOOD else how
        parts: dict[int, dict[str, _Pair]] = {}
        for n in config.sweep.budgets:
            [temperature] = grid.possible(strategy, n, chosen)
            inside = (strategy_of_row == strategy) & (search["n"].to_numpy() == n)
            cell = search.filter(pa.array(inside))
            if cell.num_rows and not named.is_best_of_n(n):
                kept = named.at(n).rows()
                samples = Samples.from_table(cell, questions, kept, config.sweep.seeds)
                table, places = cell, np.flatnonzero(inside)
                row = chosen_rows(samples, by.rule, how, None, by.ties, by.vote_temperature)
            else:
                samples, table, places = by_temperature[temperature]
                row = chosen_rows(samples, by.rule, how, n, by.ties, by.vote_temperature)
            values = _values(table, judged, row, median_Q)
            values |= {measure: values[BEYOND[measure]] - of_Q[:, None] for measure, of_Q in known.items()}
            made = row >= 0
            parts[n] = {m: ((v * made).mean(axis=1), made.mean(axis=1)) for m, v in values.items()}
            searched = named.searches and by.asks_verifier
            if n == max(config.sweep.budgets) and (searched or not search.num_rows):
                wrong = made & (values["right"] == 0)
                scores = np.where(wrong, values["score"], -np.inf)
                for at in np.argsort(-scores, axis=None, kind="stable")[:EXAMPLES]:
                    if wrong.flat[at]:
                        exploited.append((float(scores.flat[at]), strategy, n, int(places[row.flat[at]])))
        found["chosen"][strategy] = {
            str(n): {
                measure: as_table((bootstrap.rate if measure in _SHARES else bootstrap.ratio)(*pair))
                for measure, pair in cells.items()
            }
            for n, cells in parts.items()
        }
        first, last = parts[min(parts)], parts[max(parts)]
        ends[strategy] = {measure: (last[measure], first[measure]) for measure in last}
        found["growth"][strategy] = {
            measure: as_table(_difference(bootstrap, [last], [first]))
            for measure, (last, first) in ends[strategy].items()
        }
    for strategy, own in ends.items():
        found["growth_beyond"][strategy] = {}
        for baseline in (name for name in BASELINES if name in ends and name != strategy):
            pairs = {measure: (own[measure], ends[baseline][measure]) for measure in own}
            found["growth_beyond"][strategy][baseline] = {
                # What it gained, less what the baseline gained.
                measure: as_table(_difference(bootstrap, [last, base_first], [first, base_last]))
                for measure, ((last, first), (base_last, base_first)) in pairs.items()
            }
    exploited.sort(key=lambda item: -item[0])
    return {
        **found,
        "references": {BEYOND[measure]: as_table(bootstrap(of_Q)) for measure, of_Q in known.items()},
        "auroc": _auroc_by_bin(config, base, base_rows),
        "exploited": [{"strategy": s, "n": n, "row": row} for _, s, n, row in exploited[:EXAMPLES]],
    }


def examples(found: dict[str, Any], table: pa.Table, folder: epath.PathLike) -> list[dict[str, Any]]:
    """Return the solutions of `exploited` with the score of each step.

    Args:
        found: What `summarise` returns.
        table: The rows that `exploited` counts, with `gold`: of the search, or of the bank if nothing searches.
        folder: Where they were read from.

    Returns:
        `strategy`, `n`, `question`, `gold` (the right answer), `answer` and `steps`, pairs of text and score.
    """
    places = [item["row"] for item in found["exploited"]]
    return [
        {
            "strategy": item["strategy"],
            "n": item["n"],
            "question": table["question"][place].as_py(),
            "gold": table["gold"][place].as_py(),
            "answer": table["answer"][place].as_py(),
            "steps": list(zip(LINES.split(text), table["step_scores"][place].as_py(), strict=False)),
        }
        for item, place, text in zip(found["exploited"], places, texts_at(folder, places), strict=True)
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


def _difference(bootstrap: Bootstrap, plus: Sequence[_Pair], minus: Sequence[_Pair]) -> Estimate | None:
    """Return ratios of sums less others, over the same resamples; `None` where one divides by 0.

    Resamples in which one does say nothing and are left out.
    """
    pairs = [*plus, *minus]
    if not all(under.sum() for _, under in pairs):
        return None
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus))
    return bootstrap.of(signs @ np.stack([bootstrap.ratios(top, under) for top, under in pairs]))


def _auroc_by_bin(config: ExperimentConfig, samples: Samples, bank: pa.Table) -> dict[str, Any]:
    """Judge the score of whole solutions, by bins of pass@1 where there are questions enough for them."""
    score = samples.scores(config.prm.aggregate).reshape(len(samples.questions), -1)
    right = samples.correct.reshape(score.shape)
    there = (samples.row >= 0).reshape(score.shape)
    bins = 5 if len(score) >= 10 else 1
    number = quantile_bins(samples.pass_at_1(), bins)
    found = {}
    bootstrap = Bootstrap(len(score), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    within = np.array([auroc(score[q][there[q]], right[q][there[q]]) for q in range(len(score))])
    for b in range(1, bins + 1):
        inside = number == b
        pooled = auroc(score[inside][there[inside]], right[inside][there[inside]])
        known = inside & np.isfinite(within)
        estimate = bootstrap(within, known) if known.any() else None
        found[str(b)] = {
            "pooled": None if math.isnan(pooled) else pooled,
            **as_table(estimate),
            "questions": int(known.sum()),
        }
    return found


def figure(summary: dict[str, Any]) -> Figure:
    """Draw what becomes of the chosen solutions as the budget grows, and the verifier by difficulty.

    Args:
        summary: What `summarise` returns, with JSON's own types.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(12.0, 7.2)
        grid = drawn.subplots(2, 3).ravel()
        for where, measure in zip(grid, MEASURES, strict=True):
            for i, (strategy, cells) in enumerate(summary["chosen"].items()):
                known = {int(n): cell[measure] for n, cell in cells.items() if cell[measure]["mean"] is not None}
                figures.band(where, list(known), known.values(), i, figures.label(strategy))
            figures.powers_of_two(where, [int(n) for n in next(iter(summary["chosen"].values()))])
            where.set(xlabel="generation budget N", title=MEASURES[measure])
        figures.legend_below(drawn)
        return drawn


def render(summary: dict[str, Any], console: Console) -> None:
    """Print the gap between score and truth by budget, and the AUROC by difficulty."""
    chosen = summary["chosen"]
    table = tables.table(f"chosen solutions: {MEASURES['gap']}", ["N =", *next(iter(chosen.values()))])
    for strategy, cells in chosen.items():
        table.add_row(figures.label(strategy), *(_cell(cell["gap"]) for cell in cells.values()))
    console.print(table)
    budgets = list(next(iter(chosen.values())))
    columns = [name for name in BASELINES if name in chosen]
    if columns and len(chosen) > 1:
        title = f"growth of that gap, N = {budgets[0]} to {budgets[-1]} (points)"
        table = tables.table(title, ["", "by itself", *(f"- {figures.label(name)}" for name in columns)])
        for strategy, beyond in summary["growth_beyond"].items():
            growth = [summary["growth"][strategy], *(beyond.get(name) for name in columns)]
            table.add_row(figures.label(strategy), *("" if g is None else _cell(g["gap"]) for g in growth))
        console.print(table)
    if "repeated" in summary["references"]:
        title = (
            f"solutions that repeat a step, in % (references: {100 * summary['references']['repeated']['mean']:.1f})"
        )
        table = tables.table(title, ["N =", *budgets])
        for strategy, cells in chosen.items():
            table.add_row(figures.label(strategy), *(_cell(cell["repeated"]) for cell in cells.values()))
        console.print(table)
    bins = summary["auroc"]
    table = tables.table("AUROC of the verifier on whole solutions, by difficulty (1 easiest)", ["bin", *bins])
    table.add_row("all samples", *("n/a" if b["pooled"] is None else f"{b['pooled']:.3f}" for b in bins.values()))
    table.add_row("within questions", *("n/a" if b["mean"] is None else f"{b['mean']:.3f}" for b in bins.values()))
    console.print(table)


def _cell(point: dict[str, Any]) -> Text | str:
    if point["mean"] is None:
        return "n/a"
    return tables.two_lines(f"{100 * point['mean']:.1f}", f"{100 * point['low']:.0f}..{100 * point['high']:.0f}")


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (strategy, measure, budget, mean, low, high)."""
    return [
        (strategy, measure, n, cell["mean"], cell["low"], cell["high"])
        for strategy, cells in summary["chosen"].items()
        for n, measures in cells.items()
        for measure, cell in measures.items()
    ]


def auroc_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (bin, questions, pooled, mean, low, high) of the verifier's AUROC."""
    return [
        (number, cell["questions"], cell["pooled"], cell["mean"], cell["low"], cell["high"])
        for number, cell in summary["auroc"].items()
    ]
