"""The last stage: from bank and search rows to `summary.json`, tables and figures."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.text import Text

from ttcjax.config import ExperimentConfig
from ttcjax.eval.collect import greedy, temperatures
from ttcjax.eval.records import measured as measured_lib
from ttcjax.eval.records import sample_rows
from ttcjax.eval.records.bundle import Records, ReportSettings, right_answers, settings_of
from ttcjax.eval.report import catalogue, page, report_files, summary_file, verdicts
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Summary
from ttcjax.eval.sections import baseline
from ttcjax.eval.stats import draws
from ttcjax.eval.stats.estimators import COLUMNS
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime import records
from ttcjax.runtime.files import write_bytes
from ttcjax.runtime.progress import peak_rss_bytes
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.search import registry

TIMING_KEYS = ("seconds", "compile_seconds", "peak_rss_bytes")
"""The keys of the summary that differ between two runs of the same config."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """Everything that a report says, before it is written.

    Attributes:
        summary: But for what the stages took.
        drawn: The resamples behind its estimates, see `draws.take`.
        missing: The results that are not there and count as wrong: strategy, budget, question, seed and sample.
        unreadable: The samples without an answer: the same and the reason.
    """

    summary: Summary
    drawn: Mapping[str, draws.Draws]
    missing: Sequence[Sequence[Any]]
    unreadable: Sequence[Sequence[Any]]


def run(settings: ReportSettings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Write the report of an experiment.

    Writes tables (CSV), figures (PNG and SVG), the page with all of them (`index.html`) and `draws.npz`, and
    `summary.json` beside the stages' folders.

    Returns:
        The content of `summary.json`.

    Raises:
        UserError: See `results`.
    """
    began = time.perf_counter()
    workdir, out = sink.folder.parent, sink.folder
    found = of_records(Records(settings, workdir))
    summary, files = found.summary, report_files.Files(out)
    summary_file.write_draws(out / summary_file.DRAWS, found.drawn, summary.questions)
    if found.missing:
        count = len(found.missing)
        logger.warning("%d results are missing and count as wrong: see missing.csv of the report", count)
    files.table("missing", "strategy budget question seed sample", found.missing)
    files.table("unreadable", "strategy budget question seed sample why", found.unreadable)
    report_files.write_tables(summary, files)
    report_files.draw(summary, files)
    summary = dataclasses.replace(summary, **_timing(workdir, began))
    text = page.html(summary, files.figures, files.tables, json.loads(settings.shown))
    write_bytes(out / "index.html", text.encode())
    summary_file.write(workdir / summary_file.SUMMARY, summary)
    sink.lists(*files.names, summary_file.DRAWS, "index.html", f"../{summary_file.SUMMARY}")
    return summary_file.encode(summary)


def results(config: ExperimentConfig, workdir: epath.Path) -> Results:
    """Return what the rows of an experiment say, with the paper's claims.

    Args:
        config: The experiment.
        workdir: Its folder, with the earlier stages complete.

    Raises:
        UserError: Results are missing, corrupt, or of another config.
    """
    return of_records(Records(settings_of(config), workdir))


def of_records(found: Records) -> Results:
    """Return what records say: every section that is wanted, and claims on what they found."""
    sections = {section.name: found.of(section) for section in catalogue.SECTIONS if section.wanted(found)}
    settings = found.settings
    summary = Summary(settings.name, settings.config_hash, len(found.questions), len(found.missing), sections)
    encoded = summary_file.encode(summary)
    drawn = draws.take(encoded)
    # What is shown is what is written: numbers to so many decimals.
    summary = judged(summary_file.decode(encoded))
    return Results(summary, drawn, found.missing, list(measured_lib.unreadable(found.bank, found.search)))


def judged(summary: Summary) -> Summary:
    """Return a summary with the claims that its sections make."""
    claims = (claim for section, found in catalogue.found(summary) for claim in section.claims(found, summary))
    return dataclasses.replace(summary, claims=verdicts.in_order(claims))


def render_first(config: ExperimentConfig, workdir: epath.Path, console: Console) -> None:
    """Print the accuracies of strategies that need the bank alone, which is made early.

    Args:
        config: The experiment.
        workdir: Its folder, with the bank complete.
        console: Where to.
    """
    names = [name for name in config.sweep.strategies if not registry.named(name).searches]
    if not names or any("temperature=" in name for name in names):
        return
    alone = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, strategies=tuple(names)))
    columns = tuple(dict.fromkeys((*COLUMNS, "gold", "finished")))
    bank = sample_rows.read_folder(workdir / "bank", columns)
    measured = measured_lib.measure(
        measured_lib.Rules.of(alone), temperatures.rows_at(bank, config.sampler.temperature), bank.slice(0, 0)
    )
    bootstrap = Bootstrap(len(measured.levels), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    title = f"first accuracies in %, {len(measured.levels)} questions, 95% intervals; the report has all"
    table = tables.table(title, ["N =", *map(str, config.sweep.budgets)])
    for name, by_budget in measured.accuracy.items():
        points = (bootstrap(values) for values in by_budget.values())
        table.add_row(figures.label(name), *map(tables.cell, points))
    console.print(table)


def render_greedy(config: ExperimentConfig, workdir: epath.Path, console: Console) -> None:
    """Print how many of the greedy answers are right, when there is nothing yet to compare them with.

    Args:
        config: The experiment.
        workdir: Its folder, with the greedy stage complete.
        console: Where to.
    """
    for model, right in right_answers(greedy.read(workdir / "greedy")).items():
        bootstrap = Bootstrap(len(right), config.sweep.bootstrap, config.sweep.bootstrap_seed)
        cell = bootstrap(np.array(list(right.values()), np.float64))
        shown = f"{100 * cell.mean:.1f}% ({100 * cell.low:.0f} to {100 * cell.high:.0f})"
        console.print(f"{baseline.NAMES[model]}: right in {shown} of {len(right)} test questions", soft_wrap=True)


def render(summary: Summary, console: Console) -> None:
    """Print a summary: what each section says, and the claims."""
    for section, found in catalogue.found(summary):
        section.text(found, summary, console)
    if summary.missing:
        missing = (f"{summary.missing} results are missing and count as wrong", "bold red")
        console.print(Text.assemble(missing, ": report/missing.csv"), soft_wrap=True)
    if summary.claims:
        verdicts.render(summary.claims, console)


def _timing(workdir: epath.Path, began: float) -> dict[str, Any]:
    """Collect what the earlier stages cost; this stage's own seconds are those up to here."""
    seconds, compile_seconds, peak = {}, 0.0, peak_rss_bytes()
    for stage, record in records.of_stages(workdir).items():
        if stage != "report":
            seconds[stage] = record["seconds"]
            compile_seconds += record.get("compile_seconds", 0.0)
            peak = max(peak, record.get("peak_rss_bytes", 0))
    seconds["report"] = round(time.perf_counter() - began, 3)
    return {"seconds": seconds, "compile_seconds": compile_seconds, "peak_rss_bytes": peak}


STAGE = Stage(
    settings_of,
    run,
    needs=(
        *("data", "policy", "labels", "prm", "trajectories", "tune", "bank", "rescore", "search", "chains", "greedy"),
        "rescore_chains",
    ),
    writes=("../summary.json",),
    version=8,
)
