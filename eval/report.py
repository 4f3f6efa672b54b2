"""The last stage: from bank and search rows to `summary.json`, tables and figures."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.text import Text

from ttcjax.config import ExperimentConfig, to_dict
from ttcjax.eval import (
    budget,
    chains,
    claims,
    exchange_report,
    figures,
    greedy,
    ledger,
    optimal,
    outcome,
    overoptimisation,
    page,
    report_files,
    rescore,
    revision_optimal,
    revision_report,
    revisions,
    rows,
    sweep,
    tables,
    verdicts,
    weak,
)
from ttcjax.eval.estimators import COLUMNS
from ttcjax.eval.exchange_report import Source
from ttcjax.eval.summary import (
    Measured,
    first_error_threshold,
    measure,
    plain,
    summarise,
    unreadable,
)
from ttcjax.files import write_bytes
from ttcjax.metrics import peak_rss_bytes
from ttcjax.runtime import records
from ttcjax.text.terminal import Shown

TIMING_KEYS = ("seconds", "compile_seconds", "peak_rss_bytes")
"""The keys of the summary that differ between two runs of the same config."""

logger = logging.getLogger(__name__)


def run(config: ExperimentConfig, workdir: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Write the report of an experiment.

    Reads `bank/`, `search/` and, if it is there, `prm/validation_scores.parquet` under `workdir`, and what the
    config turns on: `rescore/`, `trajectories/`, `chains/`, `greedy/`. Writes tables (CSV), figures (PNG and SVG) and
    the page with all of them (`index.html`) under `out`, and `summary.json` under `workdir`.

    Args:
        config: The experiment.
        workdir: Its folder, with the earlier stages complete.
        out: The folder of this stage.

    Returns:
        The content of `summary.json`; `files`.

    Raises:
        UserError: Results are missing, corrupt, or of another config.
    """
    began = time.perf_counter()
    workdir, files = epath.Path(workdir), report_files.Files(epath.Path(out))
    columns = (*COLUMNS, *ledger.COLUMNS, "gold", "finished")
    bank = overoptimisation.with_lines(rows.read_folder(workdir / "bank", columns), workdir / "bank")
    searches = sweep.search_cells(config)
    search = bank.slice(0, 0)
    if searches:
        search = overoptimisation.with_lines(rows.read_folder(workdir / "search", columns), workdir / "search")
    threshold, source = first_error_threshold(workdir / "prm" / "validation_scores.parquet")
    measured = measure(config, bank, search)
    summary = summarise(config, bank, measured, threshold=threshold, threshold_source=source)
    ease = measured.ease(config.prm.aggregate)
    trained, prompts = ledger.models(workdir), {}
    if trained is not None:
        prompts = ledger.prompt_tokens(config, workdir)
        summary["compute"] = plain(ledger.summarise(config, bank, search, prompts, trained))
    exploited = overoptimisation.summarise(config, bank, search)
    table, folder = (search, workdir / "search") if searches else (bank, workdir / "bank")
    exploited["examples"] = overoptimisation.examples(exploited, table, folder)
    summary["over_optimisation"] = plain(exploited)
    if config.orm.base:
        summary["orm"] = plain(outcome.summarise(config, bank, rescore.with_scores(bank, workdir / "rescore")))
    splits = None
    if config.revision.enabled:
        answers = chains.read(workdir / "chains")
        splits = revisions.splits(config, answers, ease["oracle"])
        found, accuracy = revisions.summarise(config, splits, ease["oracle"], ease["predicted"])
        found |= {"rest_em": config.revision.rest_em.chains > 0}
        found |= {"examples": revision_report.examples(answers, found["verifier"])}
        found |= {"compute_optimal": revision_optimal.summarise(config.sweep, splits, ease)}
        made = records.of_stages(workdir)["trajectories"]["result"]
        summary["revision"] = plain(found | {"trajectories": made})
        summary["accuracy"] |= plain(accuracy)
        if trained is not None:
            summary["compute"]["revisions"] = plain(ledger.revisions(config, answers, prompts, trained))
    if config.larger.enabled and trained is not None:
        found = _exchange(config, workdir, summary["compute"], measured, splits, ease["oracle"], prompts, trained)
        summary["exchange"] = plain(found)
    summary["claims"] = claims.summarise(summary)
    if measured.missing:
        logger.warning(
            "%d results are missing and count as wrong: see missing.csv of the report", len(measured.missing)
        )

    files.table("missing", "strategy budget question seed sample", measured.missing)
    files.table("unreadable", "strategy budget question seed sample why", unreadable(bank, search))
    report_files.write_tables(summary, files)
    report_files.draw(summary, files)
    summary |= _timing(workdir, began)
    text = page.html(summary, files.figures, files.tables, to_dict(config))
    write_bytes(epath.Path(out) / "index.html", text.encode())
    write_bytes(workdir / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary | {"files": [*files.names, "index.html", "../summary.json"]}


def _exchange(
    config: ExperimentConfig,
    workdir: epath.Path,
    costs: dict[str, Any],
    measured: Measured,
    splits: revisions.Splits | None,
    ease: Mapping[str, float],
    prompts: Mapping[str, int],
    trained: Mapping[str, ledger.Trained],
) -> dict[str, Any]:
    """Compare what searches, revisions and both together make of the policy with a larger model that answers once."""
    flops = {
        n: {name: cells[str(n)]["flops"] for name, cells in costs["per_question"].items()} for n in config.sweep.budgets
    }
    candidates = optimal.by_budget(optimal.verified(measured.accuracy))
    sources = {"search": Source(measured.samples.questions, candidates, flops, ("policy", "prm"))}
    if splits is not None:
        ratios = splits.by_ratio("hierarchical")
        flops = {n: {name: costs["revisions"][name]["flops"] for name in names} for n, names in ratios.items()}
        models = ("policy", "revision", f"orm/{config.orm.variants[0]}")
        sources["revisions"] = Source(splits.chains.questions, ratios, flops, models)
        sources["both"] = exchange_report.joined(sources["search"], sources["revisions"])
    tables = greedy.read(workdir / "greedy")
    right = {
        model: dict(zip(table["question"].to_pylist(), table["correct"].to_pylist(), strict=True))
        for model, table in tables.items()
    }
    tokens = np.mean([prompts[q] for q in ease]) + np.mean(tables["larger"]["tokens"].to_numpy())
    return exchange_report.summarise(config.sweep, sources, ease, right, trained, float(tokens))


def render(summary: dict[str, Any], console: Console) -> None:
    """Print a summary as tables: strategies by budget, differences, levels, and a line on the verifier."""
    by_budget = figures.by_budget(summary["accuracy"])
    strategies, budgets = list(by_budget), list(next(iter(by_budget.values())))
    table = tables.table(
        f"accuracy in % by budget N, {summary['questions']} questions, 95% intervals", ["N =", *budgets]
    )
    for strategy in strategies:
        table.add_row(figures.label(strategy), *map(tables.cell, summary["accuracy"][strategy].values()))
    table.add_row("any right (pass@N)", *map(tables.cell, summary["pass_at_k"].values()), style="dim")
    console.print(table)

    if summary["comparisons"]:
        table = tables.table("paired differences in points, 95% intervals", ["N =", *budgets])
        for a, b in dict.fromkeys((c["a"], c["b"]) for c in summary["comparisons"]):
            cells = [c for c in summary["comparisons"] if (c["a"], c["b"]) == (a, b)]
            table.add_row(
                f"{figures.label(a)}\n- {figures.label(b)}",
                *(tables.difference_cell({**cell, "mean": cell["difference"]}) for cell in cells),
            )
        console.print(table)

    levels = summary["per_level"]
    table = tables.table(f"accuracy in % by level at N = {budgets[-1]}", ["level", *levels])
    table.add_row("questions", *(str(level["count"]) for level in levels.values()), style="dim")
    table.add_row("pass@1", *(tables.cell(level["pass_at_1"]) for level in levels.values()))
    for strategy in strategies:
        table.add_row(figures.label(strategy), *(tables.cell(level["accuracy"][strategy]) for level in levels.values()))
    console.print(table)

    prm = summary["prm"]
    lines: list[Text | Shown] = [
        Text(""),
        Shown(
            f"policy: pass@1 {summary['pass_at_1']:.3f}, {100 * summary['unparsable']:.1f}% of its answers unparsable"
        ),
        Shown(
            f"verifier: step AUROC {_number(prm['step_auroc'])}, ECE {_number(prm['ece'])}, first-error F1 "
            f"{_number(prm['first_error_f1'])} (threshold {prm['first_error_threshold']:.2f}, "
            f"{prm['first_error_threshold_source']})"
        ),
    ]
    if summary["missing"]:
        missing = (f"{summary['missing']} results are missing and count as wrong", "bold red")
        lines.append(Text.assemble(missing, ": report/missing.csv"))
    for line in lines:
        console.print(line, soft_wrap=True)
    if "compute_optimal" in summary:
        optimal.render(summary, console)
        budget.render(summary["budget"], console)
    weak.render(summary["weak_verifiers"], console)
    if "over_optimisation" in summary:
        overoptimisation.render(summary["over_optimisation"], console)
    if "orm" in summary:
        outcome.render(summary["orm"], console)
    if "revision" in summary:
        revision_report.render(summary["revision"], summary["accuracy"], console)
        revision_optimal.render(summary["revision"]["compute_optimal"], console)
    if "exchange" in summary:
        exchange_report.render(summary["exchange"], console)
    if summary.get("claims"):
        verdicts.render(summary["claims"], console)


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


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
