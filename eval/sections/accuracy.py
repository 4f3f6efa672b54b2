"""What the rows of bank and search say: accuracies, differences, difficulty, the quality of the verifier."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.config import ExperimentConfig, config_hash
from ttcjax.data.sets import data_set
from ttcjax.eval.collect import temperatures
from ttcjax.eval.report import figures
from ttcjax.eval.sections import budget, optimal, weak
from ttcjax.eval.stats import paired
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.draws import Drawn
from ttcjax.eval.stats.estimators import LIKELIHOOD, Samples, pass_at_k, scores_of, step_scores, with_step_truth
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_shard
from ttcjax.search import registry
from ttcjax.search.contract import HostStrategy
from ttcjax.verify.aggregate import AGGREGATIONS
from ttcjax.verify.quality import VALIDATION_SCHEMA, auroc, best_threshold, brier, first_error, reliability

DEFAULT_THRESHOLD = 0.5
_HISTOGRAM_BINS = 10

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Accuracies of each question, from its rows.

    Attributes:
        levels: Of each question, `[Q]`.
        samples: Of the bank at the sampler's temperature, those that judge, with the ids of all questions.
        others: Of the same, those that tell difficulty: the rest, or the same where there is none.
        accuracy: Each question's chance of a right answer `[Q]`, by strategy and budget.
        missing: (strategy, budget, question, seed, sample) of every result that should exist and does not.
        temperatures: At which each strategy samples, by strategy and budget.
        at: Of the bank, those that judge, by temperature.
    """

    levels: np.ndarray
    samples: Samples
    others: Samples
    accuracy: dict[str, dict[int, np.ndarray]]
    missing: list[tuple[Any, ...]]
    temperatures: dict[str, dict[int, float]]
    at: dict[float, Samples]

    def ease(self, how: str) -> dict[str, dict[str, float]]:
        """Return how easy each question is: `oracle`, the share of right samples, and `predicted`, without labels, the
        mean of the verifier's scores, those of samples without an answer 0.

        Args:
            how: Step aggregation behind a sample's score.
        """
        values = {"oracle": self.others.pass_at_1(), "predicted": self.others.final_scores(how).mean(axis=(1, 2))}
        return {
            notion: dict(zip(self.others.questions, map(float, known), strict=True)) for notion, known in values.items()
        }


