"""The tune stage: strategies whose temperature is to be chosen, run at several of them on validation questions.

Its rows are those of bank and search together, by the same code, of other questions, for
`ttcjax.eval.collect.validated`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.eval.collect import bank, searches
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.temperatures import BankSamples
from ttcjax.eval.collect.validated import Choice
from ttcjax.eval.records import sample_rows
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SCHEMA = sample_rows.SCHEMA
"""Columns of the shards."""


@dataclass(frozen=True)
class Settings:
    """Settings of the tune stage: a small bank and searches, on validation questions."""

    count: int
    """Validation questions, the first ones, at most."""
    bank: bank.Settings
    search: searches.Settings

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        sweep, choice = config.sweep, Choice.of(config)
        grid = choice.trial
        sampler = dataclasses.replace(config.sampler, temperature=grid.temperature)
        return cls(
            choice.questions,
            bank.Settings(
                config.questions,
                sampler,
                BankSamples.of(grid, choice.samples, choice.samples),
                None,
                sweep.seed,
                sweep.shard_questions,
            ),
            searches.Settings(
                config.questions,
                sampler,
                grid.searches,
                sweep.seeds,
                sweep.max_rounds,
                sweep.seed,
                sweep.shard_questions,
                searches.aggregate_of(grid.searches, config.prm.aggregate),
                None,
                searches.revising_of(grid.searches, config),
            ),
        )


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, samples and then searches."""
    _, splits = loader.askable(settings.bank.questions, inputs["data"])
    return shards_of(settings, min(settings.count, len(splits.valid)))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    return [
        *bank.shards_of(settings.bank, questions, {}),
        *searches.shards_of(settings.search, questions, {}),
    ]


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question of a cell takes."""
    if answers[0][0].partition(":")[0] == "sample":
        return bank.spends(settings.bank, answers, generations, own, units)
    return searches.spends(settings.search, answers, generations, own, units)


def _work(settings: Settings) -> str:
    questions = min(settings.count, settings.bank.questions.data.num_valid)
    samples = sum(settings.bank.samples.at({}).values())
    return f"{product(questions, samples)} solutions, {searches.work_of(settings.search, questions)}"


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Run the missing shards of every strategy at every temperature.

    Returns:
        `questions`, `solutions`, and `shards`.
    """
    task, splits = loader.askable(settings.bank.questions, inputs["data"])
    examples = splits.valid[: settings.count]
    every = shards_of(settings, len(examples))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    models = searches.Models(settings.search, inputs, task)
    cells = searches.by_answers(settings.search)
    sampled = [shard for shard in todo if shard.answers not in cells]
    searched = [shard for shard in todo if shard.answers in cells]

    def solutions(some: list[Shard]) -> int:
        # A sample is drawn and then scored, a search's rows are done at once.
        return sum(s.questions * (cells[s.answers].rows() if s.answers in cells else 2 * s.generations) for s in some)

    with progress(solutions(mine), "tune: solutions of validation questions") as bar:
        bar.skip(solutions(mine) - solutions(todo))
        models.on_batch = bar.update
        for shard in sampled:
            models.base.on_batch = bar.update
            bank.write(settings.bank, task, examples, models.base, shard, sink.folder)
        for shard in searched:
            searches.write(cells[shard.answers], models, examples, shard, sink.folder)
    sink.lists(*shards_lib.names(every))
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * shard.generations for shard in every),
        "shards": len(every),
        **models.told,
    }


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "prm"),
    also_needs=lambda settings: searches.also_needs(settings.search),
    switch=("sweep.temperatures",),
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=_work,
    spends=spends,
)
