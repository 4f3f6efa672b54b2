"""The search stage: every search strategy at every budget, a folder a cell."""

from __future__ import annotations

import time
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.eval import rows
from ttcjax.eval.bank import result_rows
from ttcjax.metrics import progress
from ttcjax.parquet import is_whole, shard_path, write_shard
from ttcjax.sample.loading import load_engine
from ttcjax.search import registry
from ttcjax.search.base import Strategy
from ttcjax.search.run import search


def search_cells(config: ExperimentConfig) -> dict[Strategy, list[tuple[str, int]]]:
    """Return the searches to run, each with the (strategy name, budget) pairs that it answers.

    Majority and best-of-N come from the bank. Different names that mean the same search at a budget, such as
    `beam:width=4` and `beam:width=sqrt` at 16, share one run.
    """
    cells: dict[Strategy, list[tuple[str, int]]] = {}
    for name in config.sweep.strategies:
        for budget in config.sweep.budgets:
            strategy = registry.for_budget(name, budget, max_rounds=config.sweep.max_rounds)
            if name.partition(":")[0] in registry.FROM_SAMPLES:
                continue
            cells.setdefault(strategy.resolved(), []).append((name, budget))
    return cells


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Run the missing shards of every cell.

    Returns:
        `questions`, `cells`, `shards`, and `seconds_per_question` of each cell run by this call (compilation included).
    """
    task, splits = loader.load(config.data, workdir / "data")
    engine = load_engine(workdir, config.sampler)
    examples, size = splits.test[:], config.sweep.shard_questions
    cells = search_cells(config)
    seconds: dict[str, float] = {}
    names = sum(map(len, cells.values()))
    shards = names * config.sweep.seeds * -(-len(examples) // size)
    solutions = sum(strategy.n for strategy in cells) * config.sweep.seeds * len(examples)
    with progress(solutions, "search: solutions") as bar:
        engine.on_batch = bar.update
        for strategy, answers in cells.items():
            for seed in range(config.sweep.seed + 1, config.sweep.seed + 1 + config.sweep.seeds):
                for number, start in enumerate(range(0, len(examples), size)):
                    shard = examples[start : start + size]
                    paths = {
                        (name, n): shard_path(out / f"{_folder(name)},n={n},seed={seed}", number) for name, n in answers
                    }
                    if all(is_whole(path, rows.SCHEMA) for path in paths.values()):
                        bar.skip(len(shard) * strategy.n)
                    else:
                        begin = time.perf_counter()
                        prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in shard]
                        found = search(engine, strategy, prompts, seed)
                        spent = time.perf_counter() - begin
                        seconds[strategy.name] = seconds.get(strategy.name, 0.0) + spent / len(examples)
                        share = spent / (len(shard) * strategy.n)
                        for (name, n), path in paths.items():
                            table = result_rows(task, shard, found, strategy=name, n=n, seed=seed, seconds=share)
                            write_shard(path, table, rows.SCHEMA)
    return {"questions": len(examples), "cells": len(cells), "shards": shards, "seconds_per_question": seconds}


def _folder(name: str) -> str:
    """A strategy's name as a folder's: no character that a file system or a bucket takes amiss."""
    return name.replace(":", "-")
