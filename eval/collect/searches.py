"""The search stage: every search strategy at every budget."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import Aggregation, ExperimentConfig, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.bank import result_rows
from ttcjax.eval.collect.temperatures import Chosen, Grid
from ttcjax.eval.collect.validated import Choice, chosen, known
from ttcjax.eval.records import sample_rows
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.search import registry, revision_verifiers
from ttcjax.search.contract import HostStrategy, Strategy
from ttcjax.search.ops import run as run_strategy
from ttcjax.search.revision_verifiers import Revising
from ttcjax.search.session import Session, read

SCHEMA = sample_rows.SCHEMA
"""Columns of the shards."""


@dataclass(frozen=True)
class Settings:
    """Settings of the search stage."""

    questions: Questions
    sampler: SamplerConfig
    grid: Grid
    """Without the strategies that the bank answers."""
    seeds: int
    """Independent runs of each search."""
    max_rounds: int
    """Most steps of a search."""
    seed: int
    shard_questions: int
    aggregate: Aggregation | None
    """How step scores become the score of a solution, where a strategy asks for it while it runs."""
    choice: Choice | None
    """How temperatures are chosen on validation questions, where a strategy asks for that."""
    revising: Revising | None = None
    """The revision model's part, where a strategy revises."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        grid, sweep = Grid.of(config).searches, config.sweep
        return cls(
            config.test_questions,
            config.sampler,
            grid,
            sweep.seeds,
            sweep.max_rounds,
            sweep.seed,
            sweep.shard_questions,
            aggregate_of(grid, config.prm.aggregate),
            Choice.of(config) if grid.validated else None,
            revising_of(grid, config),
        )


def revising_of(grid: Grid, config: ExperimentConfig) -> Revising | None:
    """Return what strategies that revise ask of an experiment, where one is named."""
    return Revising.of(config) if any(registry.named(s).revises for s in grid.strategies) else None


def also_needs(settings: Settings) -> tuple[str, ...]:
    """Return the stages that strategies that revise read, where one is named."""
    return () if settings.revising is None else settings.revising.needs


def aggregate_of(grid: Grid, aggregate: Aggregation) -> Aggregation | None:
    """Return how step scores become the score of a solution, where a strategy asks for it while it runs."""
    asking = (registry.named(s).strategy for s in grid.strategies)
    return aggregate if any(isinstance(one, HostStrategy) and not one.revises for one in asking) else None


def search_cells(grid: Grid, max_rounds: int, chosen: Chosen | None = None) -> dict[Strategy, list[tuple[str, int]]]:
    """Return the searches to run, each with the (strategy name, budget) pairs that it answers.

    Majority and best-of-N come from the bank, and so do searches at budgets below their width. Different names that
    mean the same search at a budget, such as `beam:width=4` and `beam:width=sqrt` at 16, share one run.

    Args:
        grid: The strategies.
        max_rounds: Most steps of a search.
        chosen: What won on validation. Where that is not known yet, searches are counted at the first of the
            temperatures, as all cost about the same.
    """
    cells: dict[Strategy, list[tuple[str, int]]] = {}
    for name in grid.strategies:
        named = registry.named(name)
        for budget in grid.budgets:
            if named.is_best_of_n(budget):
                continue
            temperature = grid.possible(name, budget, chosen)[0]
            text = named.with_temperature(temperature)
            strategy = registry.for_budget(text, budget, max_rounds=max_rounds).plain()
            if temperature == grid.temperature:  # However it is written, it is one search.
                strategy = dataclasses.replace(strategy, temperature=None)  # type: ignore[type-var]
            cells.setdefault(strategy, []).append((name, budget))
    return cells


def by_answers(settings: Settings, chosen: Chosen | None = None) -> dict[tuple[tuple[str, int], ...], Strategy]:
    """Return the search behind the `answers` of each shard."""
    found = search_cells(settings.grid, settings.max_rounds, chosen)
    return {tuple(answers): strategy for strategy, answers in found.items()}


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, cell by cell and seed by seed; see `search_cells`."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test), known(settings.choice, inputs))


def shards_of(settings: Settings, questions: int, chosen: Chosen | None) -> list[Shard]:
    """Return the shards of so many questions."""
    return [
        shard
        for strategy, answers in search_cells(settings.grid, settings.max_rounds, chosen).items()
        for seed in range(settings.seed + 1, settings.seed + 1 + settings.seeds)
        for shard in shards_lib.cut(
            questions,
            settings.shard_questions,
            strategy=strategy.name,
            answers=tuple(answers),
            seed=seed,
            generations=strategy.cost(),
            cells=tuple(f"{cell_name(name)}_n-{n}_seed-{seed}" for name, n in answers),
        )
    ]


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question of a cell takes."""
    name, n = answers[0]
    strategy = registry.named(name).at(n, max_rounds=settings.max_rounds).plain()
    if strategy.revises:
        return _spends_revising(settings, strategy, generations, own, units)
    if own:
        written = amounts.mean(own, "tokens") + amounts.mean(own, "lookahead_tokens")
        read = amounts.mean(own, "verifier_tokens")
        return Spent(units.prompt + written, units.prompt + read, generations, at_most=strategy.may_stop)
    # Whole rows and whole rollouts, so rather too many.
    tokens = units.prompt + generations * units.token
    return Spent(tokens, tokens, generations, at_most=strategy.may_stop)


def _spends_revising(
    settings: Settings, strategy: Strategy, generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question of a cell takes of the revision model and its verifier, at equal lengths of answers."""
    assert isinstance(strategy, HostStrategy)
    assert settings.revising is not None
    verifier = settings.revising.selecting(units.inputs)
    written = amounts.mean(own, "tokens") if own else generations * units.token
    # Of scores that rise `refine` keeps every answer, which is the most that can be in view.
    rising = np.arange(generations, dtype=np.float64)
    views = strategy.before(np.zeros(generations, np.int64), rising)
    each = written / generations
    shown = sum(settings.revising.in_view([each] * len(view), units.prompt - 1, math.inf) for view in views)
    read = amounts.mean(own, "verifier_tokens") if own else written + shown * (verifier == "history")
    return Spent(
        units.prompt + written + shown,
        units.prompt + read,
        generations,
        writer="revision",
        readers=(revision_verifiers.stage_of(verifier),),
        at_most=strategy.may_stop,
    )


