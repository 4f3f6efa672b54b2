"""The choice of a temperature on validation questions, from the rows of the tune stage.

What is chosen is a temperature for a strategy and a budget; test questions have no part in it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig, config_hash
from ttcjax.eval.records import measured as measured_lib
from ttcjax.eval.records import sample_rows
from ttcjax.eval.stats.estimators import COLUMNS
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry

_EQUAL = 1e-9
"""Accuracies nearer than this are equal: means over permutations are sums in different orders."""


def on_validation(config: ExperimentConfig, questions: int) -> ExperimentConfig:
    """Return the experiment of the tune stage: every validated strategy at every temperature, on so many questions.

    Its bank has no more samples than the largest budget, at the candidate temperatures alone.
    """
    candidates = config.sweep.temperatures
    sweep = dataclasses.replace(
        config.sweep,
        strategies=tuple(registry.at_temperature(name, t) for name in config.sweep.validated for t in candidates),
        temperatures=(),
        samples=max(config.sweep.budgets),
        samples_from=None,
        samples_content=None,
    )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, num_test=questions),
        sampler=dataclasses.replace(config.sampler, temperature=candidates[0]),
        sweep=sweep,
    )


def accuracies(config: ExperimentConfig, found: pa.Table) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return each validation question's accuracy `[Q]` by validated strategy and budget, and by temperature.

    Args:
        config: The experiment.
        found: Rows of the tune stage, with the columns the estimators read.

    Raises:
        UserError: Results are missing as a whole or of another config.
    """
    sampled = np.array(found["strategy"].to_pylist(), object) == "sample"
    bank, search = found.filter(pa.array(sampled)), found.filter(pa.array(~sampled))
    trial = on_validation(config, len(set(found["question"].to_pylist())))
    measured = measured_lib.measure(trial, bank, search)
    if measured.missing:
        raise UserError(
            f"{len(measured.missing)} results of the tune stage are missing: move its folder away and run again"
        )
    return {
        (name, n): {t: measured.accuracy[registry.at_temperature(name, t)][n] for t in config.sweep.temperatures}
        for name in config.sweep.validated
        for n in config.sweep.budgets
    }


def best(accuracy: Mapping[float, np.ndarray], sampler: float) -> float:
    """Return the temperature with the highest mean accuracy; of equals the nearest to the sampler's, then the lower."""
    most = max(values.mean() for values in accuracy.values())
    equal = [t for t, values in accuracy.items() if values.mean() > most - _EQUAL]
    return min(equal, key=lambda t: (abs(t - sampler), t))


def chosen(config: ExperimentConfig, folder: epath.Path) -> dict[tuple[str, int], float]:
    """Return the temperature that won on validation, by strategy and budget; nothing where none is validated.

    Args:
        config: The experiment.
        folder: Of the complete tune stage, read where a strategy asks for it.

    Raises:
        UserError: The stage is not complete, or a file of it is damaged.
    """
    if not config.sweep.validated:
        return {}
    found = accuracies_of(config, folder)
    return {cell: best(values, config.sampler.temperature) for cell, values in found.items()}


def known(config: ExperimentConfig, folder: epath.Path | None) -> dict[tuple[str, int], float] | None:
    """Return what `chosen` does, or `None` where there is no folder or the tune stage is not complete in it."""
    if not config.sweep.validated:
        return {}
    if folder is None or records.read_complete(folder) is None:
        return None
    try:
        return chosen(config, folder)
    except UserError:  # A file is damaged, which the stage makes again.
        return None


def accuracies_of(config: ExperimentConfig, folder: epath.Path) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return what `accuracies` does of the rows of a complete tune stage."""
    record = records.read_complete(folder)
    content = "" if record is None else config_hash(records.hashes(record))
    return _kept(config, os.fspath(folder), content)


@functools.lru_cache(maxsize=4)
def _kept(config: ExperimentConfig, folder: str, content: str) -> dict[tuple[str, int], dict[float, np.ndarray]]:
    """Return the accuracies that a folder of that content tells: a sweep asks for them before every stage."""
    del content
    return accuracies(config, sample_rows.read_folder(folder, COLUMNS))