@dataclasses.dataclass(frozen=True)
class Rules:
    """By what rows become accuracies."""

    grid: temperatures.Grid
    samples: int
    """Of a question in the bank, at the sampler's temperature."""
    judged: int
    """Of these, the first ones, that judge majority and best-of-N."""
    seeds: int
    """Independent runs of each search."""
    aggregate: str
    """How step scores become the score of a solution."""
    questions: int | None = None
    """How many there have to be, where that is known."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Rules:
        """Return those of an experiment."""
        sweep, data = config.sweep, config.data
        # A generated data set has exactly the questions asked for; one read from files may have fewer.
        exact = data.num_test if data_set(data).exact and data.faults == "refuse" else None
        return cls(temperatures.Grid.of(config), sweep.samples, sweep.judged, sweep.seeds, config.prm.aggregate, exact)


def measure(
    rules: Rules,
    bank: pa.Table,
    search: pa.Table,
    grade_equal: Callable[[str, str], bool] | None = None,
    chosen: temperatures.Chosen | None = None,
) -> Measured:
    """Select answers by every strategy at every budget.

    Args:
        rules: By what they are selected.
        bank: Rows of the sample bank, with the columns the estimators read.
        search: Rows of all search strategies and budgets.
        grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.
        chosen: What won on validation, where a strategy asks for it.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    questions, levels = _questions(rules, bank, search)
    grid, judged = rules.grid, rules.judged
    held = {
        temperature: Samples.from_table(temperatures.rows_at(bank, temperature), questions, count, 1, grade_equal)
        for temperature, count in temperatures.BankSamples.of(grid, rules.samples, judged).at(chosen).items()
    }
    missing: list[tuple[Any, ...]] = [("sample", 0, *place) for some in held.values() for place in some.missing]
    everything = held[grid.temperature]
    at = {temperature: some.part(0, judged) for temperature, some in held.items()}
    samples = at[grid.temperature]
    others = everything.part(judged, rules.samples) if judged < rules.samples else samples
    accuracy: dict[str, dict[int, np.ndarray]] = {}
    sampled_at: dict[str, dict[int, float]] = {}
    for strategy in grid.strategies:
        name = registry.named(strategy)
        by = name.selector
        how = scores_of(by, rules.aggregate)
        accuracy[strategy] = {}
        sampled_at[strategy] = {}
        for n in grid.budgets:
            [temperature] = grid.possible(strategy, n, chosen)
            sampled_at[strategy][n] = temperature
            cell = search.filter((pc.field("strategy") == strategy) & (pc.field("n") == n))
            if name.is_best_of_n(n):
                accuracy[strategy][n] = at[temperature].accuracy(by.rule, how, n, by.ties, by.vote_temperature)
                continue
            if not cell.num_rows:
                raise UserError(
                    f"the search folder has no rows of {strategy} at budget {n}: move it away and run again"
                )
            kept = name.at(n).rows()
            found = Samples.from_table(cell, questions, kept, rules.seeds, grade_equal)
            accuracy[strategy][n] = found.accuracy(by.rule, how, ties=by.ties, temperature=by.vote_temperature)
            if not isinstance(name.at(n).plain(), HostStrategy):  # which may leave samples undrawn
                missing += [(strategy, n, *place) for place in found.missing]
    return Measured(levels, samples, others, accuracy, missing, sampled_at, at)


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    measured: Measured,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    threshold_source: str = "default",
) -> dict[str, Any]:
    """Return every number that rests on the rows alone, with JSON's own types.

    Args:
        config: The experiment.
        bank: Rows of the sample bank at the sampler's temperature, with the columns the estimators read.
        measured: What `measure` returns.
        threshold: Steps that score below it are called wrong.
        threshold_source: Where it comes from; goes into the summary.
    """
    samples, accuracy, levels = measured.samples, measured.accuracy, measured.levels
    questions = samples.questions
    bootstrap = Bootstrap(len(questions), config.sweep.bootstrap, config.sweep.bootstrap_seed)

    def interval(values: np.ndarray) -> dict[str, float]:
        return dataclasses.asdict(bootstrap(values))

    pass_at_1 = samples.pass_at_1()
    largest = max(config.sweep.budgets)
    # Beside the strategies: what the policy chooses without a verifier.
    alone = {n: samples.accuracy("weighted", LIKELIHOOD, n) for n in config.sweep.budgets}
    compared = {**accuracy, figures.ALONE: accuracy.get(figures.ALONE, alone)}
    aggregated = {how: {n: samples.accuracy("weighted", how, n) for n in config.sweep.budgets} for how in AGGREGATIONS}
    enough = len(questions) >= optimal.BINS * config.sweep.folds
    bins = quantile_bins(measured.others.pass_at_1(), optimal.BINS) if enough else None
    summary = {
        "name": config.name,
        "config_hash": config_hash(config),
        "questions": len(questions),
        "samples": config.sweep.samples,
        "samples_of_difficulty": config.sweep.samples - config.sweep.judged,
        "pass_at_1": pass_at_1.mean(),
        "pass_at_1_interval": interval(pass_at_1),
        "pass_at_1_histogram": np.bincount(
            np.minimum((pass_at_1 * _HISTOGRAM_BINS).astype(int), _HISTOGRAM_BINS - 1), minlength=_HISTOGRAM_BINS
        ),
        "pass_at_k": {str(n): interval(pass_at_k(samples.correct[:, 0], n)) for n in config.sweep.budgets},
        "unparsable": 1 - (samples.groups >= 0).mean(),
        "temperatures": {"sampler": config.sampler.temperature, "strategies": measured.temperatures},
        "accuracy": {
            strategy: {str(n): interval(values) for n, values in by_budget.items()}
            for strategy, by_budget in accuracy.items()
        },
        "monte_carlo_error": _monte_carlo_errors(config, measured),
        "comparisons": [
            {"a": a, "b": b, "n": n, "difference": found.mean, "low": found.low, "high": found.high, "se": found.se}
            for a, b in _pairs(config.sweep.strategies)
            for n in config.sweep.budgets
            for found in [bootstrap.paired(compared[a][n], compared[b][n])]
        ],
        "aggregation": {
            how: {str(n): interval(values) for n, values in by_budget.items()} for how, by_budget in aggregated.items()
        },
        "paired": paired.summarise(config.sweep, accuracy, aggregated, bins),
        "per_level": _per_level(config, levels, pass_at_1, {name: accuracy[name][largest] for name in accuracy}),
        **_by_difficulty(config, measured),
        "weak_verifiers": weak.summarise(config.sweep, samples, config.prm.aggregate),
        "prm": _verifier_quality(config, bank, threshold) | {"first_error_threshold_source": threshold_source},
        "missing": len(measured.missing),
    }
    return plain(summary)


def _monte_carlo_errors(config: ExperimentConfig, measured: Measured) -> dict[str, dict[str, float]]:
    """Return for strategies of the bank what averaging over some subsets, not over all, leaves open of an accuracy."""
    names = {strategy: registry.named(strategy) for strategy in config.sweep.strategies}
    selectors = {strategy: name.selector for strategy, name in names.items() if not name.searches}
    return {
        strategy: {
            str(n): measured.at[measured.temperatures[strategy][n]].accuracy_error(
                by.rule, scores_of(by, config.prm.aggregate), n, by.ties, by.vote_temperature
            )
            for n in config.sweep.budgets
        }
        for strategy, by in selectors.items()
    }


