"""The greedy stage: the policy and the larger one answer every test question once, with the likeliest tokens.

What test-time compute is exchanged for is a larger model that answers so (Snell et al. 2024, section 7).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.eval import rows
from ttcjax.eval.bank import result_rows
from ttcjax.metrics import progress
from ttcjax.parquet import is_whole, read_shard, shard_path, write_shard
from ttcjax.sample.loading import load_engine

MODELS = ("policy", "larger")
"""The stages that trained them, and the number of their shard."""


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Answer the test questions, a shard a model; finished shards are kept.

    Returns:
        `questions`, `shards`.
    """
    task, splits = loader.load(config.data, workdir / "data")
    examples = splits.test[:]
    sampler = dataclasses.replace(config.sampler, temperature=0.0)
    with progress(len(MODELS) * len(examples), "greedy: answers") as bar:
        for number, model in enumerate(MODELS):
            path = shard_path(out, number)
            if is_whole(path, rows.SCHEMA):
                bar.skip(len(examples))
                continue
            engine = load_engine(workdir, sampler, policy=model, verifier=None)
            engine.on_batch = bar.update
            begin = time.perf_counter()
            found = engine.sample([engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples], 1, seed=0)
            seconds = (time.perf_counter() - begin) / len(examples)
            table = result_rows(task, examples, found, strategy=f"greedy:{model}", n=1, seed=0, seconds=seconds)
            write_shard(path, table, rows.SCHEMA)
    return {"questions": len(examples), "shards": len(MODELS)}


def read(folder: epath.Path) -> dict[str, pa.Table]:
    """Return the rows of each model.

    Raises:
        UserError: A shard is missing or damaged.
    """
    columns = ("question", "correct", "tokens")
    return {
        model: read_shard(shard_path(folder, number), rows.SCHEMA, columns, delete=folder)
        for number, model in enumerate(MODELS)
    }
