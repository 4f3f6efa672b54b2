"""The temperature of every strategy, and how those were chosen that validation questions choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.collect.temperatures import Chosen
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, markup, tables
from ttcjax.eval.report.section import Section, Summary, Table
from ttcjax.eval.stats.intervals import Bootstrap, Estimate


@dataclass(frozen=True)
class Validation:
    """Accuracies on validation questions, and the choice made of them.

    Attributes:
        questions: How many.
        accuracy: Over them, by strategy, temperature and budget.
        chosen: The temperature that won, by strategy and budget.
    """

    questions: int
    accuracy: dict[str, dict[float, dict[int, Estimate]]]
    chosen: dict[str, dict[int, float]]


@dataclass(frozen=True)
class Temperatures:
    """Temperatures of sampling.

    Attributes:
        sampler: The sampler's.
        strategies: That at which each strategy samples, by strategy and budget.
        validation: How those were chosen that validation chooses; `None` without any.
    """

    sampler: float
    strategies: dict[str, dict[int, float]]
    validation: Validation | None = None


def validation(
    settings: SweepConfig, accuracy: Mapping[tuple[str, int], Mapping[float, np.ndarray]], won: Chosen
) -> Validation:
    """Return what was seen on validation, and what was chosen.

    Args:
        settings: `validated`, `temperatures`, `budgets` and `bootstrap` are used.
        accuracy: Each validation question's accuracy `[Q]`, by strategy and budget, and by temperature.
        won: The temperature that won, by strategy and budget.
    """
    questions = len(next(iter(next(iter(accuracy.values())).values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)
    return Validation(
        questions=questions,
        accuracy={
            name: {t: {n: bootstrap(accuracy[name, n][t]) for n in settings.budgets} for t in settings.temperatures}
            for name in settings.validated
        },
        chosen={name: {n: won[name, n] for n in settings.budgets} for name in settings.validated},
    )


def render(found: Validation, console: Console) -> None:
    """Print accuracy on validation by temperature and budget, and the temperature that each budget is tested at."""
    for name, by_temperature in found.accuracy.items():
        won = found.chosen[name]
        title = f"{figures.label(name)}: accuracy in % on {found.questions} validation questions"
        table = tables.table(title, ["temperature", *map(str, won)])
        for temperature, cells in by_temperature.items():
            table.add_row(str(temperature), *map(tables.cell, cells.values()))
        table.add_row("chosen", *(f"{t:g}" for t in won.values()), style="bold")
        console.print(table)


def csv_rows(found: Validation | None) -> list[tuple[Any, ...]]:
    """Return (strategy, temperature, chosen, budget, mean, low, high) of the validation questions."""
    if found is None:
        return []
    return [
        (name, t, str(t == found.chosen[name][n]).lower(), n, *cell.ends)
        for name, by_temperature in found.accuracy.items()
        for t, cells in by_temperature.items()
        for n, cell in cells.items()
    ]


class Tuned(Section[Temperatures]):
    """Temperatures of strategies."""

    name = "temperatures"
    result = Temperatures
    tables = (
        Table[Temperatures](
            "temperatures",
            "strategy temperature chosen budget mean low high",
            lambda found, _: csv_rows(found.validation),
        ),
    )

    def compute(self, records: Records) -> Temperatures:
        sweep, sampled_at = records.settings.sweep, records.measured.temperatures
        seen = validation(sweep, records.on_validation, records.chosen) if sweep.validated else None
        return Temperatures(records.settings.temperature, sampled_at, seen)

    def text(self, found: Temperatures, summary: Summary, console: Console) -> None:
        if found.validation is not None:
            render(found.validation, console)

    def html(self, found: Temperatures, summary: Summary) -> str:
        seen = found.validation
        if seen is None:
            return ""
        parts = []
        for name, by_temperature in seen.accuracy.items():
            won = seen.chosen[name]
            rows = [[str(t), *map(markup.cell, cells.values())] for t, cells in by_temperature.items()]
            rows.append(["chosen, and used on the test questions", *(f"{t:g}" for t in won.values())])
            caption = f"{markup.text(figures.label(name))}: accuracy in % on {seen.questions} validation questions"
            parts.append(markup.table(["temperature, N =", *map(str, won)], rows, caption))
        link = '<a href="temperatures.csv">temperatures.csv</a>'
        return f"<h3>Temperatures chosen on validation questions</h3>{''.join(parts)}<p>Numbers: {link}</p>"


SECTION = Tuned()
