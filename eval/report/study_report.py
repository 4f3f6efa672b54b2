"""The report of a study: that of a run, with every number over seeds, and beside it what each seed has."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath
from rich.console import Console

from ttcjax.config import ExperimentConfig, config_hash, to_dict
from ttcjax.eval.report import catalogue, claims, figures, page, report, report_files, tables
from ttcjax.eval.stats import draws, seeds
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import write_bytes
from ttcjax.text.terminal import Shown

SUMMARY = "study.json"
VERSION = 1
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
    runs = {number: read(workdir) for number, workdir in workdirs.items()}
    summary = over_seeds(config, runs)
    known = [{"seed": number, "workdir": workdir.name} for number, workdir in workdirs.items()]
    summary["seeds"] = [
        {**seed, "config_hash": found["config_hash"], "seconds": round(sum(found["seconds"].values()), 3)}
        for seed, (found, _, _) in zip(known, runs.values(), strict=True)
    ]
    files = report_files.Files(root / "report")
    report_files.write_tables(summary, files)
    columns = " ".join(f"seed_{number}" for number in workdirs)
    files.table("seeds", f"number mean low high se se_seeds {columns}", csv_rows(summary))
    report_files.draw(summary, files)
    summary["seconds"]["study report"] = round(time.perf_counter() - began, 3)
    text = page.html(summary, files.figures, files.tables, to_dict(config))
    write_bytes(root / "report" / "index.html", text.encode())
    write_bytes(root / SUMMARY, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary | {"files": [*files.names, "index.html", f"../{SUMMARY}"]}


def read(workdir: epath.Path) -> tuple[dict[str, Any], dict[str, draws.Draws], int]:
    """Return the summary of a complete run, the draws of its estimates and how many questions were resampled."""
    path = workdir / "summary.json"
    record = records.read_complete(workdir / "report")
    if record is None or records.faults(workdir / "report", record):
        raise records.damaged(path, "its report is not complete")
    return (json.loads(path.read_text()), *draws.read(workdir / "report" / draws.FILE))


def over_seeds(
    config: ExperimentConfig, runs: Mapping[int, tuple[dict[str, Any], dict[str, draws.Draws], int]]
) -> dict[str, Any]:
    """Return the summary over seeds, with the claims judged on it and the costs of all runs.

    Args:
        config: The experiment.
        runs: What `read` returns, by the number of the seed.
    """
    counts = {number: questions for number, (_, _, questions) in runs.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in seed {number}" for number, count in counts.items())
        raise UserError(f"seeds have answers to unequal numbers of questions ({told}), and are compared on equal ones")
    found = [summary for summary, _, _ in runs.values()]
    combined = seeds.combine(found, [drawn for _, drawn, _ in runs.values()], next(iter(counts.values())))
    combined["config_hash"] = config_hash(config)
    combined["claims"] = claims.summarise(combined)
    for claim in combined["claims"]:
        own = [_claim_of(summary, claim) for summary in found]
        claim[seeds.PER_SEED] = [None if one is None else one["seen"] for one in own]
        claim["held_per_seed"] = [None if one is None else one["held"] for one in own]
    stages = {stage: [s["seconds"][stage] for s in found if stage in s["seconds"]] for stage in combined["seconds"]}
    combined["seconds"] = {stage: round(sum(seconds), 3) for stage, seconds in stages.items()}
    combined["compile_seconds"] = sum(summary["compile_seconds"] for summary in found)
    combined["peak_rss_bytes"] = max(summary["peak_rss_bytes"] for summary in found)
    return combined


def _claim_of(summary: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the same claim of one seed; none where that speaks of another strategy or budget."""
    return next((one for one in summary["claims"] if one["claim"] == claim["claim"]), None)


def csv_rows(summary: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield (number, mean, low, high, se, se_seeds, each seed's value) of every estimate of a summary over seeds."""
    for path, cell in draws.cells(dict(summary)):
        name = next((name for name in seeds.VALUES if name in cell), None)
        if name is not None and seeds.PER_SEED in cell:
            numbers = (cell[name], cell["low"], cell["high"], cell.get("se"), cell.get("se_seeds"))
            yield (path.replace(draws.SEPARATOR, "."), *numbers, *cell[seeds.PER_SEED])


def render(summary: dict[str, Any], console: Console) -> None:
    """Print a summary over seeds as that of a run, and the accuracies of each seed."""
    numbers = [str(seed["seed"]) for seed in summary["seeds"]]
    report.render(summary, console)
    accuracy = figures.by_budget(summary["accuracy"])
    largest = list(next(iter(accuracy.values())))[-1]
    table = tables.table(f"accuracy in % by seed at N = {largest}", ["seed", *numbers, "all"])
    rows = {"pass@1": summary["pass_at_1_interval"]} | {
        figures.label(name): cells[largest] for name, cells in accuracy.items()
    }
    for name, cell in rows.items():
        values = [f"{100 * value:.1f}" for value in cell[seeds.PER_SEED]]
        table.add_row(name, *values, tables.cell(cell))
    console.print(table)
    console.print(Shown(f"\n{page.certainty(summary)}"), soft_wrap=True)
    if summary.get("claims"):
        told = []
        for i, number in enumerate(numbers):
            held = [claim["held_per_seed"][i] for claim in summary["claims"]]
            told.append(f"seed {number}: {held.count('yes')} yes, {held.count('no')} no")
        console.print(Shown(f"claims by seed: {'; '.join(told)}"), soft_wrap=True)


def lines(root: epath.Path) -> list[str]:
    """Return where the files of a study's report lie, a line each."""
    folder = root / "report"
    names = catalogue.in_order(path.stem for path in folder.iterdir() if path.suffix == ".png")
    found = [f"{catalogue.line(name)}: {folder / f'{name}.png'}" for name in names]
    return [*found, f"all of it on one page: {folder / 'index.html'}", f"every number: {root / SUMMARY}"]
