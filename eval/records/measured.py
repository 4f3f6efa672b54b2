"""From the rows of bank and search to each question's accuracy by strategy and budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ttcjax.config import Aggregation, ExperimentConfig
from ttcjax.data.sets import data_set
from ttcjax.eval.collect import temperatures
from ttcjax.eval.stats.estimators import Samples, scores_of
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry
from ttcjax.search.revision_verifiers import aggregate_of
from ttcjax.verify.aggregate import AGGREGATIONS


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True)
class Rules:
    """By what rows become accuracies."""

    grid: temperatures.Grid
    samples: int
    """Samples of a question in the bank, at the sampler's temperature."""
    judged: int
    """How many of these, the first ones, judge majority and best-of-N."""
    seeds: int
    """Independent runs of each search."""
    aggregate: Aggregation
    """How step scores become the score of a solution."""
    questions: int | None = None
    """How many there have to be, where that is known."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Rules:
        """Return those of an experiment."""
        sweep, data = config.sweep, config.data
        # A generated data set has exactly the questions asked for; one read from files may have fewer.
        exact = config.test_questions.num_test if data_set(data).exact and data.faults == "refuse" else None
        return cls(temperatures.Grid.of(config), sweep.samples, sweep.judged, sweep.seeds, config.prm.aggregate, exact)

    @property
    def bank(self) -> temperatures.BankSamples:
        """Samples of a question that the bank holds."""
        return temperatures.BankSamples.of(self.grid, self.samples, self.judged)


def measure(
    rules: Rules,
    bank: pa.Table,
    search: pa.Table,
    grade_equal: Callable[[str, str], bool] | None = None,
    chosen: temperatures.Chosen | None = None,
    verifier: str | None = None,
) -> Measured:
    """Select answers by every strategy at every budget.

    Args:
        rules: By what they are selected.
        bank: Rows of the sample bank, with the columns the estimators read.
        search: Rows of all search strategies and budgets.
        grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.
        chosen: What won on validation, where a strategy asks for it.
        verifier: Whose scores the rows of strategies that revise have, where there are any.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    questions, levels = _questions(rules, bank, search)
    grid, judged = rules.grid, rules.judged
    held = {
        temperature: Samples.from_table(temperatures.rows_at(bank, temperature), questions, count, 1, grade_equal)
        for temperature, count in rules.bank.at(chosen).items()
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
        how = scores_of(by, aggregate_for(name, rules.aggregate, verifier))
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
            plain = name.at(n).plain()
            found = Samples.from_table(cell, questions, name.at(n).rows(), rules.seeds, grade_equal)
            if plain.chooses_itself:
                accuracy[strategy][n] = found.right_at(found.chosen(plain.choose, how))
            else:
                accuracy[strategy][n] = found.accuracy(by.rule, how, ties=by.ties, temperature=by.vote_temperature)
            if not plain.may_stop:
                missing += [(strategy, n, *place) for place in found.missing]
    return Measured(levels, samples, others, accuracy, missing, sampled_at, at)


def aggregate_for(name: registry.Named, aggregate: Aggregation, verifier: str | None) -> Aggregation:
    """Return how step scores become the score of a solution in the rows of a strategy.

    Args:
        name: Of the strategy.
        aggregate: That of the PRM.
        verifier: As for `measure`.
    """
    if not name.revises:
        return aggregate
    assert verifier is not None, "rows of strategies that revise are read with the verifier that scored them"
    return aggregate_of(verifier, aggregate)


def by_aggregation(samples: Samples, budgets: Sequence[int]) -> dict[str, dict[int, np.ndarray]]:
    """Return each question's accuracy `[Q]` under best-of-N weighted, by step aggregation and budget.

    Args:
        samples: Of the bank.
        budgets: Of best-of-N.
    """
    return {how: {n: samples.accuracy("weighted", how, n) for n in budgets} for how in AGGREGATIONS}


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
