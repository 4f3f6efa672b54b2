"""Revisions and searches by the subject of a question: where an attempt informs the next one, and where it cannot.

Beside each subject stand what belongs to an honest reading: the swap control, in which the answers in view are another
question's; how often an answer is right after a right and after a wrong one, beside the same with an answer of another
chain of the question, which knows nothing of this one; and how many right samples hold a false step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import ExperimentConfig
from ttcjax.eval.report import tables
from ttcjax.eval.report.figures import MUTED, STYLE, band, legend_below, new_figure
from ttcjax.eval.sections.revisions import SELECTORS, AnswerChains, Splits
from ttcjax.eval.stats import paired
from ttcjax.eval.stats.intervals import Bootstrap, as_table
from ttcjax.eval.stats.paired import WEIGHTED


def luck(config: ExperimentConfig, samples: pa.Table) -> dict[str, Any] | None:
    """Return which share of the right samples holds a false step, of all and by subject.

    Args:
        config: The experiment.
        samples: Rows of the bank.

    Returns:
        Estimates by subject, `all` first; `None` where the data set cannot tell true steps from false ones.
    """
    if samples["step_truth"].null_count == len(samples):
        return None
    questions, place = np.unique(np.array(samples["question"].to_pylist()), return_inverse=True)
    right = samples["correct"].to_numpy(zero_copy_only=False)
    steps = samples["step_truth"].combine_chunks()
    row = np.repeat(np.arange(len(samples)), steps.value_lengths().fill_null(0).to_numpy())
    false = np.zeros(len(samples), bool)
    false[row[~steps.flatten().to_numpy(zero_copy_only=False)]] = True
    cases, events = (np.bincount(place, weights=w, minlength=len(questions)) for w in (right, right & false))
    subjects = np.full(len(questions), "", object)
    subjects[place] = samples["subject"].to_pylist()
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    found = {"all": bootstrap.rate(events, cases)}
    for subject in sorted(set(subjects)):
        inside = subjects == subject
        found[subject] = bootstrap.rate(events * inside, cases * inside)
    return {name: dataclasses.asdict(estimate) for name, estimate in found.items() if estimate is not None}


def searches(
    config: ExperimentConfig,
    subjects: Sequence[str],
    greedy: np.ndarray,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
) -> dict[str, Any]:
    """Compute what strategies do by subject.

    Args:
        config: The experiment.
        subjects: Of every question.
        greedy: Which of them one greedy answer gets right.
        accuracy: Each question's accuracy, by strategy and budget.

    Returns:
        By subject `questions`, `greedy`, `accuracy[strategy][N]`, and `beyond_weighted[strategy][N]`: a search less
        best-of-N weighted, over the same questions.
    """
    of, budgets = np.asarray(subjects), config.sweep.budgets
    bootstrap = Bootstrap(len(of), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    above = paired.searches(accuracy) if WEIGHTED in accuracy else []
    found = {}
    for subject in sorted(set(of)):
        inside = of == subject
        found[subject] = {
            "questions": int(inside.sum()),
            "greedy": as_table(bootstrap(greedy.astype(np.float64), inside)),
            "accuracy": {
                name: {str(n): as_table(bootstrap(cells[n], inside)) for n in budgets}
                for name, cells in accuracy.items()
            },
            "beyond_weighted": {
                name: {
                    str(n): as_table(bootstrap.difference(accuracy[name][n] - accuracy[WEIGHTED][n], inside))
                    for n in budgets
                    if n > 1
                }
                for name in above
            },
        }
    return found


def summarise(
    config: ExperimentConfig,
    found: Splits,
    table: pa.Table,
    subjects: Mapping[str, str],
    informs: Callable[[str], bool | None],
) -> dict[str, Any]:
    """Compute what chains of revisions do by subject.

    Args:
        config: The experiment.
        found: The chains, and every split of every budget.
        table: Rows of the chains stage, for those of the control.
        subjects: Of every question, by its id.
        informs: `Task.attempts_inform`.

    Returns:
        By subject `questions`, `attempts_inform`, `pass_at_1_by_step`, `swap_by_step` where the config asks for the
        control, `gain` from the first step to the last, `late` to the last from the last step that training had where
        chains go beyond it, `swap_gain` of the control, and `beyond_swap`, the chain's gain less the control's up to
        the same step; `after`, how often an answer is right by the one before, beside the first of another chain, and
        `after_first` of second answers alone; and `sequential_minus_parallel` by selector and budget.
    """
    chains = found.chains
    of = np.array([subjects[question] for question in chains.questions])
    bootstrap = Bootstrap(len(of), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    swap = _swapped(table, chains.questions, config.chains.swap)
    return {
        subject: {
            "questions": int((of == subject).sum()),
            "attempts_inform": informs(subject),
            **_along(config, bootstrap, chains, swap, of == subject),
            "after": _after(bootstrap, chains, of == subject, int(max(chains.lengths)) - 1),
            "after_first": _after(bootstrap, chains, of == subject, 1),
            "sequential_minus_parallel": [
                {
                    "n": n,
                    "selector": rule,
                    **as_table(bootstrap.difference(_less(found.accuracy, n, rule), of == subject)),
                }
                for rule in SELECTORS
                for n in config.chains.budgets
                if n > 1
            ],
        }
        for subject in sorted(set(of))
    }


def _less(values: Mapping[tuple[int, int, str], np.ndarray], n: int, rule: str) -> np.ndarray:
    return values[n, 1, rule] - values[1, n, rule]


def _swapped(table: pa.Table, questions: Sequence[str], answers: int) -> np.ndarray | None:
    """Return which answers of the control are right, `[Q, S]`, NaN where a question has no partner."""
    rows = table.filter(pc.field("strategy") == "swap")
    if not answers or not len(rows):
        return None
    at = {question: i for i, question in enumerate(questions)}
    found = np.full((len(questions), answers), np.nan)
    q = [at[question] for question in rows["question"].to_pylist()]
    found[q, rows["place"].to_numpy()] = rows["correct"].to_numpy(zero_copy_only=False)
    return found


def _along(
    config: ExperimentConfig, bootstrap: Bootstrap, chains: AnswerChains, swap: np.ndarray | None, inside: np.ndarray
) -> dict[str, Any]:
    """Return pass@1 along the chains and under the control, and how much it gains."""
    steps = int(max(chains.lengths))
    right = np.stack([chains.pass_at_1(place) for place in range(steps)], axis=1)
    found: dict[str, Any] = {"pass_at_1_by_step": _by_step(bootstrap, right, inside)}
    trained = config.revision.trajectories.most
    found["gain"] = as_table(bootstrap.difference(right[:, -1] - right[:, 0], inside))
    if trained < steps - 1:
        found["late"] = as_table(bootstrap.difference(right[:, -1] - right[:, trained], inside))
    if swap is not None and (known := inside & ~np.isnan(swap).any(axis=1)).any():
        found["swap_by_step"] = _by_step(bootstrap, swap, known)
        gain_Q = swap[:, -1] - swap[:, 0]
        found["swap_gain"] = as_table(bootstrap.difference(gain_Q, known))
        at = min(swap.shape[1], steps) - 1
        beyond_Q = right[:, at] - right[:, 0] - (swap[:, at] - swap[:, 0])
        found["beyond_swap"] = {"step": at + 1, **as_table(bootstrap.difference(beyond_Q, known))}
    return found


def _by_step(bootstrap: Bootstrap, right_QS: np.ndarray, inside: np.ndarray) -> list[dict[str, Any]]:
    return [{"step": s + 1, **as_table(bootstrap(right_QS[:, s], inside))} for s in range(right_QS.shape[1])]


def _after(bootstrap: Bootstrap, chains: AnswerChains, inside: np.ndarray, steps: int) -> dict[str, Any]:
    """Return how often the next answer is right after a right and after a wrong one, `own` and `other`, within so many
    steps from the first answer.

    `other` takes the first answer of another chain of the same question in its place, which knows nothing of this one:
    what it would be were answers independent.
    """
    shape = (2, 2, len(inside))
    events, cases = np.zeros(shape), np.zeros(shape)  # Own or other; after wrong or right; question.
    for place in range(steps):
        among = chains.lengths > place + 1
        before, after = chains.correct[:, among, place], chains.correct[:, among, place + 1]
        if before.shape[1] < 2:
            continue  # Of a single chain there is no other to compare with.
        fresh = np.roll(chains.correct[:, among, 0], 1, axis=1)
        for i, follows in enumerate((after, fresh)):
            for ok in (0, 1):
                events[i, ok] += ((before == ok) & follows).sum(axis=1)
                cases[i, ok] += (before == ok).sum(axis=1)
    events, cases = events * inside, cases * inside
    return {
        what: {name: as_table(bootstrap.rate(events[i, ok], cases[i, ok])) for i, name in enumerate(("own", "other"))}
        for ok, what in enumerate(("wrong", "right"))
    }


def render(families: dict[str, Any], console: Console) -> None:
    """Print pass@1 along the chains by subject, the control below it, and what an answer owes to the one before."""
    first = next(iter(families.values()))["pass_at_1_by_step"]
    steps = [row["step"] for row in first if row["step"] & (row["step"] - 1) == 0]
    columns = ["subject", *map(str, steps), "gain", "beyond swap"]
    table = tables.table("revisions by subject: pass@1 in % by step, last less first", columns)
    for subject, found in families.items():
        for name, key, gain in ((subject, "pass_at_1_by_step", "gain"), ("  swapped", "swap_by_step", "swap_gain")):
            if key in found:
                cells = {row["step"]: tables.cell(row) for row in found[key]}
                row = [*(cells.get(step, "") for step in steps), tables.difference_cell(found[gain])]
                if key == "pass_at_1_by_step" and "beyond_swap" in found:
                    row.append(tables.difference_cell(found["beyond_swap"]))
                table.add_row(name, *row, style=None if key == "pass_at_1_by_step" else "dim")
    console.print(table)
    columns = ["subject", "after right", "another's first", "after wrong", "another's first"]
    table = tables.table("second answers that are right, in %, by the first", columns)
    for subject, found in families.items():
        cells = [found["after_first"][what][name] for what in ("right", "wrong") for name in ("own", "other")]
        table.add_row(subject, *("" if cell["mean"] is None else tables.cell(cell) for cell in cells))
    console.print(table)


def csv_rows(families: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (subject, measure, at, mean, low, high) of every number."""
    rows: list[tuple[Any, ...]] = []
    for subject, found in families.items():
        for measure in ("pass_at_1_by_step", "swap_by_step"):
            rows += [(subject, measure, row["step"], *_ends(row)) for row in found.get(measure, ())]
        rows += [(subject, name, "", *_ends(found[name])) for name in ("gain", "late", "swap_gain") if name in found]
        if "beyond_swap" in found:
            rows.append((subject, "beyond_swap", found["beyond_swap"]["step"], *_ends(found["beyond_swap"])))
        for key, at in (("after_first", 2), ("after", "")):
            for what, cells in found[key].items():
                rows += [(subject, f"right_after_{what}:{name}", at, *_ends(cell)) for name, cell in cells.items()]
        rows += [
            (subject, f"sequential_minus_parallel:{row['selector']}", row["n"], *_ends(row))
            for row in found["sequential_minus_parallel"]
        ]
    return rows


