"""The labels stage: how often the policy still gets there from every step of its own solutions.

Snell et al. 2024, section 5.1 and App. D, after Math-Shepherd (Wang et al. 2023): sample solutions of training
questions, drop those without a readable answer, and from every step prefix sample completions; the share of
right ones is the step's soft label. The last step has nothing to complete, so its label is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig, LabelConfig, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.engine import Engine, Prompt, Solution
from ttcjax.engine.loading import load_engine
from ttcjax.engine.requests import read_and_written
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import is_whole, read_shard, sampled_tokens, shard_path, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("solution", pa.string(), nullable=False),
        pa.field("step_values", pa.list_(pa.float32()), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
    ]
)


@dataclass
class _Counts:
    """Counts of the samples of the shards at hand, by what became of them."""

    samples: int = 0
    dropped: int = 0
    correct: int = 0
    steps: int = 0
    rollouts: int = 0
    tokens: int = 0
    """Read and written by the policy; a prompt or prefix is read once for all that go on from it."""
    generated: int = 0
    """Samples and rollouts so far, those of the batch at hand included."""


@dataclass(frozen=True)
class Settings:
    """Settings of the labels stage."""

    questions: Questions
    sampler: SamplerConfig
    labels: LabelConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        return cls(config.questions, config.sampler.of_solutions(), config.labels)


def _work(settings: Settings) -> str:
    own = settings.labels
    return f"{product(own.questions, own.samples)} solutions, {own.rollouts} completions of each step"


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Label training questions, shard by shard; finished shards are kept.

    Returns:
        `questions`, `solutions`, `steps`, `mean_value`, and of the shards labelled by this call `samples`,
        `dropped` (without a readable answer or unfinished) and `rollouts`; `sampled_tokens` (`parquet.sampled_tokens`).

    Raises:
        UserError: No sample has a readable answer, so there is nothing to learn from.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    engine = load_engine(inputs, settings.sampler, verifier=None, steps=task.steps)
    examples = splits.to_train_on("labels")[: settings.labels.questions]
    counts = _Counts()
    size = settings.labels.shard_questions
    paths = []
    with progress(len(examples), "labels: questions") as bar:

        def show(count: int) -> None:
            # How many rollouts a question takes shows only when its samples are there.
            counts.generated += count
            bar.update(0, note=f"{counts.generated} solutions")

        engine.on_batch = show
        for number, start in enumerate(range(0, len(examples), size)):
            shard = examples[start : start + size]
            path = shard_path(sink.folder, number)
            paths.append(path)
            if is_whole(path, SCHEMA):
                bar.skip(len(shard))
            else:
                before = counts.tokens
                rows = label(engine, task, shard, settings.labels, counts)
                write_shard(path, rows, SCHEMA, sampled=counts.tokens - before)
                bar.update(len(shard))
    sink.lists(*(path.name for path in paths))
    return _summary(paths, len(examples), counts)


def label(
    engine: Engine, task: Task, examples: Sequence[Example], labels: LabelConfig, counts: _Counts
) -> list[dict[str, Any]]:
    """Sample solutions of some questions and label every step.

    A prefix that several samples of a question share is completed once, and its label shared.
    """
    prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples]
    sampled = engine.sample(prompts, labels.samples, labels.seed)
    counts.tokens += read_and_written(prompts, sampled)
    kept: list[tuple[int, int, Solution, bool]] = []
    prefixes: dict[tuple[int, tuple[int, ...]], Prompt] = {}
    for q, (example, solutions) in enumerate(zip(examples, sampled, strict=True)):
        for index, solution in enumerate(solutions):
            counts.samples += 1
            answer = task.extract(solution.text) if solution.finished else None
            if answer is None:
                counts.dropped += 1
                continue
            correct = task.grade(answer, example.answer)
            counts.correct += correct
            kept.append((q, index, solution, correct))
            for prefix in _step_prefixes(engine, solution):
                # The id makes a prefix's rollouts its own, whichever sample it came from.
                name = f"{example.id}/{' '.join(map(str, prefix))}"
                room = engine.sampler.max_tokens - len(prefix)
                prefixes.setdefault((q, prefix), Prompt(name, prompts[q].tokens + prefix, max_tokens=room))

    keys = list(prefixes)
    rollouts = engine.sample(list(prefixes.values()), labels.rollouts, labels.seed + 1, temperature=labels.temperature)
    counts.rollouts += len(keys) * labels.rollouts
    counts.tokens += read_and_written(prefixes.values(), rollouts)
    values: dict[tuple[int, tuple[int, ...]], float] = {}
    for (q, prefix), ends in zip(keys, rollouts, strict=True):
        before = engine.tokenizer.decode(prefix)
        answers = [task.extract(before + end.text) if end.finished else None for end in ends]
        right = [task.grade(answer, examples[q].answer) for answer in answers]
        values[q, prefix] = float(np.mean(right))

    rows = []
    for q, index, solution, correct in kept:
        step_values = [values[q, prefix] for prefix in _step_prefixes(engine, solution)] + [float(correct)]
        counts.steps += len(step_values)
        rows.append(
            {
                "question": examples[q].id,
                "sample": index,
                "prompt": task.prompt(examples[q].question),
                "solution": solution.text,
                "step_values": step_values,
                "correct": correct,
            }
        )
    return rows


def _step_prefixes(engine: Engine, solution: Solution) -> list[tuple[int, ...]]:
    """Return the tokens up to every step end but the last."""
    return [solution.tokens[: i + 1] for i in engine.step_marks.ends(solution.tokens)[:-1]]


def _summary(paths: Sequence[epath.Path], questions: int, counts: _Counts) -> dict[str, Any]:
    solutions, values = 0, []
    for path in paths:
        table = read_shard(path, SCHEMA, ["step_values"])
        solutions += table.num_rows
        values.append(np.asarray(table["step_values"].combine_chunks().flatten()))
    if not solutions:
        raise UserError(
            "no sampled solution ends with an answer that can be read, so no step can be labelled: train the "
            "policy longer, or raise --sampler.max_tokens"
        )
    flat = np.concatenate(values)
    return {
        "questions": questions,
        "solutions": solutions,
        "steps": int(flat.size),
        "mean_value": float(flat.mean()),
        "samples": counts.samples,
        "dropped": counts.dropped,
        "rollouts": counts.rollouts,
        "sampled_tokens": sampled_tokens(paths),
    }


STAGE = Stage(Settings.of, run, needs=("data", "policy"), work=_work)
