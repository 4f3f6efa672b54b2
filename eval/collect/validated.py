"""The choice of a temperature on validation questions, from the rows of the tune stage.

What is chosen is a temperature for a strategy and a budget; test questions have no part in it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import Aggregation, ExperimentConfig, config_hash
from ttcjax.eval.collect.temperatures import Chosen, Grid
from ttcjax.eval.records import measured as measured_lib
from ttcjax.eval.records import sample_rows
from ttcjax.eval.stats.estimators import COLUMNS
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry

_EQUAL = 1e-9
"""Accuracies nearer than this are equal: means over permutations are sums in different orders."""


@dataclass(frozen=True)
class Choice:
    """Rules by which temperatures are chosen on validation questions, from the rows of the tune stage."""

    grid: Grid
    """The strategies whose temperature is chosen, and the candidates."""
    questions: int
    """Validation questions, the first ones, at most."""
    seeds: int
    """Independent runs of each search."""
    aggregate: Aggregation
    """How step scores become the score of a solution."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Choice:
        """Return how an experiment chooses."""
        grid = Grid.of(config)
        grid = dataclasses.replace(grid, strategies=grid.validated)
        return cls(grid, config.sweep.tune_questions, config.sweep.seeds, config.prm.aggregate)

    @property
    def trial(self) -> Grid:
        """Every strategy at every candidate."""
        strategies = tuple(
            registry.at_temperature(name, t) for name in self.grid.strategies for t in self.grid.candidates
        )
        return Grid(strategies, self.grid.budgets, self.grid.candidates[0], ())

    @property
    def samples(self) -> int:
        """Samples of a question at each candidate: no more than the largest budget."""
        return max(self.grid.budgets)


def accuracies(
    choice: Choice, found: pa.Table, verifier: str | None = None
) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return each validation question's accuracy `[Q]` by validated strategy and budget, and by temperature.

    Args:
        choice: What is chosen among.
        found: Rows of the tune stage, with the columns the estimators read.
        verifier: As for `measured.measure`.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    sampled = np.array(found["strategy"].to_pylist(), object) == "sample"
    bank, search = found.filter(pa.array(sampled)), found.filter(pa.array(~sampled))
    rules = measured_lib.Rules(choice.trial, choice.samples, choice.samples, choice.seeds, choice.aggregate)
    measured = measured_lib.measure(rules, bank, search, verifier=verifier)
    if measured.missing:
        raise UserError(
            f"{len(measured.missing)} results of the tune stage are missing: move its folder away and run again"
        )
    return {
        (name, n): {t: measured.accuracy[registry.at_temperature(name, t)][n] for t in choice.grid.candidates}
        for name in choice.grid.strategies
        for n in choice.grid.budgets
    }


def best(by_temperature: Mapping[float, np.ndarray], sampler: float) -> float:
    """Return the temperature with the highest mean accuracy; of equals the nearest to the sampler's, then the lower."""
    most = max(values.mean() for values in by_temperature.values())
    equal = [t for t, values in by_temperature.items() if values.mean() > most - _EQUAL]
    return min(equal, key=lambda t: (abs(t - sampler), t))


def chosen(choice: Choice | None, inputs: Mapping[str, epath.Path]) -> Chosen:
    """Return the temperature that won on validation, by strategy and budget; nothing where none is validated.

    Args:
        choice: What is chosen among, where a strategy asks for that.
        inputs: Has the folder of the complete stage `tune`, read where a strategy asks for it.

    Raises:
        UserError: The stage is not complete, or a file of it is damaged.
    """
    if choice is None:
        return {}
    found = accuracies_of(choice, inputs["tune"])
    return {cell: best(values, choice.grid.temperature) for cell, values in found.items()}


def known(choice: Choice | None, inputs: Mapping[str, epath.Path]) -> Chosen | None:
    """Return what `chosen` does, or `None` where there is no folder or the tune stage is not complete in it."""
    if choice is None:
        return {}
    if "tune" not in inputs or records.read_complete(inputs["tune"]) is None:
        return None
    try:
        return chosen(choice, inputs)
    except UserError:  # A file is damaged, which the stage makes again.
        return None


def accuracies_of(choice: Choice, folder: epath.Path) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return what `accuracies` does of the rows of a complete tune stage."""
    record = records.read_complete(folder)
    content = "" if record is None else config_hash(records.hashes(record))
    verifier = None if record is None else (record.get("result") or {}).get("verifier")
    return _kept(choice, os.fspath(folder), content, verifier)


@functools.lru_cache(maxsize=4)
def _kept(
    choice: Choice, folder: str, content: str, verifier: str | None
) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return the accuracies that a folder of that content tells: a sweep asks for them before every stage."""
    del content
    return accuracies(choice, sample_rows.read_folder(folder, COLUMNS), verifier)
