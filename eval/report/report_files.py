"""The files of a report: tables and figures, from the numbers of its summary."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from etils import epath
from matplotlib.figure import Figure

from ttcjax.eval.report import catalogue, verdicts
from ttcjax.eval.report.drawing import figures
from ttcjax.eval.report.section import Summary
from ttcjax.eval.sections import baseline
from ttcjax.runtime.files import write_bytes
from ttcjax.text.shown import shown

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""Beginnings of a cell that a spreadsheet takes for a formula, in wide letters too: it would run what a model wrote.
Tabs and line breaks, which some strip before they look, are escapes by then."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Files:
    """Writes the tables and figures of a report, and keeps them for its page.

    Attributes:
        tables: Text of the CSV files, by name.
        figures: SVG of the figures, by name.
    """

    def __init__(self, out: epath.Path):
        self._out = out
        self.tables: dict[str, str] = {}
        self.figures: dict[str, bytes] = {}

    @property
    def names(self) -> list[str]:
        """The files that were written."""
        tables = [f"{name}.csv" for name in self.tables]
        return sorted([*tables, *(f"{name}.{kind}" for name in self.figures for kind in ("png", "svg"))])

    def table(self, name: str, header: str, lines: Iterable[Sequence[Any]]) -> None:
        """Write `name.csv`; the names of its columns stand in `header`, with blanks between."""
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(map(_csv_cell, line) for line in lines)
        self.tables[name] = sink.getvalue()
        write_bytes(self._out / f"{name}.csv", self.tables[name].encode())

    def figure(self, name: str, drawn: Figure) -> None:
        """Write `name.png` and `name.svg`."""
        self.figures[name] = figures.save(drawn, self._out, name)


def _csv_cell(value: Any) -> Any:
    """Return what a cell holds: numbers as they are, nothing for NaN, text as it is shown.

    Text that a spreadsheet takes for a formula stands after an apostrophe.
    """
    if not isinstance(value, str):
        return None if isinstance(value, float) and math.isnan(value) else value
    text = shown(value, lines=False)
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) and not _NUMBER.fullmatch(text) else text


def read_csv(text: str) -> list[list[str]]:
    """Return the cells of a table's file, its header first, without the apostrophes before formulas."""
    return [
        [cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell for cell in row]
        for row in csv.reader(io.StringIO(text))
    ]


def write_tables(summary: Summary, files: Files) -> None:
    """Write every table that a summary has numbers for."""
    files.table("claims", " ".join(verdicts.COLUMNS), verdicts.csv_rows(summary.claims))
    for section, found in catalogue.found(summary):
        for table in section.tables:
            rows = list(table.rows(found, summary))
            if rows:
                files.table(table.name, table.columns, rows)


def draw(summary: Summary, files: Files) -> None:
    """Draw every figure that a summary has numbers for, the greedy answer's line in those of accuracies."""
    for section, found in catalogue.found(summary):
        for drawing in section.drawings:
            drawn = drawing.draw(found, summary)
            if drawn is None:
                continue
            if drawing.greedy is not None:
                with mpl.rc_context(figures.STYLE):
                    baseline.draw(drawn, drawing.greedy(summary))
            files.figure(drawing.entry.name, drawn)
