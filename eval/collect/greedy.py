"""The greedy stage: the policy, and a larger one, answer every test question once, with the likeliest tokens.

The policy's answer is the baseline of every strategy that spends more (`ttcjax.eval.sections.baseline`); a larger
model that answers so is what test-time compute is exchanged for (Snell et al. 2024, section 7).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.config import ExperimentConfig, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.bank import result_rows
from ttcjax.eval.records import sample_rows as rows
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.parquet import is_whole, read_folder, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

MODELS = ("policy", "larger")
"""The stages that trained them, and the number of their shard; the larger one where there is one."""


SCHEMA = rows.SCHEMA


@dataclass(frozen=True)
class Settings:
    """Settings of the greedy stage."""

    questions: Questions
    sampler: SamplerConfig
    """At temperature 0."""
    larger: bool
    """Whether there is a larger model."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        return cls(config.test_questions, config.sampler.of_solutions(0.0), config.larger.enabled)


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, one a model of the experiment."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    return [
        Shard(name, answers=((name, 1),), seed=0, number=number, first=0, questions=questions, generations=1)
        for number, name in enumerate(f"greedy:{model}" for model in MODELS[: 1 + settings.larger])
    ]


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question of a cell takes."""
    del settings
    written = amounts.mean(own, "tokens") if own else units.token
    return Spent(units.prompt + written, 0.0, generations, writer=answers[0][0].partition(":")[2])


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Answer the test questions, a shard a model; finished shards are kept.

    Returns:
        `questions`, and `shards`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples = splits.test[:]
    every = shards_of(settings, len(examples))
    mine = sink.part.of(every)
    with progress(sum(shard.questions for shard in mine), "greedy: answers") as bar:
        for shard in mine:
            (path,) = shard.paths(sink.folder)
            if is_whole(path, SCHEMA):
                bar.skip(shard.questions)
                continue
            engine = load_engine(inputs, settings.sampler, policy=MODELS[shard.number], verifier=None, steps=task.steps)
            engine.on_batch = bar.update
            begin = time.perf_counter()
            prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples]
            found = engine.sample(prompts, 1, shard.seed)
            seconds = (time.perf_counter() - begin) / len(examples)
            table = result_rows(
                task, examples, found, strategy=shard.strategy, n=1, seed=shard.seed, temperature=0.0, seconds=seconds
            )
            write_shard(path, table, SCHEMA)
    sink.lists(*shards_lib.names(every))
    return {"questions": len(examples), "shards": len(every)}


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "larger"),
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=lambda settings: f"{product(settings.questions.num_test, 1 + settings.larger)} answers",
    spends=spends,
)


def read(folder: epath.Path) -> dict[str, pa.Table]:
    """Return the rows of each model that has any.

    Raises:
        UserError: A file is missing or damaged.
    """
    table = read_folder(folder, SCHEMA, ("strategy", "question", "correct", "tokens"))
    found = {model: table.filter(pc.field("strategy") == f"greedy:{model}") for model in MODELS}
    return {model: rows for model, rows in found.items() if rows.num_rows}
