"""What the report says of revisions, in tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from ttcjax.eval.report import figures, tables
from ttcjax.eval.sections import revisions
from ttcjax.text.terminal import Shown

EXAMPLES = (2, 1)
"""Chains that are shown: in which a wrong answer becomes right, and the other way round."""
_SHOWN = 3
"""Most answers of a chain that are shown."""


def examples(table: pa.Table, verifier: str) -> list[dict[str, Any]]:
    """Return the heads of some chains whose second answer is right where the first is not, or the other way round.

    The first such questions in the order of their ids, each with its first chain, so that nobody picked them.

    Args:
        table: Rows of the chains stage.
        verifier: Whose scores are shown.

    Returns:
        `question`, `gold` and `answers`, each with `text`, `correct` and `score`.
    """
    first = table.filter(
        (pc.field("strategy") == "revise") & (pc.field("chain") == 0) & (pc.field("place") < _SHOWN)
    ).sort_by([("question", "ascending"), ("place", "ascending")])
    chains: dict[str, list[dict[str, Any]]] = {}
    for row in first.select(["question", "gold", "text", "correct", f"score_{verifier}"]).to_pylist():
        chains.setdefault(row["question"], []).append(row)
    found = []
    for turned, count in zip(((False, True), (True, False)), EXAMPLES, strict=True):
        some = [rows for rows in chains.values() if tuple(row["correct"] for row in rows[:2]) == turned]
        found += some[:count]
    return [
        {
            "question": rows[0]["question"],
            "gold": rows[0]["gold"],
            "answers": [
                {"text": row["text"], "correct": row["correct"], "score": row[f"score_{verifier}"]} for row in rows
            ],
        }
        for rows in found
    ]


def render(revision: dict[str, Any], accuracy: dict[str, Any], console: Console) -> None:
    """Print what revising does: pass@1 by step, the splits of every budget, and how often answers turn."""
    shown = [row for row in revision["pass_at_1_by_step"] if row["step"] & (row["step"] - 1) == 0]
    table = tables.table("revisions: pass@1 in % by step of the chain", ["step", *(str(row["step"]) for row in shown)])
    table.add_row("pass@1", *map(tables.cell, shown))
    console.print(table)
    budgets = list(dict.fromkeys(row["n"] for row in revision["best_split"]))
    names = {n: [revisions.strategy_name(s, p) for s, p in revisions.pairs(n)] for n in budgets}
    for rule in revisions.SELECTORS:
        table = tables.table(f"accuracy in % of s answers a chain, p = N / s chains, {rule}", ["s", *map(str, budgets)])
        for i in range(max(budgets).bit_length()):
            cells = [tables.cell(accuracy[names[n][i]][rule]) if i < len(names[n]) else "" for n in budgets]
            table.add_row(str(1 << i), *cells)
        differences = [r for r in revision["sequential_minus_parallel"] if r["selector"] == rule]
        cells = {r["n"]: tables.difference_cell(r) for r in differences}
        table.add_row("one chain\n- parallel", *(cells.get(n, "") for n in budgets), style="dim")
        console.print(table)
    _render_bins(revision, console)
    _render_verifiers(revision, console)
    if revision["refine"]:
        shown = [row for row in revision["refine"] if not row["tries"] & (row["tries"] - 1)]
        table = tables.table(
            "refine: accuracy in % of what was kept after so many tries",
            ["tries", *(str(row["tries"]) for row in shown)],
        )
        table.add_row("accuracy", *map(tables.cell, shown))
        console.print(table)
    for what, turn in (("right", "right_to_wrong"), ("wrong", "wrong_to_right")):
        share = revision[turn]
        if share["mean"] is not None:
            text = (
                f"of {what} answers {100 * share['mean']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}] "
                f"turn {'wrong' if what == 'right' else 'right'} at the next step"
            )
            console.print(Shown(text), soft_wrap=True)


def _render_bins(revision: dict[str, Any], console: Console) -> None:
    bins = revision["per_bin"]
    n = next(iter(bins.values()))["n"]
    table = tables.table(f"difficulty bins (1 easiest) at N = {n}: the best split of the budget", ["bin", *bins])
    for rule in revisions.SELECTORS:
        best = [cells[rule]["best"] for cells in bins.values()]
        splits = ("by seed" if cell["s"] is None else f"{cell['s']} x {cell['p']}" for cell in best)
        table.add_row(f"best s x p, {rule}", *splits)
        table.add_row("chosen on the other half", *map(tables.cell, best))
        table.add_row("- parallel", *(tables.difference_cell(cell["minus_parallel"]) for cell in best), style="dim")
    console.print(table)


def _render_verifiers(revision: dict[str, Any], console: Console) -> None:
    budgets = list(next(iter(revision["verifiers"].values())))
    table = tables.table("verifiers of one chain of N answers: accuracy in %", ["N =", *budgets])
    for name, cells in revision["verifiers"].items():
        table.add_row(name, *map(tables.cell, cells.values()))
        rows = [r for r in revision["verifier_differences"] if {r["a"], r["b"]} == {revision["verifier"], name}]
        if rows:
            table.add_row(f"{rows[0]['a']} - {rows[0]['b']}", *map(tables.difference_cell, rows), style="dim")
    console.print(table)
    if (selection := revision["selection"]) is None:
        return
    found = ", ".join(f"{name} {100 * value:.1f}%" for name, value in selection["accuracy"].items())
    text = f"verifiers on {selection['questions']} training questions that none was trained on, right in: {found}"
    if selection["chosen"] != revision["verifier"]:
        text += f"; here {revision['verifier']} selects, as chains.verifier says"
    console.print(Shown(text), soft_wrap=True)


def step_rows(revision: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (step, chains, measure, mean, low, high) along the chains."""
    rows = [
        (row["step"], row["chains"], "pass_at_1", row["mean"], row["low"], row["high"])
        for row in revision["pass_at_1_by_step"]
    ]
    for flips in revision["flips_by_step"]:
        for turn in ("right_to_wrong", "wrong_to_right"):
            rows.append((flips["step"], "", turn, *(flips[turn][key] for key in ("mean", "low", "high"))))
    return rows


def bin_rows(revision: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (bins, bin, selector, strategy, mean, low, high) of every split of the largest budget by difficulty."""
    return [
        (bins, number, rule, strategy, cell["mean"], cell["low"], cell["high"])
        for bins, key in (("oracle", "per_bin"), ("predicted", "per_bin_predicted"))
        for number, cells in revision[key].items()
        for rule in revisions.SELECTORS
        for strategy, cell in cells[rule]["accuracy"].items()
    ]


def verifier_rows(revision: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (verifier, budget, mean, low, high) of one chain under every verifier."""
    return [
        (name, n, cell["mean"], cell["low"], cell["high"])
        for name, cells in revision["verifiers"].items()
        for n, cell in cells.items()
    ]


def accuracy_rows(accuracy: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (strategy, selector, mean, low, high) of everything that revises."""
    others = figures.by_budget(accuracy)
    return [
        (name, selector, cell["mean"], cell["low"], cell["high"])
        for name, cells in accuracy.items()
        if name not in others
        for selector, cell in cells.items()
    ]
