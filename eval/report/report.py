"""The last stage: from bank and search rows to `summary.json`, tables and figures."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath
from rich.console import Console
from rich.text import Text

from ttcjax.config import ExperimentConfig, to_dict
from ttcjax.data import loader
from ttcjax.eval.collect import greedy, rescore, revision_chains, temperatures, validated
from ttcjax.eval.collect import searches as sweep
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.eval.report import claims, figures, page, report_files, revision_report, tables
from ttcjax.eval.sections import (
    baseline,
    budget,
    families,
    larger_model,
    optimal,
    outcome,
    overoptimisation,
    revision_optimal,
    revisions,
    weak,
)
from ttcjax.eval.sections import costs as ledger
from ttcjax.eval.sections.accuracy import Measured, first_error_threshold, measure, plain, summarise, unreadable
from ttcjax.eval.sections.larger_model import Source
from ttcjax.eval.stats import draws, verdicts
from ttcjax.eval.stats.estimators import COLUMNS
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime import records
from ttcjax.runtime.files import write_bytes
from ttcjax.runtime.progress import peak_rss_bytes
from ttcjax.search import registry, revision_verifiers
from ttcjax.text.terminal import Shown

TIMING_KEYS = ("seconds", "compile_seconds", "peak_rss_bytes")
"""The keys of the summary that differ between two runs of the same config."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """Everything that a report says, before it is written.

    Attributes:
        summary: The content of `summary.json` but for what the stages took.
        drawn: The resamples behind its estimates, see `draws.take`.
        missing: The results that are not there and count as wrong: strategy, budget, question, seed and sample.
        unreadable: The samples without an answer: the same and the reason.
    """

    summary: dict[str, Any]
    drawn: Mapping[str, draws.Draws]
    missing: Sequence[Sequence[Any]]
    unreadable: Sequence[Sequence[Any]]


def run(config: ExperimentConfig, workdir: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Write the report of an experiment.

    Writes tables (CSV), figures (PNG and SVG), the page with all of them (`index.html`) and `draws.npz` under `out`,
    and `summary.json` under `workdir`.

    Args:
        config: As for `results`.
        workdir: As for `results`.
        out: The folder of this stage.

    Returns:
        The content of `summary.json`; `files`.

    Raises:
        UserError: See `results`.
    """
    began = time.perf_counter()
    workdir, out = epath.Path(workdir), epath.Path(out)
    found = results(config, workdir)
    summary, files = found.summary, report_files.Files(out)
    draws.write(out / draws.FILE, found.drawn, summary["questions"])
    if found.missing:
        count = len(found.missing)
        logger.warning("%d results are missing and count as wrong: see missing.csv of the report", count)
    files.table("missing", "strategy budget question seed sample", found.missing)
    files.table("unreadable", "strategy budget question seed sample why", found.unreadable)
    report_files.write_tables(summary, files)
    report_files.draw(summary, files)
    summary |= _timing(workdir, began)
    text = page.html(summary, files.figures, files.tables, to_dict(config))
    write_bytes(out / "index.html", text.encode())
    write_bytes(workdir / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary | {"files": [*files.names, draws.FILE, "index.html", "../summary.json"]}


def results(config: ExperimentConfig, workdir: epath.Path) -> Results:
    """Return what the rows of an experiment say, with the paper's claims.

    Reads `bank/`, `search/`, `greedy/` and, if it is there, `prm/validation_scores.parquet` under `workdir`, and what
    the config turns on: `rescore/`, `trajectories/`, `chains/`.

    Args:
        config: The experiment.
        workdir: Its folder, with the earlier stages complete.

    Raises:
        UserError: Results are missing, corrupt, or of another config.
    """
    columns = tuple(dict.fromkeys((*COLUMNS, *ledger.COLUMNS, "gold", "finished", "subject")))
    bank = overoptimisation.with_lines(sample_rows.read_folder(workdir / "bank", columns), workdir / "bank")
    searches = sweep.search_cells(config)
    search = bank.slice(0, 0)
    if searches:
        search = overoptimisation.with_lines(sample_rows.read_folder(workdir / "search", columns), workdir / "search")
    threshold, source = first_error_threshold(workdir / "prm" / "validation_scores.parquet")
    chosen = validated.chosen(config, workdir / "tune")
    base = temperatures.rows_at(bank, config.sampler.temperature)
    measured = measure(config, bank, search, chosen=chosen)
    summary = summarise(config, base, measured, threshold=threshold, threshold_source=source)
    ease = measured.ease(config.prm.aggregate)
    trained, prompts, references = ledger.models(workdir), {}, None
    if trained is not None:
        prompts = ledger.prompt_tokens(config, workdir)
        references = {example.id: example.solution for example in loader.load(config.data, workdir / "data")[1].test}
        summary["compute"] = plain(ledger.summarise(config, bank, search, prompts, trained, chosen))
    answered = greedy.read(workdir / "greedy")
    right = baseline.right_answers(answered)
    questions = measured.samples.questions
    lost = [*measured.missing, *baseline.missing(right, questions)]
    summary["missing"] = len(lost)
    if trained is not None:
        summary["compute"]["greedy"] = plain(ledger.greedy(answered, prompts, trained))
    once = baseline.summarise(config.sweep, right, questions, measured.levels, measured.accuracy, ease)
    for level, points in plain(once.pop("per_level")).items():
        summary["per_level"][level]["greedy"] = points
    summary["greedy"] = plain(once)
    subjects = dict(zip(*(bank[name].to_pylist() for name in ("question", "subject")), strict=True))
    summary["luck"] = plain(families.luck(config, base))
    by_question = [subjects.get(question, "") for question in questions]
    ended_right = np.array([right["policy"].get(question, False) for question in questions])
    summary["by_subject"] = plain(families.searches(config, by_question, ended_right, measured.accuracy))
    exploited = overoptimisation.summarise(config, bank, search, references, chosen)
    table, folder = (search, workdir / "search") if searches else (bank, workdir / "bank")
    exploited["examples"] = overoptimisation.examples(exploited, table, folder)
    summary["over_optimisation"] = plain(exploited)
    if config.orm.base:
        scores = verifier_scores.read_folder(workdir / "rescore")
        rescored = verifier_scores.judged_by(base, scores, rescore.VERIFIER)
        incomparable = outcome.comparable(records.of_stages(workdir))
        summary["orm"] = plain(outcome.summarise(config, base, rescored, incomparable))
    if config.sweep.validated:
        summary["temperatures"]["validation"] = plain(validated.summarise(config, workdir / "tune"))
    splits = None
    if config.revision.enabled:
        answers = revision_chains.read(workdir / "chains")
        verifier, made = revision_verifiers.chosen(config, workdir), records.of_stages(workdir)
        splits = revisions.splits(config, answers, ease["oracle"], verifier)
        task = loader.load(config.data, workdir / "data")[0]
        found, accuracy = revisions.summarise(config, splits, ease["oracle"], ease["predicted"])
        found |= {"rest_em": config.revision.rest_em.chains > 0}
        found |= {"examples": revision_report.examples(answers, found["verifier"])}
        found |= {"compute_optimal": revision_optimal.summarise(config.sweep, splits, ease)}
        found |= {"families": families.summarise(config, splits, answers, subjects, task.attempts_inform)}
        by_selector = {rule: splits.by_ratio(rule) for rule in revisions.SELECTORS}
        once = baseline.of_chains(config.sweep, right["policy"], splits.chains.questions, by_selector, ease)
        summary["greedy"]["chains"] = plain(once)
        found |= {"selection": made["orm"]["result"][revision_verifiers.SELECTION] if "orm" in made else None}
        summary["revision"] = plain(found | {"trajectories": made["trajectories"]["result"]})
        summary["accuracy"] |= plain(accuracy)
        if trained is not None:
            summary["compute"]["revisions"] = plain(ledger.revisions(config, answers, prompts, trained, verifier))
    if config.larger.enabled and trained is not None:
        found = _exchange(config, answered, summary["compute"], measured, splits, ease["oracle"], prompts, trained)
        summary["exchange"] = plain(found)
    drawn = draws.take(summary)
    summary["claims"] = claims.summarise(summary)
    return Results(summary, drawn, lost, list(unreadable(bank, search)))


def _exchange(
    config: ExperimentConfig,
    answered: Mapping[str, pa.Table],
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
        models = ("policy", "revision", revision_verifiers.stage_of(splits.verifier))
        sources["revisions"] = Source(splits.chains.questions, ratios, flops, models)
        sources["both"] = larger_model.joined(sources["search"], sources["revisions"])
    tokens = np.mean([prompts[q] for q in ease]) + np.mean(answered["larger"]["tokens"].to_numpy())
    right = baseline.right_answers(answered)
    return larger_model.summarise(config.sweep, sources, ease, right, trained, float(tokens))


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
    measured = measure(alone, temperatures.rows_at(bank, config.sampler.temperature), bank.slice(0, 0))
    bootstrap = Bootstrap(len(measured.levels), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    title = f"first accuracies in %, {len(measured.levels)} questions, 95% intervals; the report has all"
    table = tables.table(title, ["N =", *map(str, config.sweep.budgets)])
    for name, by_budget in measured.accuracy.items():
        points = (dataclasses.asdict(bootstrap(values)) for values in by_budget.values())
        table.add_row(figures.label(name), *map(tables.cell, points))
    console.print(table)


def render_greedy(config: ExperimentConfig, workdir: epath.Path, console: Console) -> None:
    """Print how many of the greedy answers are right, when there is nothing yet to compare them with.

    Args:
        config: The experiment.
        workdir: Its folder, with the greedy stage complete.
        console: Where to.
    """
    for model, right in baseline.right_answers(greedy.read(workdir / "greedy")).items():
        bootstrap = Bootstrap(len(right), config.sweep.bootstrap, config.sweep.bootstrap_seed)
        cell = bootstrap(np.array(list(right.values()), np.float64))
        shown = f"{100 * cell.mean:.1f}% ({100 * cell.low:.0f} to {100 * cell.high:.0f})"
        console.print(f"{baseline.NAMES[model]}: right in {shown} of {len(right)} test questions", soft_wrap=True)


def render(summary: dict[str, Any], console: Console) -> None:
    """Print a summary as tables: strategies by budget, differences, levels, and a line on the verifier."""
    by_budget = figures.by_budget(summary["accuracy"])
    once = summary.get("greedy", {"accuracy": {}, "minus": {}})  # Summaries made before there was one have none.
    strategies, budgets = list(by_budget), list(next(iter(by_budget.values())))
    table = tables.table(
        f"accuracy in % by budget N, {summary['questions']} questions, 95% intervals", ["N =", *budgets]
    )
    for strategy in strategies:
        table.add_row(figures.label(strategy), *map(tables.cell, summary["accuracy"][strategy].values()))
    for alone, points in figures.with_baselines(summary).items():
        if alone not in strategies:
            table.add_row(figures.label(alone), *map(tables.cell, points.values()))
    table.add_row("any right (pass@N)", *map(tables.cell, summary["pass_at_k"].values()), style="dim")
    for model, point in once["accuracy"].items():
        table.add_row(baseline.NAMES[model], tables.cell(point))
    console.print(table)

    table = tables.table("paired differences in points, 95% intervals", ["N =", *budgets])
    for a, b in dict.fromkeys((c["a"], c["b"]) for c in summary["comparisons"]):
        cells = [c for c in summary["comparisons"] if (c["a"], c["b"]) == (a, b)]
        table.add_row(
            f"{figures.label(a)}\n- {figures.label(b)}",
            *(tables.difference_cell({**cell, "mean": cell["difference"]}) for cell in cells),
        )
    for strategy, cells in once["minus"].items():
        table.add_row(f"{figures.label(strategy)}\n- greedy", *map(tables.difference_cell, cells.values()))
    if table.row_count:
        console.print(table)

    levels = summary["per_level"]
    table = tables.table(f"accuracy in % by level at N = {budgets[-1]}", ["level", *levels])
    table.add_row("questions", *(str(level["count"]) for level in levels.values()), style="dim")
    table.add_row("pass@1", *(tables.cell(level["pass_at_1"]) for level in levels.values()))
    for strategy in strategies:
        table.add_row(figures.label(strategy), *(tables.cell(level["accuracy"][strategy]) for level in levels.values()))
    for model in once["accuracy"]:
        points = (level["greedy"][model] for level in levels.values())
        table.add_row(baseline.NAMES[model], *map(tables.cell, points))
    console.print(table)

    prm = summary["prm"]
    lines: list[Text | Shown] = [
        Text(""),
        Shown(
            f"policy: pass@1 {summary['pass_at_1']:.3f}, {100 * summary['unparsable']:.1f}% of its answers unparsable"
        ),
        Shown(
            f"verifier: step AUROC {_number(prm['step_auroc'])}, ECE of {prm['ece_steps']} steps "
            f"{_number(prm['ece'])}, first-error F1 {_number(prm['first_error_f1'])} (threshold "
            f"{prm['first_error_threshold']:.2f}, {prm['first_error_threshold_source']})"
        ),
    ]
    if summary.get("luck"):
        share = summary["luck"]["all"]
        text = f"right by luck: {100 * share['mean']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
        lines.append(Shown(f"{text} of right samples hold a false step"))
    if summary["missing"]:
        missing = (f"{summary['missing']} results are missing and count as wrong", "bold red")
        lines.append(Text.assemble(missing, ": report/missing.csv"))
    for line in lines:
        console.print(line, soft_wrap=True)
    if "validation" in summary.get("temperatures", {}):
        validated.render(summary["temperatures"]["validation"], console)
    if "compute_optimal" in summary:
        optimal.render(summary, console)
        budget.render(summary["budget"], console)
    if len(summary.get("by_subject", ())) > 1:
        families.render_searches(summary["by_subject"], console)
    weak.render(summary["weak_verifiers"], console)
    if "over_optimisation" in summary:
        overoptimisation.render(summary["over_optimisation"], console)
    if "orm" in summary:
        outcome.render(summary["orm"], console)
    if "revision" in summary:
        revision_report.render(summary["revision"], summary["accuracy"], console)
        revision_optimal.render(summary["revision"]["compute_optimal"], console)
        families.render(summary["revision"]["families"], console)
        if "chains" in once:
            baseline.render_chains(once["chains"], console)
    if "exchange" in summary:
        larger_model.render(summary["exchange"], console)
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
