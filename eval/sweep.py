"""The search stage: every search strategy at every budget."""

from __future__ import annotations

import re
import time
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.eval import rows
from ttcjax.eval import shards as shards_lib
from ttcjax.eval.bank import result_rows
from ttcjax.eval.estimators import StrategyName
from ttcjax.eval.shards import WHOLE, Part, Shard
from ttcjax.metrics import progress
from ttcjax.parquet import write_shard
from ttcjax.sample.loading import load_engine
from ttcjax.search import registry
from ttcjax.search.base import Strategy
from ttcjax.search.run import search

SCHEMA = rows.SCHEMA
"""Columns of the shards."""


def search_cells(config: ExperimentConfig) -> dict[Strategy, list[tuple[str, int]]]:
    """Return the searches to run, each with the (strategy name, budget) pairs that it answers.

    Majority and best-of-N come from the bank, and so do searches at budgets below their width. Different names that
    mean the same search at a budget, such as `beam:width=4` and `beam:width=sqrt` at 16, share one run.
    """
    cells: dict[Strategy, list[tuple[str, int]]] = {}
    for name in config.sweep.strategies:
        for budget in config.sweep.budgets:
            strategy = registry.for_budget(name, budget, max_rounds=config.sweep.max_rounds)
            parsed = StrategyName.parse(name)
            if parsed.from_bank or parsed.is_best_of_n_at(budget):
                continue
            cells.setdefault(strategy.resolved(), []).append((name, budget))
    return cells


def shards(config: ExperimentConfig, questions: int) -> list[Shard]:
    """Return the stage's shards, cell by cell and seed by seed, of so many test questions."""
    sweep = config.sweep
    return [
        shard
        for strategy, answers in search_cells(config).items()
        for seed in range(sweep.seed + 1, sweep.seed + 1 + sweep.seeds)
        for shard in shards_lib.cut(
            questions,
            sweep.shard_questions,
            strategy=strategy.name,
            answers=tuple(answers),
            seed=seed,
            generations=strategy.cost(),
            cells=tuple(f"{cell_name(name)}_n-{n}_seed-{seed}" for name, n in answers),
        )
    ]


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Run the missing shards of every cell.

    Args:
        config: The experiment.
        workdir: Its folder.
        out: The folder of this stage.
        part: Which of the shards are this process's.

    Returns:
        `questions`, `solutions`, `cells`, `shards`, `seconds_per_question` of each cell run by this call (compilation
        included), and `files`.
    """
    task, splits = loader.askable(config, workdir)
    examples = splits.test[:]
    cells = {tuple(answers): strategy for strategy, answers in search_cells(config).items()}
    seconds: dict[str, float] = {}
    every = shards(config, len(examples))
    mine = part.of(every)
    todo = shards_lib.missing(mine, out, SCHEMA)
    engine = load_engine(workdir, config.sampler)
    whole, left = (sum(s.questions * cells[s.answers].n for s in some) for some in (mine, todo))
    with progress(whole, "search: solutions") as bar:
        bar.skip(whole - left)
        engine.on_batch = bar.update
        for shard in todo:
            strategy, asked = cells[shard.answers], shard.take(examples)
            begin = time.perf_counter()
            prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked]
            found = search(engine, strategy, prompts, shard.seed)
            spent = time.perf_counter() - begin
            seconds[strategy.name] = seconds.get(strategy.name, 0.0) + spent / len(examples)
            share = spent / (len(asked) * strategy.n)
            for (name, n), path in zip(shard.answers, shard.paths(out), strict=True):
                table = result_rows(task, asked, found, strategy=name, n=n, seed=shard.seed, seconds=share)
                write_shard(path, table, SCHEMA)
    files = shards_lib.names(every)
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * cells[shard.answers].n * len(shard.answers) for shard in every),
        "cells": len(cells),
        "shards": len(files),
        "seconds_per_question": seconds,
        "files": files,
    }


def cell_name(strategy: str) -> str:
    """Return a strategy's name as part of a file's: `beam:width=4` is `beam-width-4`.

    No reader takes it for a pattern or for a column, as some take `name=value`.
    """
    return re.sub(r"[^A-Za-z0-9._]", "-", strategy.replace(",", "_"))
