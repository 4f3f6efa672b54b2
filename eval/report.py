"""The last stage: from bank and search rows to `summary.json`, tables and figures."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from rich.console import Console

from ttcjax.config import ExperimentConfig, config_hash, to_dict
from ttcjax.errors import UserError
from ttcjax.eval import (
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
    paired,
    report_files,
    rescore,
    revision_optimal,
    revision_report,
    revisions,
    rows,
    tables,
    weak,
)
from ttcjax.eval.difficulty import quantile_bins
from ttcjax.eval.estimators import (
    COLUMNS,
    Bootstrap,
    Samples,
    StrategyName,
    pass_at_k,
    step_scores,
    with_step_truth,
)
from ttcjax.eval.exchange_report import Source
from ttcjax.files import write_bytes
from ttcjax.metrics import peak_rss_bytes
from ttcjax.parquet import read_shard
from ttcjax.search import registry
from ttcjax.verify.aggregate import AGGREGATIONS, aggregate
from ttcjax.verify.metrics import VALIDATION_SCHEMA, auroc, best_threshold, brier, first_error, reliability

TIMING_KEYS = ("seconds", "compile_seconds", "peak_rss_bytes")
"""The keys of the summary that differ between two runs of the same config."""

DEFAULT_THRESHOLD = 0.5
_HISTOGRAM_BINS = 10

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
        The content of `summary.json`.

    Raises:
        UserError: Results are missing, corrupt, or of another config.
    """
    began = time.perf_counter()
    workdir, files = epath.Path(workdir), report_files.Files(epath.Path(out))
    columns = (*COLUMNS, *ledger.COLUMNS, "gold")
    bank = overoptimisation.with_lines(rows.read_folder(workdir / "bank", columns), workdir / "bank")
    searches = [name for name in config.sweep.strategies if not StrategyName.parse(name).from_bank]
    search = bank.slice(0, 0)
    if searches:
        search = overoptimisation.with_lines(rows.read_folder(workdir / "search", columns), workdir / "search")
    threshold, source = first_error_threshold(workdir / "prm" / "validation_scores.parquet")
    measured = measure(config, bank, search)
    summary, missing = summarise(config, bank, search, threshold=threshold, threshold_source=source, measured=measured)
    ease = {"oracle": ease_of_questions(bank), "predicted": predicted_ease(bank, config.prm.aggregate)}
    trained, prompts = ledger.models(workdir), {}
    if trained is not None:
        prompts = ledger.prompt_tokens(config, workdir)
        summary["compute"] = _plain(ledger.summarise(config, bank, search, prompts, trained))
    exploited = overoptimisation.summarise(config, bank, search)
    table, folder = (search, workdir / "search") if searches else (bank, workdir / "bank")
    exploited["examples"] = overoptimisation.examples(exploited, table, folder)
    summary["over_optimisation"] = _plain(exploited)
    if config.orm.base:
        summary["orm"] = _plain(outcome.summarise(config, bank, rescore.with_scores(bank, workdir / "rescore")))
    splits = None
    if config.revision.enabled:
        answers = chains.read(workdir / "chains")
        splits = revisions.splits(config, answers, ease["oracle"])
        found, accuracy = revisions.summarise(config, splits, ease["oracle"], ease["predicted"])
        found |= {"rest_em": config.revision.rest_em.chains > 0}
        found |= {"examples": revision_report.examples(answers, found["verifier"])}
        found |= {"compute_optimal": revision_optimal.summarise(config.sweep, splits, ease)}
        made = json.loads((workdir / "trajectories" / "stage.json").read_text())["result"]
        summary["revision"] = _plain(found | {"trajectories": made})
        summary["accuracy"] |= _plain(accuracy)
        if trained is not None:
            summary["compute"]["revisions"] = _plain(ledger.revisions(config, answers, prompts, trained))
    if config.larger.enabled and trained is not None:
        found = _exchange(config, workdir, summary["compute"], measured, splits, ease["oracle"], prompts, trained)
        summary["exchange"] = _plain(found)
    summary["claims"] = claims.summarise(summary)
    if missing:
        logger.warning("%d results are missing and count as wrong: see missing.csv of the report", len(missing))

    files.table("missing", "strategy budget question seed sample", missing)
    report_files.write_tables(summary, files)
    report_files.draw(summary, files)
    summary |= _timing(workdir, began)
    text = page.html(summary, files.figures, files.tables, to_dict(config))
    write_bytes(epath.Path(out) / "index.html", text.encode())
    write_bytes(workdir / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary


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
    candidates = optimal.by_budget(measured.accuracy)
    sources = {"search": Source(measured.samples.questions, candidates, flops, ("policy", "prm"))}
    if splits is not None:
        ratios = splits.by_ratio("hierarchical")
        flops = {n: {name: costs["revisions"][name]["flops"] for name in names} for n, names in ratios.items()}
        models = ("policy", "prm", "revision", f"orm/{config.orm.variants[0]}")
        sources["revisions"] = Source(splits.chains.questions, ratios, flops, models)
        sources["both"] = exchange_report.joined(sources["search"], sources["revisions"])
    tables = greedy.read(workdir / "greedy")
    right = {
        model: dict(zip(table["question"].to_pylist(), table["correct"].to_pylist(), strict=True))
        for model, table in tables.items()
    }
    tokens = np.mean([prompts[q] for q in ease]) + np.mean(tables["larger"]["tokens"].to_numpy())
    return exchange_report.summarise(config.sweep, sources, ease, right, trained, float(tokens))


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What rows say of each question.

    Attributes:
        levels: Of each question, `[Q]`.
        samples: Of the bank, with the ids of all questions.
        accuracy: Each question's chance of a right answer `[Q]`, by strategy and budget.
        missing: (strategy, budget, question, seed, sample) of every result that should exist and does not.
    """

    levels: np.ndarray
    samples: Samples
    accuracy: dict[str, dict[int, np.ndarray]]
    missing: list[tuple[Any, ...]]


def measure(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    grade_equal: Callable[[str, str], bool] | None = None,
) -> Measured:
    """Select answers from rows, by every strategy at every budget; arguments and errors as for `summarise`."""
    questions, levels = _questions(config, bank, search)
    samples = Samples.from_table(bank, questions, config.sweep.samples, grade_equal=grade_equal)
    missing: list[tuple[Any, ...]] = [("sample", 0, *place) for place in samples.missing]
    accuracy: dict[str, dict[int, np.ndarray]] = {}
    for strategy in config.sweep.strategies:
        name = StrategyName.parse(strategy)
        how = name.aggregation(config.prm.aggregate)
        accuracy[strategy] = {}
        for n in config.sweep.budgets:
            cell = search.filter((pc.field("strategy") == strategy) & (pc.field("n") == n))
            if name.from_bank or (not cell.num_rows and name.is_best_of_n_at(n)):
                accuracy[strategy][n] = samples.accuracy(name.rule, how, n, name.ties, name.temperature)
                continue
            if not cell.num_rows:
                raise UserError(f"the search folder has no rows of {strategy} at budget {n}: delete it and run again")
            kept = registry.for_budget(strategy, n).n
            found = Samples.from_table(cell, questions, kept, config.sweep.seeds, grade_equal)
            accuracy[strategy][n] = found.accuracy(name.rule, how, ties=name.ties, temperature=name.temperature)
            missing += [(strategy, n, *place) for place in found.missing]
    return Measured(levels, samples, accuracy, missing)


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    threshold_source: str = "default",
    grade_equal: Callable[[str, str], bool] | None = None,
    measured: Measured | None = None,
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Compute every number of the report that does not depend on time.

    Args:
        config: The experiment.
        bank: Rows of the sample bank, with the columns the estimators read.
        search: Rows of all search strategies and budgets.
        threshold: Steps that score below it are called wrong.
        threshold_source: Where it comes from; goes into the summary.
        grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.
        measured: What `measure` returns, where that is known already.

    Returns:
        The summary, and (strategy, budget, question, seed, sample) of every result that should exist and
        does not.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    if measured is None:
        measured = measure(config, bank, search, grade_equal)
    samples, accuracy, missing, levels = measured.samples, measured.accuracy, measured.missing, measured.levels
    questions = samples.questions
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.seed)

    def interval(values: np.ndarray) -> dict[str, float]:
        return dataclasses.asdict(bootstrap(values))

    pass_at_1 = samples.pass_at_1()
    largest = max(config.sweep.budgets)
    aggregated = {how: {n: samples.accuracy("weighted", how, n) for n in config.sweep.budgets} for how in AGGREGATIONS}
    enough = len(questions) >= optimal.BINS * optimal.FOLDS
    bins = quantile_bins(pass_at_1, optimal.BINS) if enough else None
    summary = {
        "name": config.name,
        "config_hash": config_hash(config),
        "questions": len(questions),
        "samples": config.sweep.samples,
        "pass_at_1": pass_at_1.mean(),
        "pass_at_1_interval": interval(pass_at_1),
        "pass_at_1_histogram": np.bincount(
            np.minimum((pass_at_1 * _HISTOGRAM_BINS).astype(int), _HISTOGRAM_BINS - 1), minlength=_HISTOGRAM_BINS
        ),
        "pass_at_k": {str(n): interval(pass_at_k(samples.correct[:, 0], n)) for n in config.sweep.budgets},
        "unparsable": 1 - (samples.groups >= 0).mean(),
        "accuracy": {
            strategy: {str(n): interval(values) for n, values in by_budget.items()}
            for strategy, by_budget in accuracy.items()
        },
        "comparisons": [
            {"a": a, "b": b, "n": n, "difference": found.mean, "low": found.low, "high": found.high}
            for a, b in _pairs(config.sweep.strategies)
            for n in config.sweep.budgets
            for found in [bootstrap.paired(accuracy[a][n], accuracy[b][n])]
        ],
        "aggregation": {
            how: {str(n): interval(values) for n, values in by_budget.items()} for how, by_budget in aggregated.items()
        },
        "paired": paired.summarise(config.sweep, accuracy, aggregated, bins),
        "per_level": _per_level(config, levels, pass_at_1, {name: accuracy[name][largest] for name in accuracy}),
        **_by_difficulty(config, samples, accuracy),
        "weak_verifiers": weak.summarise(config.sweep, samples, config.prm.aggregate),
        "prm": _verifier_quality(config, bank, threshold) | {"first_error_threshold_source": threshold_source},
        "missing": len(missing),
    }
    return _plain(summary), missing


def _by_difficulty(
    config: ExperimentConfig, samples: Samples, accuracy: dict[str, dict[int, np.ndarray]]
) -> dict[str, Any]:
    """Return what choosing by difficulty gains, where there are questions enough for bins and folds."""
    if len(samples.questions) < optimal.BINS * optimal.FOLDS:
        return {}
    # Predicted without labels: the mean score that the verifier gives the same samples.
    ease = {
        "oracle": samples.pass_at_1(),
        "predicted": samples.scores(config.prm.aggregate).mean(axis=(1, 2)),
    }
    return {"compute_optimal": optimal.summarise(config.sweep, accuracy, ease, claims.WEIGHTED)}


def ease_of_questions(bank: pa.Table) -> dict[str, float]:
    """Return the share of right base samples of each question."""
    means = bank.select(["question", "correct"]).group_by("question").aggregate([("correct", "mean")])
    return dict(zip(means["question"].to_pylist(), means["correct_mean"].to_pylist(), strict=True))


def predicted_ease(bank: pa.Table, how: str) -> dict[str, float]:
    """Return the mean score of each question's base samples, which needs no labels.

    Args:
        bank: Rows with `question` and `step_scores`.
        how: Step aggregation behind a sample's score.
    """
    scores = pa.table({"question": bank["question"], "score": aggregate(step_scores(bank), how)})
    means = scores.group_by("question").aggregate([("score", "mean")])
    return dict(zip(means["question"].to_pylist(), means["score_mean"].to_pylist(), strict=True))


def first_error_threshold(path: epath.PathLike) -> tuple[float, str]:
    """Choose the first-error threshold on validation solutions.

    Args:
        path: Parquet file with the columns of `verify.metrics.VALIDATION_SCHEMA`; it may be absent.

    Returns:
        The threshold and where it comes from: `validation`, or `default` if the file is absent or holds no
        solution with (or none without) an error.

    Raises:
        UserError: The file is corrupt.
    """
    path = epath.Path(path)
    if not path.exists():
        return DEFAULT_THRESHOLD, "default"
    scores, truth, _ = with_step_truth(read_shard(path, VALIDATION_SCHEMA))
    solutions_wrong = np.unique(truth.row_of_value[~truth.values])
    if not 0 < len(solutions_wrong) < len(truth):
        return DEFAULT_THRESHOLD, "default"
    return best_threshold(scores, truth), "validation"


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
    lines = [
        "",
        f"policy: pass@1 {summary['pass_at_1']:.3f}, {100 * summary['unparsable']:.1f}% of its answers unparsable",
        f"verifier: step AUROC {_number(prm['step_auroc'])}, ECE {_number(prm['ece'])}, first-error F1 "
        f"{_number(prm['first_error_f1'])} (threshold {prm['first_error_threshold']:.2f}, "
        f"{prm['first_error_threshold_source']})",
    ]
    if summary["missing"]:
        lines.append(f"[bold red]{summary['missing']} results are missing and count as wrong[/]: report/missing.csv")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if "compute_optimal" in summary:
        optimal.render(summary, console)
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
        claims.render(summary["claims"], console)


def _questions(config: ExperimentConfig, bank: pa.Table, search: pa.Table) -> tuple[list[str], np.ndarray]:
    """Return the ids of all questions in the order of their text, and their levels."""
    level: dict[str, int] = {}
    for table in (bank, search):
        level |= dict(zip(table["question"].to_pylist(), table["level"].to_pylist(), strict=True))
    # A generated data set has exactly the questions asked for; one read from files may have fewer.
    if config.data.name == "procmath" and len(level) != config.data.num_test:
        raise UserError(
            f"results hold {len(level)} of {config.data.num_test} test questions: delete the bank and search "
            "folders and run again"
        )
    questions = sorted(level)
    return questions, np.array([level[question] for question in questions])


def _pairs(strategies: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is compared: weighted against majority, and each search against weighted."""
    weighted = claims.WEIGHTED
    if weighted not in strategies:
        return []
    searches = [(name, weighted) for name in strategies if not StrategyName.parse(name).from_bank]
    return ([(weighted, "majority")] if "majority" in strategies else []) + searches


def _per_level(
    config: ExperimentConfig, levels: np.ndarray, pass_at_1: np.ndarray, accuracy: dict[str, np.ndarray]
) -> dict[str, Any]:
    result = {}
    for level in np.unique(levels):
        inside = levels == level
        bootstrap = Bootstrap(int(inside.sum()), config.sweep.bootstrap, config.sweep.seed)
        result[str(level)] = {
            "count": int(inside.sum()),
            "pass_at_1": dataclasses.asdict(bootstrap(pass_at_1[inside])),
            "accuracy": {name: dataclasses.asdict(bootstrap(values[inside])) for name, values in accuracy.items()},
        }
    return result


def _verifier_quality(config: ExperimentConfig, bank: pa.Table, threshold: float) -> dict[str, Any]:
    """Judge step scores against the step checker's truth, and as chances of a right answer.

    The PRM is trained to predict how often a solution continued from a step ends right, and a bank sample is
    one such continuation of each of its own steps; so calibration is measured against its final correctness.
    """
    steps = step_scores(bank)
    correct = bank["correct"].to_numpy()
    outcome = np.repeat(correct, steps.lengths)
    bins = reliability(steps.values, outcome)
    scores, truth, unaligned = with_step_truth(bank)
    if unaligned:
        logger.warning("%d bank rows have another number of step scores than of steps and are not judged", unaligned)
    found = first_error(scores, truth, threshold)
    return {
        "aggregate": config.prm.aggregate,
        "steps": len(steps.values),
        "checked_solutions": len(truth),
        "unaligned_solutions": unaligned,
        "step_auroc": auroc(scores.values, truth.values),
        "first_error_f1": found.f1,
        "first_error_accuracy": found.error_accuracy,
        "all_correct_accuracy": found.correct_accuracy,
        "first_error_threshold": threshold,
        "ece": bins.error,
        "ece_target": "final answer is right",
        "brier": brier(steps.values, outcome),
        "reliability": [
            {"low": low, "high": high, "count": count, "score": score, "target": target}
            for low, high, count, score, target in zip(
                bins.edges[:-1], bins.edges[1:], bins.counts, bins.scores, bins.targets, strict=True
            )
        ],
    }


def _timing(workdir: epath.Path, began: float) -> dict[str, Any]:
    """Collect what the earlier stages cost; this stage's own seconds are those up to here."""
    seconds, compile_seconds, peak = {}, 0.0, peak_rss_bytes()
    for path in sorted(workdir.glob("*/stage.json"), key=str):
        if path.parent.name == "report" or path.parent.suffix:  # .partial and .old-* folders
            continue
        try:
            stage = json.loads(path.read_text())
            seconds[path.parent.name] = stage["seconds"]
            compile_seconds += stage.get("compile_seconds", 0.0)
            peak = max(peak, stage.get("peak_rss_bytes", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is corrupt: delete {path.parent} and run again") from error
    seconds["report"] = round(time.perf_counter() - began, 3)
    return {"seconds": seconds, "compile_seconds": compile_seconds, "peak_rss_bytes": peak}


def _plain(value: Any) -> Any:
    """Return JSON's own types: numpy scalars unwrapped, floats to 6 places, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
