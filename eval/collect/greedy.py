"""The greedy stage: the policy, and a larger one, answer every test question once, with the likeliest tokens.

The policy's answer is the baseline of every strategy that spends more (`ttcjax.eval.sections.baseline`); a larger
model that answers so is what test-time compute is exchanged for (Snell et al. 2024, section 7).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import shards as shards_lib
from ttcjax.eval.collect.bank import result_rows
from ttcjax.eval.collect.shards import WHOLE, Part, Shard
from ttcjax.eval.records import sample_rows as rows
from ttcjax.runtime.parquet import is_whole, read_folder, write_shard
from ttcjax.runtime.progress import progress

MODELS = ("policy", "larger")
"""The stages that trained them, and the number of their shard; the larger one where there is one."""


SCHEMA = rows.SCHEMA


def shards(config: ExperimentConfig, questions: int, chosen: Any = None) -> list[Shard]:
    """Return the stage's shards, one a model of the experiment, of so many test questions."""
    del chosen  # Its temperature is 0.
    return [
        Shard(name, answers=((name, 1),), seed=0, number=number, first=0, questions=questions, generations=1)
        for number, name in enumerate(f"greedy:{model}" for model in MODELS[: 1 + config.larger.enabled])
    ]


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Answer the test questions, a shard a model; finished shards are kept.

    Args:
        config: The experiment.
        workdir: Its folder.
        out: The folder of this stage.
        part: Which of the shards are this process's.

    Returns:
        `questions`, `shards`, `files`.
    """
    task, splits = loader.askable(config, workdir)
    examples = splits.test[:]
    sampler = dataclasses.replace(config.sampler, temperature=0.0)
    every = shards(config, len(examples))
    with progress(sum(shard.questions for shard in part.of(every)), "greedy: answers") as bar:
        for shard in part.of(every):
            (path,) = shard.paths(out)
            if is_whole(path, SCHEMA):
                bar.skip(shard.questions)
                continue
            engine = load_engine(workdir, sampler, policy=MODELS[shard.number], verifier=None, steps=task.steps)
            engine.on_batch = bar.update
            begin = time.perf_counter()
            prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples]
            found = engine.sample(prompts, 1, shard.seed)
            seconds = (time.perf_counter() - begin) / len(examples)
            table = result_rows(
                task, examples, found, strategy=shard.strategy, n=1, seed=shard.seed, temperature=0.0, seconds=seconds
            )
            write_shard(path, table, SCHEMA)
    return {"questions": len(examples), "shards": len(every), "files": shards_lib.names(every)}


def read(folder: epath.Path) -> dict[str, pa.Table]:
    """Return the rows of each model that has any.

    Raises:
        UserError: A file is missing or damaged.
    """
    table = read_folder(folder, SCHEMA, ("strategy", "question", "correct", "tokens"))
    found = {model: table.filter(pc.field("strategy") == f"greedy:{model}") for model in MODELS}
    return {model: rows for model, rows in found.items() if rows.num_rows}
