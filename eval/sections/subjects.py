"""Strategies by the subject of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import tables
from ttcjax.eval.report.section import Section, Summary, Table
from ttcjax.eval.sections import paired
from ttcjax.eval.sections.paired import WEIGHTED
from ttcjax.eval.stats.intervals import Bootstrap, Estimate


@dataclass(frozen=True)
class Subject:
    """Questions of one subject.

    Attributes:
        questions: How many.
        greedy: Accuracy of one greedy answer.
        accuracy: By strategy and budget.
        beyond_weighted: A search less best-of-N weighted, by search and budget, over the same questions.
    """

    questions: int
    greedy: Estimate
    accuracy: dict[str, dict[int, Estimate]]
    beyond_weighted: dict[str, dict[int, Estimate]]


@dataclass(frozen=True)
class Subjects:
    """Strategies by subject.

    Attributes:
        subjects: By name.
    """

    subjects: dict[str, Subject]


def compare(
    settings: SweepConfig,
    subjects: Sequence[str],
    greedy: np.ndarray,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
) -> Subjects:
    """Compute what strategies do by subject.

    Args:
        settings: `budgets` and `bootstrap` are used.
        subjects: Of every question.
        greedy: Which of them one greedy answer gets right.
        accuracy: Each question's accuracy, by strategy and budget.
    """
    of, budgets = np.asarray(subjects), settings.budgets
    bootstrap = Bootstrap(len(of), settings.bootstrap, settings.bootstrap_seed)
    above = paired.searches(accuracy) if WEIGHTED in accuracy else []
    found = {}
    for subject in sorted(set(subjects)):
        inside = of == subject
        found[subject] = Subject(
            questions=int(inside.sum()),
            greedy=bootstrap(greedy.astype(np.float64), inside),
            accuracy={name: {n: bootstrap(cells[n], inside) for n in budgets} for name, cells in accuracy.items()},
            beyond_weighted={
                name: {
                    n: bootstrap.difference(accuracy[name][n] - accuracy[WEIGHTED][n], inside) for n in budgets if n > 1
                }
                for name in above
            },
        )
    return Subjects(found)


def csv_rows(found: Subjects) -> list[tuple[Any, ...]]:
    """Return (subject, strategy, budget, mean, low, high) of every strategy by subject."""
    rows: list[tuple[Any, ...]] = []
    for name, subject in found.subjects.items():
        rows.append((name, "greedy", 1, *subject.greedy.ends))
        lines = dict(subject.accuracy)
        lines |= {f"{search} - {WEIGHTED}": cells for search, cells in subject.beyond_weighted.items()}
        rows += [(name, line, n, *cell.ends) for line, cells in lines.items() for n, cell in cells.items()]
    return rows


def render(found: Subjects, console: Console) -> None:
    """Print every strategy at its largest budget by subject."""
    first = next(iter(found.subjects.values())).accuracy
    largest = list(next(iter(first.values())))[-1]
    table = tables.table(f"accuracy in % by subject at N = {largest}", ["subject", "greedy", *first])
    for name, subject in found.subjects.items():
        points = [subject.greedy, *(cells[largest] for cells in subject.accuracy.values())]
        table.add_row(name, *map(tables.cell, points))
    console.print(table)


class BySubject(Section[Subjects]):
    """Strategies by subject."""

    name = "by_subject"
    result = Subjects
    tables = (Table[Subjects]("by_subject", "subject strategy budget mean low high", lambda found, _: csv_rows(found)),)

    def compute(self, records: Records) -> Subjects:
        subjects, right = records.subjects, records.right["policy"]
        ended_right = np.array([right.get(question, False) for question in records.questions])
        of_each = [subjects.get(question, "") for question in records.questions]
        return compare(records.settings.sweep, of_each, ended_right, records.measured.accuracy)

    def text(self, found: Subjects, summary: Summary, console: Console) -> None:
        if len(found.subjects) > 1:
            render(found, console)


SECTION = BySubject()