def _by_difficulty(config: ExperimentConfig, measured: Measured) -> dict[str, Any]:
    """Return what choosing by difficulty gains, where there are questions enough for bins and folds."""
    if len(measured.samples.questions) < optimal.BINS * config.sweep.folds:
        return {}
    how = config.prm.aggregate
    ease = {notion: np.array(list(values.values())) for notion, values in measured.ease(how).items()}
    return {
        "compute_optimal": optimal.summarise(config.sweep, measured.accuracy, ease, paired.WEIGHTED),
        "budget": budget.summarise(config.sweep, measured.samples, measured.others, how, measured.accuracy),
    }


def unreadable(*tables: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield (strategy, budget, question, seed, sample, why) of every row without an answer that can be read.

    Such rows count as wrong.

    Args:
        tables: Rows with these columns, `answer` and `finished`.
    """
    for table in tables:
        for row in table.filter(pc.field("answer").is_null()).to_pylist():
            why = "no answer found" if row["finished"] else "cut off"
            yield (*(row[key] for key in ("strategy", "n", "question", "seed", "sample")), why)


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


def _questions(rules: Rules, bank: pa.Table, search: pa.Table) -> tuple[list[str], np.ndarray]:
    """Return the ids of all questions in the order of their text, and their levels."""
    level: dict[str, int] = {}
    for table in (bank, search):
        level |= dict(zip(table["question"].to_pylist(), table["level"].to_pylist(), strict=True))
    if rules.questions is not None and len(level) != rules.questions:
        raise UserError(
            f"results hold {len(level)} of {rules.questions} test questions: move the bank and search "
            "folders away and run again"
        )
    questions = sorted(level)
    return questions, np.array([level[question] for question in questions])


def _pairs(strategies: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is compared: weighted with majority and the policy's own likelihood, each search with weighted."""
    weighted = paired.WEIGHTED
    if weighted not in strategies:
        return []
    searches = [(name, weighted) for name in strategies if registry.named(name).searches]
    voting = ["majority"] if "majority" in strategies else []
    return [(weighted, name) for name in (*voting, figures.ALONE)] + searches


def _per_level(
    config: ExperimentConfig, levels: np.ndarray, pass_at_1: np.ndarray, accuracy: dict[str, np.ndarray]
) -> dict[str, Any]:
    result = {}
    for level in np.unique(levels):
        inside = levels == level
        bootstrap = Bootstrap(int(inside.sum()), config.sweep.bootstrap, config.sweep.bootstrap_seed)
        result[str(level)] = {
            "count": int(inside.sum()),
            "pass_at_1": dataclasses.asdict(bootstrap(pass_at_1[inside])),
            "accuracy": {name: dataclasses.asdict(bootstrap(values[inside])) for name, values in accuracy.items()},
        }
    return result


def _verifier_quality(config: ExperimentConfig, bank: pa.Table, threshold: float) -> dict[str, Any]:
    """Judge step scores against the step checker's truth, and as chances of a right answer.

    The PRM is trained to predict how often a solution continued from a step ends right, and a bank sample is
    one such continuation of each of its own steps; so calibration is measured against its final correctness. That is
    one thing only where labels were completed at the temperature of the bank: at a lower one a prefix ends right more
    often. Where temperatures differ, the last steps of samples with an answer are judged, after which nothing is left
    to sample, and what all steps give is said beside with the temperatures.
    """
    steps = step_scores(bank)
    correct = bank["correct"].to_numpy()
    outcome = np.repeat(correct, steps.lengths)
    sampled = config.sampler.temperature
    completed = sampled if config.labels.temperature is None else config.labels.temperature
    everywhere = reliability(steps.values, outcome)
    if completed == sampled:
        bins, scored, ended = everywhere, steps.values, outcome
    else:
        whole = bank["answer"].is_valid().to_numpy() & (steps.lengths > 0)
        scored, ended = steps.values[steps.offsets[1:][whole] - 1], correct[whole]
        bins = reliability(scored, ended)
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
        "ece_steps": "all" if completed == sampled else "last",
        "ece_all_steps": everywhere.error,
        "temperatures": {"labels": completed, "samples": sampled},
        "brier": brier(scored, ended),
        "reliability": [
            {"low": low, "high": high, "count": count, "score": score, "target": target}
            for low, high, count, score, target in zip(
                bins.edges[:-1], bins.edges[1:], bins.counts, bins.scores, bins.targets, strict=True
            )
        ],
    }


def plain(value: Any) -> Any:
    """Return JSON's own types: numpy scalars unwrapped, floats to 6 places, NaN as null; draws stay with theirs."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Drawn) and math.isfinite(value):
        return value.rounded(6)
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
