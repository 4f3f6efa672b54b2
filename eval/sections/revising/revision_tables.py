"""Tables on revisions, and chains that are shown in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from ttcjax.config import Aggregation
from ttcjax.eval.records import verifier_scores
from ttcjax.eval.records.answer_chains import SELECTORS, pairs, strategy_name
from ttcjax.eval.report.drawing import tables
from ttcjax.eval.sections.revising.revision_numbers import Answer, Chain, Revision, Selection
from ttcjax.text.terminal import Shown

EXAMPLES = (2, 1)
"""Chains that are shown: in which a wrong answer becomes right, and the other way round."""
_SHOWN = 3
"""Most answers of a chain that are shown."""


def examples(table: pa.Table, verifier: str, aggregates: Mapping[str, Aggregation]) -> list[Chain]:
    """Return the heads of some chains whose second answer is right where the first is not, or the other way round.

    The first such questions in the order of their ids, each with its first chain, so that nobody picked them.

    Args:
        table: Rows of the chains stage.
        verifier: Whose scores are shown.
        aggregates: As for `verifier_scores.of_answers`.
    """
    first = table.filter(
        (pc.field("strategy") == "revise") & (pc.field("chain") == 0) & (pc.field("place") < _SHOWN)
    ).sort_by([("question", "ascending"), ("place", "ascending")])
    chains: dict[str, list[dict[str, Any]]] = {}
    scores = verifier_scores.of_answers(first, aggregates).get(verifier, np.full(first.num_rows, np.nan))
    shown = first.select(["question", "gold", "text", "correct"]).to_pylist()
    for row, score in zip(shown, scores.tolist(), strict=True):
        chains.setdefault(row["question"], []).append({**row, "score": score})
    found: list[list[dict[str, Any]]] = []
    for turned, count in zip(((False, True), (True, False)), EXAMPLES, strict=True):
        some = [rows for rows in chains.values() if tuple(row["correct"] for row in rows[:2]) == turned]
        found += some[:count]
    return [
        Chain(
            question=rows[0]["question"],
            gold=rows[0]["gold"],
            answers=[Answer(row["text"], row["correct"], row["score"]) for row in rows],
        )
        for rows in found
    ]


def render(found: Revision, console: Console) -> None:
    """Print what revising does: pass@1 by step, the splits of every budget, and how often answers turn."""
    shown = [row for row in found.pass_at_1_by_step if row.step & (row.step - 1) == 0]
    table = tables.table("revisions: pass@1 in % by step of the chain", ["step", *(str(row.step) for row in shown)])
    table.add_row("pass@1", *map(tables.cell, shown))
    console.print(table)
    budgets = found.budgets
    names = {n: [strategy_name(s, p) for s, p in pairs(n)] for n in budgets}
    for rule in SELECTORS:
        table = tables.table(f"accuracy in % of s answers a chain, p = N / s chains, {rule}", ["s", *map(str, budgets)])
        for i in range(max(budgets).bit_length()):
            cells = [tables.cell(found.accuracy[names[n][i]][rule]) if i < len(names[n]) else "" for n in budgets]
            table.add_row(str(1 << i), *cells)
        less = {r.n: tables.difference_cell(r) for r in found.sequential_minus_parallel if r.selector == rule}
        table.add_row("one chain\n- parallel", *(less.get(n, "") for n in budgets), style="dim")
        console.print(table)
    _render_bins(found, console)
    _render_verifiers(found, console)
    if found.refine:
        kept = [row for row in found.refine if not row.tries & (row.tries - 1)]
        table = tables.table(
            "refine: accuracy in % of what was kept after so many tries", ["tries", *(str(row.tries) for row in kept)]
        )
        table.add_row("accuracy", *map(tables.cell, kept))
        console.print(table)
    for what, turned, share in (("right", "wrong", found.right_to_wrong), ("wrong", "right", found.wrong_to_right)):
        if share.known:
            interval = f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
            text = f"of {what} answers {100 * share.mean:.1f}% {interval} turn {turned} at the next step"
            console.print(Shown(text), soft_wrap=True)


def _render_bins(found: Revision, console: Console) -> None:
    bins = found.per_bin
    n = next(iter(bins.values())).n
    title = f"difficulty bins (1 easiest) at N = {n}: the best split of the budget"
    table = tables.table(title, ["bin", *map(str, bins)])
    for rule in SELECTORS:
        best = [cells.by(rule).best for cells in bins.values()]
        splits = ("by seed" if cell.s is None else f"{cell.s} x {cell.p}" for cell in best)
        table.add_row(f"best s x p, {rule}", *splits)
        table.add_row("chosen on the other half", *map(tables.cell, best))
        table.add_row("- parallel", *(tables.difference_cell(cell.minus_parallel) for cell in best), style="dim")
    console.print(table)


def _render_verifiers(found: Revision, console: Console) -> None:
    budgets = map(str, next(iter(found.verifiers.values())))
    table = tables.table("verifiers of one chain of N answers: accuracy in %", ["N =", *budgets])
    for name, cells in found.verifiers.items():
        table.add_row(name, *map(tables.cell, cells.values()))
        rows = [r for r in found.verifier_differences if {r.a, r.b} == {found.verifier, name}]
        if rows:
            table.add_row(f"{rows[0].a} - {rows[0].b}", *map(tables.difference_cell, rows), style="dim")
    console.print(table)
    if found.selection is not None:
        console.print(Shown(_selected(found.selection, found.verifier)), soft_wrap=True)


def _selected(selection: Selection, verifier: str) -> str:
    found = ", ".join(f"{name} {100 * value:.1f}%" for name, value in selection.accuracy.items())
    text = f"verifiers on {selection.questions} training questions that none was trained on, right in: {found}"
    if selection.chosen != verifier:
        text += f"; here {verifier} selects, as chains.verifier says"
    return text


def step_rows(found: Revision) -> list[tuple[Any, ...]]:
    """Return (step, chains, measure, mean, low, high) along the chains."""
    rows: list[tuple[Any, ...]] = [(row.step, row.chains, "pass_at_1", *row.ends) for row in found.pass_at_1_by_step]
    for flips in found.flips_by_step:
        rows.append((flips.step, "", "right_to_wrong", *flips.right_to_wrong.ends))
        rows.append((flips.step, "", "wrong_to_right", *flips.wrong_to_right.ends))
    return rows


def bin_rows(found: Revision) -> list[tuple[Any, ...]]:
    """Return (bins, bin, selector, strategy, mean, low, high) of every split of the largest budget by difficulty."""
    return [
        (bins, number, rule, strategy, *cell.ends)
        for bins, per_bin in (("oracle", found.per_bin), ("predicted", found.per_bin_predicted))
        for number, cells in per_bin.items()
        for rule in SELECTORS
        for strategy, cell in cells.by(rule).accuracy.items()
    ]


def verifier_rows(found: Revision) -> list[tuple[Any, ...]]:
    """Return (verifier, budget, mean, low, high) of one chain under every verifier."""
    return [(name, n, *cell.ends) for name, cells in found.verifiers.items() for n, cell in cells.items()]


def accuracy_rows(found: Revision) -> list[tuple[Any, ...]]:
    """Return (strategy, selector, mean, low, high) of everything that revises."""
    return [(name, rule, *cell.ends) for name, cells in found.accuracy.items() for rule, cell in cells.items()]
