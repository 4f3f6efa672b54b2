"""The attempts stage: chains of the revision model on training questions, graded; what its verifier learns from.

A verifier must see what it will judge: answers of the revision model, with the answers before them (Snell et al.
2024, App. J). The questions come after those of the trajectories, so that the model has not seen their answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.data.task import Examples
from ttcjax.errors import UserError
from ttcjax.metrics import progress
from ttcjax.parquet import is_whole, read_shard, shard_path, write_shard
from ttcjax.revise.chain import Reviser
from ttcjax.sample.loading import load_engine

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chain", pa.int32(), nullable=False),
        pa.field("answers", pa.list_(pa.string()), nullable=False, metadata={"about": "texts, in their order"}),
        pa.field("correct", pa.list_(pa.bool_()), nullable=False),
        pa.field("parsable", pa.list_(pa.bool_()), nullable=False, metadata={"about": "ended, with an answer"}),
    ]
)
"""Columns of the shards, a row a chain."""


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Sample and grade `config.orm.chains` chains of every question; finished shards are kept.

    Returns:
        `questions`, `answers`, and `correct`: the share of right answers by place in the chain.

    Raises:
        UserError: There are no training questions left.
    """
    task, splits = loader.load(config.data, workdir / "data")
    settings = config.orm
    first = config.revision.trajectories.questions
    examples: Examples = splits.train[first : first + settings.questions]
    if not len(examples):
        raise UserError(
            f"the trajectories use up all {len(splits.train)} training questions, and the revision model's verifier "
            "needs others: lower --revision.trajectories.questions"
        )
    engine = load_engine(workdir, config.sampler, policy="revision", verifier=None)
    size, paths = settings.shard_questions, []
    per_question = settings.chains * settings.answers
    with progress(len(examples) * per_question, "attempts: answers") as bar:
        engine.on_batch = bar.update
        for number, start in enumerate(range(0, len(examples), size)):
            shard = examples[start : start + size]
            path = shard_path(out, number)
            paths.append(path)
            if is_whole(path, SCHEMA):
                bar.skip(len(shard) * per_question)
                continue
            prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in shard]
            reviser = Reviser(engine, prompts, config.revision)
            chains = reviser.sample([settings.answers] * settings.chains, settings.seed)
            rows = []
            for example, group in zip(shard, chains, strict=True):
                for c, chain in enumerate(group):
                    found = [task.extract(a.text) if a.solution.finished else None for a in chain]
                    rows.append(
                        {
                            "question": example.id,
                            "prompt": task.prompt(example.question),
                            "chain": c,
                            "answers": [a.text for a in chain],
                            "correct": [task.grade(answer, example.answer) for answer in found],
                            "parsable": [answer is not None for answer in found],
                        }
                    )
            write_shard(path, rows, SCHEMA)
    correct = np.array([row for path in paths for row in read_shard(path, SCHEMA, ["correct"])["correct"].to_pylist()])
    return {"questions": len(examples), "answers": int(correct.size), "correct": correct.mean(axis=0).tolist()}


def read(folder: epath.Path) -> list[dict[str, Any]]:
    """Return the rows of a complete attempts stage.

    Raises:
        UserError: There are none, or a file is damaged.
    """
    rows = [
        row
        for path in sorted(folder.glob("shard-*.parquet"))
        for row in read_shard(path, SCHEMA, delete=folder).to_pylist()
    ]
    if not rows:
        raise UserError(f"there are no attempts in {folder}: run the attempts stage first")
    return rows
