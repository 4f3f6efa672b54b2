"""The last stage: from bank and search rows to `summary.json`, tables and figures."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from rich.console import Console

from ttcjax.config import ExperimentConfig, config_hash
from ttcjax.errors import UserError
from ttcjax.eval import (
    chains,
    figures,
    ledger,
    optimal,
    outcome,
    rescore,
    revision_figures,
    revision_report,
    revisions,
    rows,
    tables,
    weak,
)
from ttcjax.eval.estimators import (
    COLUMNS,
    Bootstrap,
    Samples,
    StrategyName,
    pass_at_k,
    step_scores,
    with_step_truth,
)
from ttcjax.files import write_bytes
from ttcjax.metrics import peak_rss_bytes
from ttcjax.parquet import read_shard
from ttcjax.search import registry
from ttcjax.verify.aggregate import AGGREGATIONS
from ttcjax.verify.metrics import VALIDATION_SCHEMA, auroc, best_threshold, brier, first_error, reliability

TIMING_KEYS = ("seconds", "compile_seconds", "peak_rss_bytes")
"""The keys of the summary that differ between two runs of the same config."""

WEIGHTED = "best_of_n:select=weighted"
DEFAULT_THRESHOLD = 0.5
_HISTOGRAM_BINS = 10

logger = logging.getLogger(__name__)


def run(config: ExperimentConfig, workdir: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Write the report of an experiment.

    Reads `bank/`, `search/` and, if it is there, `prm/validation_scores.parquet` under `workdir`, and what the
    config turns on: `rescore/`, `trajectories/`, `chains/`. Writes tables (CSV) and figures (PNG and SVG) under
    `out`, and `summary.json` under `workdir`.

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
    workdir, out = epath.Path(workdir), epath.Path(out)
    columns = (*COLUMNS, *ledger.COLUMNS)
    bank = rows.read_folder(workdir / "bank", columns)
    searches = [name for name in config.sweep.strategies if not StrategyName.parse(name).from_bank]
    search = rows.read_folder(workdir / "search", columns) if searches else bank.slice(0, 0)
    threshold, source = first_error_threshold(workdir / "prm" / "validation_scores.parquet")
    summary, missing = summarise(config, bank, search, threshold=threshold, threshold_source=source)
    trained = ledger.models(workdir)
    if trained is not None:
        prompts = ledger.prompt_tokens(config, workdir)
        summary["compute"] = _plain(ledger.summarise(config, bank, search, prompts, trained))
    if config.orm.base:
        summary["orm"] = _plain(outcome.summarise(config, bank, rescore.with_scores(bank, workdir / "rescore")))
    if config.revision.enabled:
        found, accuracy = revisions.summarise(config, chains.read(workdir / "chains"), ease_of_questions(bank))
        made = json.loads((workdir / "trajectories" / "stage.json").read_text())["result"]
        summary["revision"] = _plain(found | {"trajectories": made})
        summary["accuracy"] |= _plain(accuracy)
    if missing:
        logger.warning("%d results are missing and count as wrong: see missing.csv of the report", len(missing))

    _write_csv(out / "accuracy.csv", "strategy budget mean low high questions", _accuracy_rows(summary))
    _write_csv(out / "per_level.csv", "level questions measure mean low high", _level_rows(summary))
    _write_csv(out / "missing.csv", "strategy budget question seed sample", missing)
    figures.save(figures.accuracy_vs_budget(summary), out, "accuracy_vs_budget")
    figures.save(figures.quality(summary), out, "quality")
    if trained is not None:
        _write_csv(out / "compute.csv", "strategy budget measure value", ledger.csv_rows(summary))
        figures.save(ledger.figure(summary), out, "accuracy_vs_flops")
    _write_csv(
        out / "weak_verifiers.csv", "verifier measure budget mean low high", weak.csv_rows(summary["weak_verifiers"])
    )
    figures.save(weak.figure(summary["weak_verifiers"]), out, "weak_verifiers")
    if "compute_optimal" in summary:
        _write_csv(
            out / "by_difficulty.csv", "bins measure bin strategy budget mean low high", optimal.csv_rows(summary)
        )
        figures.save(optimal.figure(summary), out, "by_difficulty")
    if config.orm.base:
        _write_csv(out / "verifiers.csv", "verifier selector budget mean low high", outcome.csv_rows(summary["orm"]))
        figures.save(outcome.figure(summary["orm"]), out, "verifiers")
    if config.revision.enabled:
        _write_csv(
            out / "revision_steps.csv",
            "step chains measure mean low high",
            revision_report.step_rows(summary["revision"]),
        )
        _write_csv(
            out / "revision_accuracy.csv",
            "strategy selector mean low high",
            revision_report.accuracy_rows(summary["accuracy"]),
        )
        for name, draw in revision_figures.ALL.items():
            figures.save(draw(summary["revision"], summary["accuracy"]), out, name)

    summary |= _timing(workdir, began)
    write_bytes(workdir / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    threshold_source: str = "default",
    grade_equal: Callable[[str, str], bool] | None = None,
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Compute every number of the report that does not depend on time.

    Args:
        config: The experiment.
        bank: Rows of the sample bank, with the columns the estimators read.
        search: Rows of all search strategies and budgets.
        threshold: Steps that score below it are called wrong.
        threshold_source: Where it comes from; goes into the summary.
        grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.

    Returns:
        The summary, and (strategy, budget, question, seed, sample) of every result that should exist and
        does not.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    questions, levels = _questions(config, bank, search)
    samples = Samples.from_table(bank, questions, config.sweep.samples, grade_equal=grade_equal)
    missing: list[tuple[Any, ...]] = [("sample", 0, *place) for place in samples.missing]
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.seed)

    def interval(values: np.ndarray) -> dict[str, float]:
        return dataclasses.asdict(bootstrap(values))

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

    pass_at_1 = samples.pass_at_1()
    largest = max(config.sweep.budgets)
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
            {"a": a, "b": b, "n": n, "difference": paired.mean, "low": paired.low, "high": paired.high}
            for a, b in _pairs(config.sweep.strategies)
            for n in config.sweep.budgets
            for paired in [bootstrap.paired(accuracy[a][n], accuracy[b][n])]
        ],
        "aggregation": {
            how: {str(n): interval(samples.accuracy("weighted", how, n)) for n in config.sweep.budgets}
            for how in AGGREGATIONS
        },
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
    return {"compute_optimal": optimal.summarise(config.sweep, accuracy, ease, WEIGHTED)}


def ease_of_questions(bank: pa.Table) -> dict[str, float]:
    """Return the share of right base samples of each question."""
    means = bank.select(["question", "correct"]).group_by("question").aggregate([("correct", "mean")])
    return dict(zip(means["question"].to_pylist(), means["correct_mean"].to_pylist(), strict=True))


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
    if "orm" in summary:
        outcome.render(summary["orm"], console)
    if "revision" in summary:
        revision_report.render(summary["revision"], summary["accuracy"], console)


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
    if WEIGHTED not in strategies:
        return []
    searches = [(name, WEIGHTED) for name in strategies if not StrategyName.parse(name).from_bank]
    return ([(WEIGHTED, "majority")] if "majority" in strategies else []) + searches


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


def _accuracy_rows(summary: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for strategy, points in figures.by_budget(summary["accuracy"]).items():
        for n, point in points.items():
            yield strategy, n, point["mean"], point["low"], point["high"], summary["questions"]


def _level_rows(summary: dict[str, Any]) -> Iterable[Sequence[Any]]:
    for level, values in summary["per_level"].items():
        for measure, point in {"pass_at_1": values["pass_at_1"], **values["accuracy"]}.items():
            yield level, values["count"], measure, point["mean"], point["low"], point["high"]


def _write_csv(path: epath.Path, header: str, lines: Iterable[Sequence[Any]]) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(header.split())
    writer.writerows(lines)
    write_bytes(path, sink.getvalue().encode())


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
