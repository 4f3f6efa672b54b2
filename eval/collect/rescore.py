"""The rescore stage: the bank's samples judged by the outcome-reward model of the policy's samples.

Those at the sampler's temperature are, on which verifiers are compared. Nothing is sampled again: what was written down
is read by another verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts, temperatures
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.bank import solutions_of
from ttcjax.eval.records import sample_rows
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_folder, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("step_scores", pa.list_(pa.float32()), nullable=False, metadata={"about": "one a step, in [0, 1]"}),
    ]
)
"""Columns of the shards, a row a sample of the bank."""


@dataclass(frozen=True)
class Settings:
    """Settings of the rescore stage."""

    questions: Questions
    sampler: SamplerConfig
    """Verifiers are compared on samples at its temperature."""
    samples: int
    """Of a question in the bank, at that temperature."""
    seed: int
    """Of the bank."""
    shard_questions: int

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        sweep = config.sweep
        return cls(config.questions, config.sampler.of_solutions(), sweep.samples, sweep.seed, sweep.shard_questions)


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    return shards_lib.cut(
        questions,
        settings.shard_questions,
        strategy="rescore",
        answers=(("sample", settings.samples),),
        seed=settings.seed,
        generations=0,
    )


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question takes: what the bank's verifier read is read once more."""
    del answers, generations, own
    _, read = amounts.of_samples(units.bank, settings.samples, units)
    return Spent(0.0, read, 0, readers=("base_orm",))


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Score every sample of the bank, shard by shard; finished shards are kept.

    Returns:
        `solutions`, and `shards`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    prompts = {e.id: task.prompt(e.question) for e in splits.test[:]}
    columns = ("question", "seed", "temperature", "sample", "text", "finished", "tokens", "logprob")
    table = sample_rows.read_folder(inputs["bank"], columns)
    bank = temperatures.rows_at(table, settings.sampler.temperature).to_pylist()
    samples = settings.samples
    every = shards_of(settings, len(prompts))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    engine = load_engine(inputs, settings.sampler, verifier="base_orm", steps=task.steps)
    whole, left = (sum(s.questions for s in some) * samples for some in (mine, todo))
    with progress(whole, "rescore: solutions") as bar:
        bar.skip(whole - left)
        engine.on_batch = bar.update
        for shard in todo:
            piece = bank[shard.first * samples : (shard.first + shard.questions) * samples]
            for path in shard.paths(sink.folder):
                write_shard(path, _scored(engine, prompts, piece), SCHEMA)
    sink.lists(*shards_lib.names(every))
    return {"solutions": len(bank), "shards": len(every)}


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "base_orm", "bank"),
    switch=("orm.base",),
    schema=SCHEMA,
    shards=shards,
    work=lambda settings: f"{product(settings.questions.data.num_test, settings.samples)} solutions",
    spends=spends,
)


def _scored(engine: Engine, prompts: dict[str, str], piece: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in piece:
        groups.setdefault(row["question"], []).append(row)
    solutions = [solutions_of(engine, group) for group in groups.values()]
    asked = [engine.encode_prompt(question, prompts[question]) for question in groups]
    return [
        {key: row[key] for key in ("question", "seed", "sample")} | {"step_scores": list(solution.step_scores)}
        for group, scored in zip(groups.values(), engine.score(asked, solutions), strict=True)
        for row, solution in zip(group, scored, strict=True)
    ]


def with_scores(bank: pa.Table, folder: epath.Path) -> pa.Table:
    """Return the bank's rows with the scores of this stage in place of their own.

    Args:
        bank: Rows with `question`, `seed`, `sample` and `step_scores`.
        folder: Of the complete stage.

    Raises:
        UserError: A sample was not scored, or a shard is missing or damaged.
    """
    table = read_folder(folder, SCHEMA)
    scored = zip(*(table[name].to_pylist() for name in ("question", "seed", "sample")), strict=True)
    found = dict(zip(scored, table["step_scores"].to_pylist(), strict=True))
    keys = list(zip(*(bank[name].to_pylist() for name in ("question", "seed", "sample")), strict=True))
    missing = [key for key in keys if key not in found]
    if missing:
        raise UserError(f"{folder} lacks scores of {len(missing)} of {len(keys)} samples: move it away and run again")
    column = pa.array([found[key] for key in keys], bank.schema.field("step_scores").type)
    return bank.set_column(bank.schema.get_field_index("step_scores"), "step_scores", column)