def work_of(settings: Settings, questions: int) -> str:
    """Return how much there is to search of so many questions."""
    cells = search_cells(settings.grid, settings.max_rounds)
    generations = sum(strategy.cost() for strategy in cells) * settings.seeds
    most = "at most " * any(strategy.may_stop for strategy in cells)
    return f"{len(cells)} searches of {questions:,} questions, {most}{generations:,} generations each in all"


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Run the missing shards of every cell.

    Returns:
        `questions`, `solutions` (at most, where a strategy may leave samples undrawn), `cells`, `shards`,
        `seconds_per_question` of each cell run by this call (compilation included), and where a strategy revises
        `verifier`, whose scores the rows of such have.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples = splits.test[:]
    won = chosen(settings.choice, inputs)
    cells = by_answers(settings, won)
    seconds: dict[str, float] = {}
    every = shards_of(settings, len(examples), won)
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    models = Models(settings, inputs, task)
    whole, left = (sum(s.questions * cells[s.answers].rows() for s in some) for some in (mine, todo))
    with progress(whole, "search: solutions") as bar:
        bar.skip(whole - left)
        models.on_batch = bar.update
        for shard in todo:
            strategy = cells[shard.answers]
            spent = write(strategy, models, examples, shard, sink.folder)
            seconds[strategy.name] = seconds.get(strategy.name, 0.0) + spent / len(examples)
    files = shards_lib.names(every)
    sink.lists(*files)
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * cells[shard.answers].rows() * len(shard.answers) for shard in every),
        "cells": len(cells),
        "shards": len(files),
        "seconds_per_question": seconds,
        **models.told,
    }


@dataclass
class Models:
    """The models that searches ask, each pair loaded when a strategy first asks it."""

    settings: Settings
    inputs: Inputs
    task: Task
    """Of the questions."""
    on_batch: Callable[[int], None] = lambda count: None
    """Told of the solutions of every batch; see `Engine.on_batch`."""

    @functools.cached_property
    def base(self) -> Engine:
        """The policy and its verifier."""
        return load_engine(self.inputs, self.settings.sampler, steps=self.task.steps)

    @functools.cached_property
    def revision(self) -> Engine:
        """The revision model and the verifier that selects among its answers."""
        verifier = revision_verifiers.stage_of(self.verifier)
        sampler = self.settings.sampler.of_solutions()
        return load_engine(self.inputs, sampler, policy="revision", verifier=verifier, steps=self.task.steps)

    @functools.cached_property
    def verifier(self) -> str:
        """The verifier that selects among revisions."""
        assert self.settings.revising is not None
        return self.settings.revising.selecting(self.inputs)

    @property
    def told(self) -> dict[str, str]:
        """Facts of a record on the models that revise."""
        return {} if self.settings.revising is None else {"verifier": self.verifier}

    def session(self, strategy: Strategy, examples: Sequence[Example]) -> Session:
        """Return a strategy's session on some questions."""
        engine = self.revision if strategy.revises else self.base
        engine.on_batch = self.on_batch
        prompts = [engine.encode_prompt(e.id, self.task.prompt(e.question)) for e in examples]
        if not strategy.revises:
            return Session(engine, self.task, prompts, self.settings.aggregate or "last")
        assert self.settings.revising is not None
        view, judges = self.settings.revising.view, self.settings.revising.judges
        return Session(engine, self.task, prompts, reviser=judges.reviser(engine, prompts, view, self.verifier))


def write(strategy: Strategy, models: Models, examples: Sequence[Example], shard: Shard, out: epath.Path) -> float:
    """Make one shard, and return the seconds that it took.

    Args:
        strategy: The search behind it.
        models: Sample and score.
        examples: All questions.
        shard: Which of them.
        out: The folder.
    """
    asked = shard.take(examples)
    session = models.session(strategy, asked)
    engine, begin = session.engine, time.perf_counter()
    if isinstance(strategy, HostStrategy):
        with _quiet(engine):  # how many samples it takes is known afterwards
            found = run_strategy(strategy, session, shard.seed)
            spent = time.perf_counter() - begin
            found = read(session, found)  # for the report
        engine.on_batch(len(asked) * strategy.rows())
    else:
        found = run_strategy(strategy, session, shard.seed)
        spent = time.perf_counter() - begin
    candidates, answers = [outcome.candidates for outcome in found], [outcome.answers for outcome in found]
    share = spent / sum(map(len, candidates))
    temperature = engine.sampler.temperature if strategy.temperature is None else strategy.temperature
    for (name, n), path in zip(shard.answers, shard.paths(out), strict=True):
        table = result_rows(
            models.task,
            asked,
            candidates,
            strategy=name,
            n=n,
            seed=shard.seed,
            temperature=temperature,
            seconds=share,
            answers=answers,
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


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "prm", "tune"),
    also_needs=also_needs,
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=lambda settings: work_of(settings, settings.questions.num_test),
    spends=spends,
)