def search_rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (subject, measure, budget, mean, low, high) of every strategy by subject."""
    rows: list[tuple[Any, ...]] = []
    for subject, cells in found.items():
        rows.append((subject, "greedy", 1, *_ends(cells["greedy"])))
        for measure in ("accuracy", "beyond_weighted"):
            for name, points in cells[measure].items():
                what = name if measure == "accuracy" else f"{name} - {WEIGHTED}"
                rows += [(subject, what, n, *_ends(point)) for n, point in points.items()]
    return rows


def render_searches(found: dict[str, Any], console: Console) -> None:
    """Print every strategy at its largest budget by subject."""
    first = next(iter(found.values()))["accuracy"]
    largest = list(next(iter(first.values())))[-1]
    table = tables.table(f"accuracy in % by subject at N = {largest}", ["subject", "greedy", *first])
    for subject, cells in found.items():
        points = [cells["greedy"], *(points[largest] for points in cells["accuracy"].values())]
        table.add_row(subject, *map(tables.cell, points))
    console.print(table)


def luck_rows(found: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """Return (subject, mean, low, high) of the right samples with a false step."""
    return [(subject, *_ends(cell)) for subject, cell in (found or {}).items()]


def _ends(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["mean"], row["low"], row["high"]


def figure(families: dict[str, Any], trained: int) -> Figure:
    """Draw pass@1 along the chains of every subject, and under the swap control.

    Args:
        families: What `summarise` returns.
        trained: Most answers in view in training.
    """
    shown = list(families.items())
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(STYLE):
        drawn = new_figure(10.0, 2.9 * rows + 0.6)
        axes = drawn.subplots(rows, columns, sharex=True, squeeze=False)
        for where, (subject, found) in zip(axes.flat, shown, strict=False):
            points = found["pass_at_1_by_step"]
            band(where, [row["step"] for row in points], points, 0, "its own answers in view")
            if "swap_by_step" in found:
                points = found["swap_by_step"]
                band(where, [row["step"] for row in points], points, 1, "another question's in view")
            where.axvline(trained + 1.5, color=MUTED, linewidth=1, label="last step that training had")
            inform = {True: "attempts inform", False: "attempts cannot inform", None: ""}[found["attempts_inform"]]
            where.set_title(f"{subject}, {found['questions']} questions\n{inform}")
            where.set(ylim=(0, 100))
        for where in axes.flat[len(shown) :]:
            where.set_axis_off()
        for where in axes[:, 0]:
            where.set_ylabel("right answers (%)")
        for where in axes.flat[max(0, len(shown) - columns) : len(shown)]:  # The lowest of each column.
            where.set_xlabel("step of the chain")
            where.tick_params(labelbottom=True)
        legend_below(drawn)
        return drawn
