"""The report of a study: that of a run, with every number over seeds, and beside it what each seed has."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from etils import epath
from rich.console import Console

from ttcjax.config import ExperimentConfig, config_hash, to_dict
from ttcjax.eval.report import catalogue, page, report, report_files, summary_file
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Seed, Summary
from ttcjax.eval.report.verdicts import Claim
from ttcjax.eval.sections import accuracy, base_samples
from ttcjax.eval.stats import draws, seeds
from ttcjax.eval.stats.draws import Draws
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import write_bytes
from ttcjax.text.terminal import Shown

Run = tuple[Summary, dict[str, Draws], int]
"""A run as `summary_file.read_run` returns it."""
SUMMARY = "study.json"
VERSION = 2
"""Raise it when the same summaries come to give another report."""


def run(config: ExperimentConfig, workdirs: Mapping[int, epath.Path], root: epath.Path) -> dict[str, Any]:
    """Write the report of a study.

    Reads `summary.json` and `report/draws.npz` of every seed. Writes tables, figures and the page under
    `<root>/report`, and `study.json` under `root`.

    Args:
        config: The experiment, with the seeds of the config itself.
        workdirs: The folder of each seed, its report complete.
        root: The folder of the study.

    Returns:
        The content of `study.json`; `files`.

    Raises:
        DamagedError: A file of a seed has other bytes than were written.
        UserError: Seeds were asked different numbers of questions.
    """
    began = time.perf_counter()
    runs = {number: summary_file.read_run(workdir) for number, workdir in workdirs.items()}
    summary = over_seeds(config, runs)
    known = tuple(
        Seed(number, workdir.name, found.config_hash, round(sum(found.seconds.values()), 3))
        for (number, workdir), (found, _, _) in zip(workdirs.items(), runs.values(), strict=True)
    )
    summary = replace(summary, seeds=known)
    files = report_files.Files(root / "report")
    report_files.write_tables(summary, files)
    columns = " ".join(f"seed_{number}" for number in workdirs)
    files.table("seeds", f"number mean low high se se_seeds {columns}", csv_rows(summary))
    report_files.draw(summary, files)
    summary = replace(summary, seconds={**summary.seconds, "study report": round(time.perf_counter() - began, 3)})
    text = page.html(summary, files.figures, files.tables, to_dict(config))
    write_bytes(root / "report" / "index.html", text.encode())
    summary_file.write(root / SUMMARY, summary)
    return summary_file.encode(summary) | {"files": [*files.names, "index.html", f"../{SUMMARY}"]}


def over_seeds(config: ExperimentConfig, runs: Mapping[int, Run]) -> Summary:
    """Return the summary over seeds, with the claims judged on it and the costs of all runs.

    Args:
        config: The experiment.
        runs: What `summary_file.read_run` returns, by the number of the seed.
    """
    counts = {number: questions for number, (_, _, questions) in runs.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in seed {number}" for number, count in counts.items())
        raise UserError(f"seeds have answers to unequal numbers of questions ({told}), and are compared on equal ones")
    found = [summary for summary, _, _ in runs.values()]
    encoded = [summary_file.encode(summary) for summary in found]
    combined = seeds.combine(encoded, [drawn for _, drawn, _ in runs.values()], next(iter(counts.values())))
    summary = report.judged(summary_file.decode({**combined, "claims": []}))
    stages = [stage for stage in found[0].seconds if all(stage in one.seconds for one in found)]
    return replace(
        summary,
        config_hash=config_hash(config),
        claims=tuple(_with_seeds(claim, found) for claim in summary.claims),
        seconds={stage: round(sum(one.seconds[stage] for one in found), 3) for stage in stages},
        compile_seconds=sum(one.compile_seconds for one in found),
        peak_rss_bytes=max(one.peak_rss_bytes for one in found),
    )


def _with_seeds(claim: Claim, found: Sequence[Summary]) -> Claim:
    """Return a claim with what each seed says of it; nothing where that speaks of another strategy or budget."""
    own = [next((one for one in summary.claims if one.claim == claim.claim), None) for summary in found]
    return replace(
        claim,
        per_seed=tuple(None if one is None else one.seen for one in own),
        held_per_seed=tuple(None if one is None else one.held for one in own),
    )


def csv_rows(summary: Summary) -> Iterator[Sequence[Any]]:
    """Yield (number, mean, low, high, se, se_seeds, each seed's value) of every estimate of a summary over seeds."""
    for path, cell in draws.cells(summary_file.encode(summary)["sections"]):
        name = next((name for name in seeds.VALUES if name in cell), None)
        if name is not None and seeds.PER_SEED in cell:
            numbers = (cell[name], cell["low"], cell["high"], cell.get("se"), cell.get("se_seeds"))
            yield (path.replace(draws.SEPARATOR, "."), *numbers, *cell[seeds.PER_SEED])


def render(summary: Summary, console: Console) -> None:
    """Print a summary over seeds as that of a run, and the accuracies of each seed."""
    numbers = [str(seed.seed) for seed in summary.seeds]
    report.render(summary, console)
    found = summary.of(accuracy.SECTION)
    largest = found.budgets[-1]
    table = tables.table(f"accuracy in % by seed at N = {largest}", ["seed", *numbers, "all"])
    rows = {"pass@1": summary.of(base_samples.SECTION).pass_at_1_interval} | {
        figures.label(name): cells[largest] for name, cells in found.strategies.items()
    }
    for name, cell in rows.items():
        values = ["n/a" if value is None else f"{100 * value:.1f}" for value in cell.per_seed]
        table.add_row(name, *values, tables.cell(cell))
    console.print(table)
    console.print(Shown(f"\n{page.certainty(summary)}"), soft_wrap=True)
    if summary.claims:
        told = []
        for i, number in enumerate(numbers):
            held = [claim.held_per_seed[i] for claim in summary.claims]
            told.append(f"seed {number}: {held.count('yes')} yes, {held.count('no')} no")
        console.print(Shown(f"claims by seed: {'; '.join(told)}"), soft_wrap=True)


def lines(root: epath.Path) -> list[str]:
    """Return where the files of a study's report lie, a line each."""
    folder = root / "report"
    names = catalogue.in_order(path.stem for path in folder.iterdir() if path.suffix == ".png")
    found = [f"{catalogue.line(name)}: {folder / f'{name}.png'}" for name in names]
    return [*found, f"all of it on one page: {folder / 'index.html'}", f"every number: {root / SUMMARY}"]
