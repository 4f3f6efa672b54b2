"""The files of a report: tables and figures, from the numbers of its summary."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from etils import epath
from matplotlib.figure import Figure

from ttcjax.eval.collect import validated
from ttcjax.eval.report import figures, revision_figures, revision_report
from ttcjax.eval.sections import (
    baseline,
    budget,
    costs,
    families,
    larger_model,
    optimal,
    outcome,
    overoptimisation,
    revision_optimal,
    weak,
)
from ttcjax.eval.stats import verdicts
from ttcjax.runtime.files import write_bytes
from ttcjax.text.shown import shown

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet takes for a formula, in wide letters too: it would run what a model wrote. Tabs
and line breaks, which some strip before they look, are escapes by then."""
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


class _WithBaseline:
    """`Files` for figures, which get the line of the greedy answer where they show accuracies."""

    def __init__(self, files: Files, summary: dict[str, Any]):
        self._files, self._summary = files, summary

    def figure(self, name: str, drawn: Figure) -> None:
        with mpl.rc_context(figures.STYLE):
            baseline.draw(name, drawn, self._summary)
        self._files.figure(name, drawn)


def _csv_cell(value: Any) -> Any:
    """Return what a cell holds: numbers as they are, text as it is shown, after an apostrophe where it is a formula."""
    if not isinstance(value, str):
        return value
    text = shown(value, lines=False)
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) and not _NUMBER.fullmatch(text) else text


def read_csv(text: str) -> list[list[str]]:
    """Return the cells of a table's file, its header first, without the apostrophes before formulas."""
    return [
        [cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell for cell in row]
        for row in csv.reader(io.StringIO(text))
    ]


def write_tables(summary: dict[str, Any], files: Files) -> None:
    """Write every table that a summary has numbers for."""
    estimate = "mean low high"
    files.table("accuracy", f"strategy budget {estimate} questions", _accuracy_rows(summary))
    files.table("greedy", f"measure name group budget {estimate}", baseline.csv_rows(summary["greedy"]))
    files.table("by_subject", f"subject strategy budget {estimate}", families.search_rows(summary["by_subject"]))
    if summary.get("luck"):
        files.table("luck", f"subject {estimate}", families.luck_rows(summary["luck"]))
    files.table("per_level", f"level questions measure {estimate}", _level_rows(summary))
    if "validation" in summary["temperatures"]:
        found = validated.csv_rows(summary["temperatures"]["validation"])
        files.table("temperatures", f"strategy temperature chosen budget {estimate}", found)
    files.table("claims", " ".join(verdicts.COLUMNS), verdicts.csv_rows(summary["claims"]))
    files.table("aggregation", f"selector budget {estimate}", _aggregation_rows(summary))
    files.table("weak_verifiers", f"verifier measure budget {estimate}", weak.csv_rows(summary["weak_verifiers"]))
    exploited = summary["over_optimisation"]
    files.table("over_optimisation", f"strategy measure budget {estimate}", overoptimisation.csv_rows(exploited))
    files.table("verifier_by_difficulty", f"bin questions pooled {estimate}", overoptimisation.auroc_rows(exploited))
    if "compute" in summary:
        files.table("compute", "strategy budget measure value", costs.csv_rows(summary))
    if "compute_optimal" in summary:
        files.table("budget", f"part name m measure budget cost {estimate}", budget.csv_rows(summary["budget"]))
        files.table("by_difficulty", f"bins measure bin strategy budget {estimate}", optimal.csv_rows(summary))
    if "orm" in summary:
        files.table("verifiers", f"verifier selector budget {estimate}", outcome.csv_rows(summary["orm"]))
    if "revision" in summary:
        revision = summary["revision"]
        files.table("revision_steps", f"step chains measure {estimate}", revision_report.step_rows(revision))
        found = families.csv_rows(revision["families"])
        files.table("revision_families", f"subject measure at {estimate}", found)
        accuracy = revision_report.accuracy_rows(summary["accuracy"])
        files.table("revision_accuracy", f"strategy selector {estimate}", accuracy)
        files.table("revision_bins", f"bins bin selector strategy {estimate}", revision_report.bin_rows(revision))
        files.table("revision_verifiers", f"verifier budget {estimate}", revision_report.verifier_rows(revision))
        chosen = revision_optimal.csv_rows(revision["compute_optimal"])
        files.table("revision_by_difficulty", f"selector bins measure budget {estimate}", chosen)
    if "exchange" in summary:
        header = f"source measure convention group at kappa {estimate}"
        files.table("exchange", header, larger_model.csv_rows(summary["exchange"]))


def draw(summary: dict[str, Any], out: Files) -> None:
    """Draw every figure that a summary has numbers for, the greedy answer's line in those of accuracies."""
    files = _WithBaseline(out, summary)
    files.figure("accuracy_vs_budget", figures.accuracy_vs_budget(summary))
    files.figure("aggregation", figures.aggregation(summary))
    files.figure("quality", figures.quality(summary))
    files.figure("weak_verifiers", weak.figure(summary["weak_verifiers"]))
    files.figure("over_optimisation", overoptimisation.figure(summary["over_optimisation"]))
    if "compute" in summary:
        files.figure("accuracy_vs_flops", costs.figure(summary))
    if "compute_optimal" in summary:
        files.figure("budget", budget.figure(summary["budget"]))
        files.figure("by_difficulty", optimal.figure_of_bins(summary, "oracle"))
        files.figure("by_difficulty_predicted", optimal.figure_of_bins(summary, "predicted"))
        files.figure("compute_optimal", optimal.figure(summary))
    if "orm" in summary:
        files.figure("verifiers", outcome.figure(summary["orm"], summary["accuracy"].get("majority")))
    if "revision" in summary:
        for name, figure in revision_figures.ALL.items():
            files.figure(name, figure(summary["revision"], summary["accuracy"]))
        drawn = families.figure(summary["revision"]["families"], summary["revision"]["trained_answers"])
        files.figure("revision_families", drawn)
        files.figure("revision_by_difficulty", revision_optimal.figure(summary["revision"]["compute_optimal"]))
    if "exchange" in summary:
        files.figure("exchange", larger_model.figure(summary["exchange"]))


def _accuracy_rows(summary: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for strategy, points in figures.with_baselines(summary).items():
        for n, point in points.items():
            yield strategy, n, point["mean"], point["low"], point["high"], summary["questions"]
    for model, point in summary["greedy"]["accuracy"].items():
        yield f"greedy:{model}", 1, point["mean"], point["low"], point["high"], summary["questions"]


def _level_rows(summary: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for level, values in summary["per_level"].items():
        for measure, point in {"pass_at_1": values["pass_at_1"], **values["accuracy"]}.items():
            yield level, values["count"], measure, point["mean"], point["low"], point["high"]
        for model, point in values["greedy"].items():
            yield level, values["count"], f"greedy:{model}", point["mean"], point["low"], point["high"]


def _aggregation_rows(summary: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for how, points in summary["aggregation"].items():
        for n, point in points.items():
            yield how, n, point["mean"], point["low"], point["high"]
