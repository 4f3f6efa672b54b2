"""The attempts stage: chains of the revision model on training questions, graded; what its verifier learns from.

A verifier must see what it will judge: answers of the revision model, with the answers before them (Snell et al.
2024, App. J). The questions come after those of its trajectories, so that it was not fine-tuned to answer them, and
after those of the step labels, so that the PRM has not seen their answers either and the two can be compared. But the
policy that both were made of was trained on the reference solutions of all training questions, these among them, so
that attempts at them may be better than at questions of the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig, InView, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.data.task import Examples, Task
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import (
    is_whole,
    read_folder,
    read_shard,
    sampled_tokens,
    shard_names,
    shard_path,
    write_shard,
)
from ttcjax.runtime.progress import progress
from ttcjax.runtime.stage import Inputs, Sink, Stage, product
from ttcjax.search.chains import Answer, Reviser, read_answer

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


@dataclass(frozen=True)
class Settings:
    """Settings of the attempts stage."""

    questions: Questions
    sampler: SamplerConfig
    view: InView
    first: int
    """Place of the first question among those of training: after all that the revision model or the PRM learns from."""
    count: int
    """Questions, at most."""
    chains: int
    """Chains a question."""
    answers: int
    """Answers a chain."""
    shard_questions: int
    seed: int

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        own, revision = config.orm, config.revision
        rest_em = revision.rest_em.questions if revision.rest_em.chains else 0
        return cls(
            config.questions,
            config.sampler.of_solutions(),
            revision.view,
            max(revision.trajectories.questions, rest_em, config.labels.questions),
            own.questions,
            own.chains,
            own.answers,
            own.shard_questions,
            own.seed,
        )


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Sample and grade chains of every question; finished shards are kept.

    Returns:
        `questions`, `answers`, `correct` (the share of right answers by place in the chain), and `sampled_tokens`
        (`parquet.sampled_tokens`).

    Raises:
        UserError: There are no training questions left.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples: Examples = splits.to_train_on("attempts")[settings.first : settings.first + settings.count]
    if not len(examples):
        raise UserError(
            f"the revision model or the PRM is trained on all {len(splits.train)} training questions, and the verifier "
            "of revisions needs others: lower --revision.trajectories.questions (and --revision.rest_em.questions, "
            "--labels.questions)"
        )
    engine = load_engine(inputs, settings.sampler, policy="revision", verifier=None, steps=task.steps)
    rows = sample(
        engine,
        settings.view,
        task,
        examples,
        sink.folder,
        lengths=[settings.answers] * settings.chains,
        shard_questions=settings.shard_questions,
        seed=settings.seed,
        name="attempts",
    )
    correct = np.array([row["correct"] for row in rows])
    names = shard_names(len(examples), settings.shard_questions)
    sink.lists(*names)
    return {
        "questions": len(examples),
        "answers": int(correct.size),
        "correct": correct.mean(axis=0).tolist(),
        "sampled_tokens": sampled_tokens(sink.folder / name for name in names),
    }


def sample(
    engine: Engine,
    view: InView,
    task: Task,
    examples: Examples,
    out: epath.Path,
    *,
    lengths: Sequence[int],
    shard_questions: int,
    seed: int,
    name: str,
    until_right: bool = False,
) -> list[dict[str, Any]]:
    """Sample and grade chains of training questions, a shard at a time; finished shards are kept.

    Args:
        engine: Its policy is a revision model.
        view: What the model has in view.
        task: Grades.
        examples: The questions.
        out: Folder of the shards.
        lengths: Answers of each chain of a question, at most.
        shard_questions: Questions a shard.
        seed: Root of all random numbers.
        name: Of the work, beside its progress.
        until_right: End a chain at its first right answer.

    Returns:
        Rows of `SCHEMA`.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = []
    with progress(len(examples) * sum(lengths), f"{name}: answers") as bar:
        engine.on_batch = bar.update
        for number, start in enumerate(range(0, len(examples), shard_questions)):
            shard = examples[start : start + shard_questions]
            path = shard_path(out, number)
            if is_whole(path, SCHEMA):
                bar.skip(len(shard) * sum(lengths))
            else:
                rows, tokens = _graded(engine, view, task, shard, lengths, seed, until_right)
                write_shard(path, rows, SCHEMA, sampled=tokens)
            found += read_shard(path, SCHEMA).to_pylist()
    return found


def _graded(
    engine: Engine,
    view: InView,
    task: Task,
    examples: Examples,
    lengths: Sequence[int],
    seed: int,
    until_right: bool,
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of some questions, and the tokens that the model read and wrote for them."""
    prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples]
    gold = [e.answer for e in examples]

    def stop(question: int, answer: Answer) -> bool:
        return until_right and task.grade(read_answer(task, answer), gold[question])

    reviser = Reviser(engine, prompts, view)
    chains = reviser.sample(lengths, seed, stop)
    rows = []
    for example, group in zip(examples, chains, strict=True):
        for c, chain in enumerate(group):
            found = [read_answer(task, answer) for answer in chain]
            rows.append(
                {
                    "question": example.id,
                    "prompt": task.prompt(example.question),
                    "chain": c,
                    "answers": [answer.text for answer in chain],
                    "correct": [task.grade(answer, example.answer) for answer in found],
                    "parsable": [answer is not None for answer in found],
                }
            )
    return rows, reviser.tokens(chains)


def read(folder: epath.Path) -> list[dict[str, Any]]:
    """Return the rows of a complete attempts stage.

    Raises:
        UserError: There are none, or a file is damaged.
    """
    return read_folder(folder, SCHEMA).to_pylist()


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "revision"),
    switch=("revision.enabled", "orm.revisions"),
    work=lambda settings: f"{product(settings.count, settings.chains, settings.answers)} answers",
)
