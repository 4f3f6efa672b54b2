"""The sections of a report, and every figure of it: which of the paper's it is.

Figures are numbered as in the first version of Snell et al. 2024 (arXiv 2408.03314v1), with the number of the version
at ICLR 2025 beside it where that is another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ttcjax.eval.report.section import Entry, Section, Summary
from ttcjax.eval.sections import accuracy, aggregation, base_samples, baseline, luck, paired, subjects, tuned
from ttcjax.eval.sections.revising import families, revision_optimal, revisions
from ttcjax.eval.sections.spending import budget, costs, larger_model, optimal
from ttcjax.eval.sections.verifying import outcome, overoptimisation, verifier_quality, weak

SECTIONS: tuple[Section[Any], ...] = (
    accuracy.SECTION,
    base_samples.SECTION,
    verifier_quality.SECTION,
    luck.SECTION,
    tuned.SECTION,
    paired.SECTION,
    aggregation.SECTION,
    optimal.SECTION,
    budget.SECTION,
    subjects.SECTION,
    weak.SECTION,
    overoptimisation.SECTION,
    outcome.SECTION,
    revisions.SECTION,
    revision_optimal.SECTION,
    families.SECTION,
    baseline.SECTION,
    costs.SECTION,
    larger_model.SECTION,
)
"""In the order of the terminal and of the page's diagnostics."""


def found(summary: Summary) -> Iterator[tuple[Section[Any], Any]]:
    """Yield every section that a summary has numbers of, with what it found."""
    for section in SECTIONS:
        if section.name in summary.sections:
            yield section, summary.of(section)


def figures() -> list[Entry]:
    """Return every figure in the order of the page: the paper's by number, then our own."""
    return sorted((drawing.entry for section in SECTIONS for drawing in section.drawings), key=_place)


def _place(entry: Entry) -> tuple[float, str]:
    number = re.match(r"\d+", entry.paper or entry.iclr)
    return (float(number[0]), entry.paper) if number else (float("inf"), "")


OTHERS = (
    ("Fig. 1 left", "the paper in short: lines of Figs. 4 and 8 again"),
    ("Figs. 2 and 5", "drawings of the methods"),
    ("Fig. 16 (ICLR 19)", "ReST^EM: the figure of Fig. 10 in a run with revision.rest_em.chains of 1 or more"),
    ("Figs. 17 to 23 (ICLR 20 to 26)", "examples of revisions: at the end of the diagnostics, with revision.enabled"),
    ("ICLR Fig. 16", "other base models: Fig. 3 right in a run with another model"),
)
"""Figures of the paper that no file of a report is, and where to find the like."""


def entry(name: str) -> Entry | None:
    """Return the entry of a figure's files, or `None` for one that is not listed."""
    return next((found for found in figures() if found.name == name), None)


def of_source(source: str, names: Iterable[str]) -> str | None:
    """Return which of the figures `names` a source means, see `Entry.answers`; `None` if it means none."""
    named = set(names)
    return next((found.name for found in figures() if found.name in named and found.answers(source)), None)


def line(name: str) -> str:
    """Return what a figure is in a few words, e.g. `Fig. 3 left: Accuracy by strategy and generation budget`."""
    found = entry(name)
    if found is None:
        return "figure"
    return f"{found.number}: {found.title}" if found.number else found.title


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of figures in the order of the page, those not listed last."""
    places = {found.name: i for i, found in enumerate(figures())}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
