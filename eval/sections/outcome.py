"""The outcome-reward model of base samples beside the process-reward model.

Snell et al. 2024, Fig. 14, and in the version of 2025 Figs. 13 and 15.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import ExperimentConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.stats.estimators import Samples, step_scores
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.text.terminal import Shown
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.quality import auroc

RULES = ("weighted", "best")
"""How a verifier selects: by votes that its scores weigh, or the sample with the highest score."""
_NAMES = {"prm": "PRM", "orm": "ORM"}
_RULE_NAMES = {"weighted": "best-of-N weighted", "best": "best-of-N"}


def comparable(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return why nothing follows from how the PRM and the ORM of base samples compare; `None` where something does.

    Both must have been trained on the same solutions, for as many steps, on as many tokens: else the better one may be
    better for having been trained more.

    Args:
        records: Those of the stages of a run, by name; of `prm` and `base_orm` the results are read.
    """
    results = [records.get(stage, {}).get("result") or {} for stage in ("prm", "base_orm")]
    for what, key in (("steps", "steps"), ("tokens", "tokens_seen")):
        prm, orm = (result.get(key) for result in results)
        if prm is None or orm is None:
            return f"it is not known on how many {what} each was trained"
        if prm != orm:
            return f"the PRM was trained on {prm:,} {what}, the ORM on {orm:,}"
    prm, orm = (result.get("learnt_from") for result in results)
    if prm is None or orm is None:
        return "it is not known which solutions each was trained on"
    return None if prm == orm else "they were trained on different solutions"


def summarise(config: ExperimentConfig, prm: pa.Table, orm: pa.Table, incomparable: str | None) -> dict[str, Any]:
    """Compare both verifiers as selectors of the same samples.

    Args:
        config: The experiment; the PRM's step scores become one by `prm.aggregate`, the ORM's score is its last.
        prm: Rows of the bank.
        orm: The same rows with the scores of the outcome-reward model.
        incomparable: What `comparable` returns of their training.

    Returns:
        `incomparable`; `accuracy[verifier][rule][n]` with intervals; paired over questions: `prm_minus_orm` (by rule
        and n), `weighted_minus_best[verifier][n]`, and, with budgets enough, what the largest budget brings:
        `gap_growth`, the weighted PRM - ORM there less that at `from` generations, and `late_gain[verifier][rule]`,
        accuracy there less that at `from`, a quarter of it; and `solution_auroc[verifier]`: how well the score of a
        whole sample tells right from wrong.
    """
    questions = sorted(set(prm["question"].to_pylist()))
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    tables_of = {"prm": (prm, config.prm.aggregate), "orm": (orm, "last")}
    accuracy: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    told_apart: dict[str, float] = {}
    for name, (table, how) in tables_of.items():
        samples = Samples.from_table(table, questions, config.sweep.samples).part(0, config.sweep.judged)
        accuracy[name] = {rule: {n: samples.accuracy(rule, how, n) for n in config.sweep.budgets} for rule in RULES}
        told_apart[name] = auroc(aggregate(step_scores(table), how), table["correct"].to_numpy())
    return {
        "incomparable": incomparable,
        "accuracy": {
            name: {
                rule: {str(n): dataclasses.asdict(bootstrap(values)) for n, values in by_budget.items()}
                for rule, by_budget in rules.items()
            }
            for name, rules in accuracy.items()
        },
        "prm_minus_orm": [
            {
                "n": n,
                "selector": rule,
                **dataclasses.asdict(bootstrap.paired(accuracy["prm"][rule][n], accuracy["orm"][rule][n])),
            }
            for rule in RULES
            for n in config.sweep.budgets
        ],
        "weighted_minus_best": {
            name: {
                str(n): dataclasses.asdict(bootstrap.paired(rules["weighted"][n], rules["best"][n]))
                for n in config.sweep.budgets
            }
            for name, rules in accuracy.items()
        },
        **_growth(config.sweep.budgets, accuracy, bootstrap),
        "solution_auroc": told_apart,
    }


def _growth(
    budgets: Sequence[int], accuracy: dict[str, dict[str, dict[int, np.ndarray]]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return `gap_growth` and `late_gain` where there is a smaller budget to compare the largest with."""
    largest, found = max(budgets), {}
    # The paper's comparison begins at 8.
    small = min(
        (n for n in budgets if 8 <= n < largest), default=min((n for n in budgets if 1 < n < largest), default=None)
    )
    if small is not None:
        gap = {n: accuracy["prm"]["weighted"][n] - accuracy["orm"]["weighted"][n] for n in (small, largest)}
        found["gap_growth"] = {"from": small, **dataclasses.asdict(bootstrap.paired(gap[largest], gap[small]))}
    if largest % 4 == 0 and largest // 4 in budgets:
        found["late_gain"] = {
            name: {
                rule: {
                    "from": largest // 4,
                    **dataclasses.asdict(bootstrap.paired(by_budget[largest], by_budget[largest // 4])),
                }
                for rule, by_budget in rules.items()
            }
            for name, rules in accuracy.items()
        }
    return found


def figure(summary: dict[str, Any], majority: dict[str, Any] | None = None) -> Figure:
    """Draw accuracy against the budget, by verifier and by how it selects.

    Args:
        summary: What `summarise` returns, with JSON's own types.
        majority: Accuracy of the majority vote by budget, for comparison.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(10.0, 3.9)
        for i, (where, rule) in enumerate(zip(drawn.subplots(1, 2, sharey=True), RULES, strict=True)):
            for j, (name, rules) in enumerate(summary["accuracy"].items()):
                figures.band(where, [int(n) for n in rules[rule]], list(rules[rule].values()), j, _NAMES[name])
            if majority is not None:
                figures.band(where, [int(n) for n in majority], majority.values(), len(_NAMES), "majority")
            figures.powers_of_two(where, [int(n) for n in summary["accuracy"]["prm"][rule]])
            where.set(xlabel="generation budget N", title=_RULE_NAMES[rule])
            if not i:
                where.set_ylabel("accuracy (%)")
        figures.legend_below(drawn)
        return drawn


def render(summary: dict[str, Any], console: Console) -> None:
    """Print both verifiers' accuracies by budget, and their paired differences."""
    budgets = list(summary["accuracy"]["prm"][RULES[0]])
    table = tables.table("verifiers of base samples: accuracy in % by budget", ["N =", *budgets])
    for rule in RULES:
        for name, rules in summary["accuracy"].items():
            table.add_row(f"{_RULE_NAMES[rule]}, {_NAMES[name]}", *map(tables.cell, rules[rule].values()))
        rows = [row for row in summary["prm_minus_orm"] if row["selector"] == rule]
        if summary["incomparable"] is None:
            table.add_row("PRM - ORM", *map(tables.difference_cell, rows), style="dim")
    console.print(table)
    if summary["incomparable"] is not None:
        text = f"which of the two verifiers is better cannot be told: {summary['incomparable']}"
        console.print(Shown(text), soft_wrap=True)


def csv_rows(summary: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
    """Return (verifier, selector, budget, mean, low, high)."""
    return [
        (name, rule, n, cell["mean"], cell["low"], cell["high"])
        for name, rules in summary["accuracy"].items()
        for rule, cells in rules.items()
        for n, cell in cells.items()
    ]
