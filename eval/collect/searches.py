"""The search stage: every search strategy at every budget."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import shards as shards_lib
from ttcjax.eval.collect import temperatures, validated
from ttcjax.eval.collect.bank import result_rows
from ttcjax.eval.collect.shards import WHOLE, Part, Shard
from ttcjax.eval.collect.temperatures import Chosen
from ttcjax.eval.records import sample_rows
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress
from ttcjax.search import registry
from ttcjax.search.contract import HostStrategy, Strategy
from ttcjax.search.ops import run as run_strategy
from ttcjax.search.session import Session, read

SCHEMA = sample_rows.SCHEMA
"""Columns of the shards."""


def search_cells(config: ExperimentConfig, chosen: Chosen | None = None) -> dict[Strategy, list[tuple[str, int]]]:
    """Return the searches to run, each with the (strategy name, budget) pairs that it answers.

    Majority and best-of-N come from the bank, and so do searches at budgets below their width. Different names that
    mean the same search at a budget, such as `beam:width=4` and `beam:width=sqrt` at 16, share one run.

    Args:
        config: The experiment.
        chosen: What won on validation. Where that is not known yet, searches are counted at the first of the
            temperatures, as all cost about the same.
    """
    cells: dict[Strategy, list[tuple[str, int]]] = {}
    for name in config.sweep.strategies:
        named = registry.named(name)
        for budget in config.sweep.budgets:
            if named.is_best_of_n(budget):
                continue
            temperature = temperatures.possible(config, name, budget, chosen)[0]
            text = named.with_temperature(temperature)
            strategy = registry.for_budget(text, budget, max_rounds=config.sweep.max_rounds).plain()
            if temperature == config.sampler.temperature:  # However it is written, it is one search.
                strategy = dataclasses.replace(strategy, temperature=None)  # type: ignore[type-var]
            cells.setdefault(strategy, []).append((name, budget))
    return cells


def by_answers(config: ExperimentConfig, chosen: Chosen | None = None) -> dict[tuple[tuple[str, int], ...], Strategy]:
    """Return the search behind the `answers` of each of `shards`."""
    return {tuple(answers): strategy for strategy, answers in search_cells(config, chosen).items()}


def shards(config: ExperimentConfig, questions: int, chosen: Chosen | None = None) -> list[Shard]:
    """Return the stage's shards, cell by cell and seed by seed, of so many test questions; see `search_cells`."""
    sweep = config.sweep
    return [
        shard
        for strategy, answers in search_cells(config, chosen).items()
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
        `questions`, `solutions` (at most, where a strategy may leave samples undrawn), `cells`, `shards`,
        `seconds_per_question` of each cell run by this call (compilation included), and `files`.
    """
    task, splits = loader.askable(config, workdir)
    examples = splits.test[:]
    chosen = validated.chosen(config, workdir / "tune")
    cells = by_answers(config, chosen)
    seconds: dict[str, float] = {}
    every = shards(config, len(examples), chosen)
    mine = part.of(every)
    todo = shards_lib.missing(mine, out, SCHEMA)
    engine = load_engine(workdir, config.sampler, steps=task.steps)
    whole, left = (sum(s.questions * cells[s.answers].rows() for s in some) for some in (mine, todo))
    with progress(whole, "search: solutions") as bar:
        bar.skip(whole - left)
        engine.on_batch = bar.update
        for shard in todo:
            name = cells[shard.answers].name
            spent = write(config, task, examples, engine, shard, out, chosen)
            seconds[name] = seconds.get(name, 0.0) + spent / len(examples)
    files = shards_lib.names(every)
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * cells[shard.answers].rows() * len(shard.answers) for shard in every),
        "cells": len(cells),
        "shards": len(files),
        "seconds_per_question": seconds,
        "files": files,
    }


def write(
    config: ExperimentConfig,
    task: Task,
    examples: Sequence[Example],
    engine: Engine,
    shard: Shard,
    out: epath.Path,
    chosen: Chosen | None = None,
) -> float:
    """Make one of `shards`, and return the seconds that it took.

    Args:
        config: The experiment.
        task: Of the questions.
        examples: All of them.
        engine: Samples and scores.
        shard: Which of the questions, by which search.
        out: The folder.
        chosen: What the shards were made with.
    """
    strategy, asked = by_answers(config, chosen)[shard.answers], shard.take(examples)
    begin = time.perf_counter()
    prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked]
    session = Session(engine, task, prompts, config.prm.aggregate)
    if isinstance(strategy, HostStrategy):
        with _quiet(engine):  # how many samples it takes is known afterwards
            found = run_strategy(strategy, session, shard.seed)
            spent = time.perf_counter() - begin
            found = read(session, found)  # for the report
        engine.on_batch(len(asked) * strategy.rows())
    else:
        found = run_strategy(strategy, session, shard.seed)
        spent = time.perf_counter() - begin
    candidates = [outcome.candidates for outcome in found]
    share = spent / sum(map(len, candidates))
    temperature = engine.sampler.temperature if strategy.temperature is None else strategy.temperature
    for (name, n), path in zip(shard.answers, shard.paths(out), strict=True):
        table = result_rows(
            task, asked, candidates, strategy=name, n=n, seed=shard.seed, temperature=temperature, seconds=share
        )
        write_shard(path, table, SCHEMA)
    return spent


@contextlib.contextmanager
def _quiet(engine: Engine) -> Iterator[None]:
    """Let an engine tell nobody of its batches."""
    told, engine.on_batch = engine.on_batch, lambda count: None
    try:
        yield
    finally:
        engine.on_batch = told


def cell_name(strategy: str) -> str:
    """Return a strategy's name as part of a file's: `beam:width=4` is `beam-width-4`.

    No reader takes it for a pattern or for a column, as some take `name=value`.
    """
    return re.sub(r"[^A-Za-z0-9._]", "-", strategy.replace(",", "_"))
