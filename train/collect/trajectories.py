"""The trajectories stage: training data of the revision model, from samples of the policy.

Snell et al. 2024, section 6.1 and App. H: sample answers in parallel, drop those that cannot be read, and put
before every right answer a few wrong ones of the same question, the one most like it last, so that the model
learns to mend an answer and not to begin afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath
from rapidfuzz.distance import Levenshtein

from ttcjax.config import ExperimentConfig, Questions, SamplerConfig, TrajectoryConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_engine
from ttcjax.engine.requests import read_and_written
from ttcjax.engine.rows import question_number
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import is_whole, read_folder, read_shard, sampled_tokens, shard_path, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SAMPLES = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("answer", pa.string(), metadata={"about": "null if unparsable or cut off"}),
        pa.field("correct", pa.bool_(), nullable=False),
    ]
)
"""Columns of the sample shards."""

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answers", pa.list_(pa.string()), nullable=False, metadata={"about": "wrong ones, the nearest last"}),
        pa.field("target", pa.string(), nullable=False, metadata={"about": "the right answer"}),
        pa.field("distance", pa.int32(), metadata={"about": "edits from the last wrong answer; null without one"}),
    ]
)
"""Columns of trajectories."""

_DISTANCES = (0, 1, 2, 3, 5, 9, 17, 33, 65)
"""Lower edges of the histogram of edit distances."""


@dataclass(frozen=True)
class Trajectory:
    """Wrong answers and the right one that a model is to give after them."""

    answers: tuple[str, ...]
    """Wrong ones, the nearest to the target last."""
    target: str
    distance: int | None
    """Insertions, deletions and replacements of characters from the last wrong answer; `None` without one."""


def build(
    right: Sequence[str],
    wrong: Sequence[str],
    most: int,
    rng: np.random.Generator,
    context: str = "wrong",
    kept: float = 0.0,
) -> list[Trajectory]:
    """Make a trajectory of every right answer to one question.

    Under `wrong`, k of the wrong answers stand before it, k drawn evenly from 0 .. min(`most`, their number): the
    one with the least edit distance last (the first of equals), the others drawn without replacement, in random
    order. Under `any`, k of all other answers do, drawn without replacement, in random order, but none with the
    target's own text: then the way to the lowest loss would be to copy. A share `kept` of the trajectories is there to
    teach just that: from 1 to all of at most `most` answers in view, the last ones, are the target.

    Args:
        right: Texts of right answers, repeated ones included.
        wrong: Texts of wrong answers that could be read.
        most: Most answers before a right one.
        rng: Decides everything that is random.
        context: `TrajectoryConfig.context`.
        kept: `TrajectoryConfig.kept`.
    """
    nearest: dict[str, tuple[int, int]] = {}
    found = []
    for target in right:
        if kept and rng.random() < kept:
            found.append(_kept(target, wrong, most, rng))
            continue
        if context == "any":
            found.append(_among_all(target, right, wrong, most, rng))
            continue
        k = int(rng.integers(0, min(most, len(wrong)), endpoint=True))
        if not k:
            found.append(Trajectory((), target, None))
            continue
        if target not in nearest:
            distances = [Levenshtein.distance(text, target) for text in wrong]
            nearest[target] = min((distance, i) for i, distance in enumerate(distances))
        distance, last = nearest[target]
        others = rng.permutation([i for i in range(len(wrong)) if i != last])[: k - 1]
        found.append(Trajectory((*(wrong[int(i)] for i in others), wrong[last]), target, distance))
    return found


def _kept(target: str, wrong: Sequence[str], most: int, rng: np.random.Generator) -> Trajectory:
    shown = int(rng.integers(1, most, endpoint=True))
    same = int(rng.integers(1, shown, endpoint=True))
    others = rng.permutation(len(wrong))[: shown - same]
    return Trajectory((*(wrong[int(i)] for i in others), *[target] * same), target, 0)


def _among_all(
    target: str, right: Sequence[str], wrong: Sequence[str], most: int, rng: np.random.Generator
) -> Trajectory:
    others = [text for text in (*right, *wrong) if text != target]
    k = int(rng.integers(0, min(most, len(others)), endpoint=True))
    shown = tuple(others[int(i)] for i in rng.permutation(len(others))[:k])
    return Trajectory(shown, target, Levenshtein.distance(shown[-1], target) if shown else None)


@dataclass(frozen=True)
class Settings:
    """Settings of the trajectories stage."""

    questions: Questions
    sampler: SamplerConfig
    trajectories: TrajectoryConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        own = config.revision.trajectories
        return cls(config.questions, config.sampler.of_solutions(own.temperature), own)


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Sample training questions and count the trajectories that they give; finished shards of samples are kept.

    Returns:
        The counts of `from_samples`, and `sampled_tokens` (`parquet.sampled_tokens`).

    Raises:
        UserError: No sample is right, so there is nothing to learn from.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    engine = load_engine(inputs, settings.sampler, verifier=None, steps=task.steps)
    own = settings.trajectories
    examples, size = splits.to_train_on("trajectories")[: own.questions], own.shard_questions
    paths = []
    with progress(len(examples) * own.samples, "trajectories: answers") as bar:
        engine.on_batch = bar.update
        for number, start in enumerate(range(0, len(examples), size)):
            shard = examples[start : start + size]
            path = shard_path(sink.folder, number)
            paths.append(path)
            if is_whole(path, SAMPLES):
                bar.skip(len(shard) * own.samples)
                continue
            prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in shard]
            sampled = engine.sample(prompts, own.samples, own.seed, temperature=own.temperature)
            rows = []
            for example, solutions in zip(shard, sampled, strict=True):
                for index, solution in enumerate(solutions):
                    answer = task.extract(solution.text) if solution.finished else None
                    rows.append(
                        {
                            "question": example.id,
                            "sample": index,
                            "prompt": task.prompt(example.question),
                            "text": solution.text,
                            "answer": answer,
                            "correct": task.grade(answer, example.answer),
                        }
                    )
            write_shard(path, rows, SAMPLES, sampled=read_and_written(prompts, sampled))
    samples = pa.concat_tables(read_shard(path, SAMPLES) for path in paths)
    rows, counts = from_samples(samples, own)
    if not rows:
        raise UserError(
            "no sampled answer is right, so there is nothing to revise towards: train the policy longer, or lower "
            "--revision.trajectories.temperature"
        )
    sink.lists(*(path.name for path in paths))
    return {**counts, "sampled_tokens": sampled_tokens(paths)}


def from_samples(samples: pa.Table, settings: TrajectoryConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make the trajectories of sampled questions.

    Args:
        samples: With the columns of `SAMPLES`; a question's rows stand together.
        settings: `most`, `context`, `kept` and `seed` are used.

    Returns:
        Rows of `SCHEMA`, and the counts: `questions`, `samples`, `unparsable`, `right`, `wrong`, `trajectories`,
        `kept` (trajectories whose last answer in view is the target), `without_right` and `without_wrong` (shares of
        questions), `context` (trajectories by number of answers
        before), `distance` (trajectories by least edits of a bin, as text, and their number) and `mean_distance`.
    """
    questions, rows = 0, []
    without_right, without_wrong = 0, 0
    table = samples.to_pylist()
    starts = [i for i in range(len(table)) if not i or table[i]["question"] != table[i - 1]["question"]]
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        piece = table[start:end]
        question, prompt = piece[0]["question"], piece[0]["prompt"]
        right = [row["text"] for row in piece if row["correct"]]
        wrong = [row["text"] for row in piece if not row["correct"] and row["answer"] is not None]
        questions += 1
        without_right += not right
        without_wrong += not wrong
        rng = np.random.default_rng([settings.seed, question_number(question)])
        rows += [
            {
                "question": question,
                "prompt": prompt,
                "answers": list(trajectory.answers),
                "target": trajectory.target,
                "distance": trajectory.distance,
            }
            for trajectory in build(right, wrong, settings.most, rng, settings.context, settings.kept)
        ]
    distances = [row["distance"] for row in rows if row["distance"] is not None]
    unparsable = sum(row["answer"] is None for row in table)
    right_count = sum(row["correct"] for row in table)
    return rows, {
        "questions": questions,
        "samples": len(table),
        "unparsable": unparsable,
        "right": right_count,
        "wrong": len(table) - unparsable - right_count,
        "trajectories": len(rows),
        "kept": sum(row["answers"][-1:] == [row["target"]] for row in rows),
        "without_right": without_right / max(1, questions),
        "without_wrong": without_wrong / max(1, questions),
        "context": np.bincount([len(row["answers"]) for row in rows], minlength=settings.most + 1).tolist(),
        "distance": {
            str(least): int(count)
            for least, count in zip(_DISTANCES, np.histogram(distances, [*_DISTANCES, np.inf])[0], strict=True)
        },
        "mean_distance": float(np.mean(distances)) if distances else None,
    }


def read(folder: epath.Path, settings: TrajectoryConfig) -> list[dict[str, Any]]:
    """Return the trajectories of a complete stage, made from its samples as `run` counted them.

    Args:
        folder: Of the stage.
        settings: Those that it was run with.

    Returns:
        Rows of `SCHEMA`.

    Raises:
        UserError: The samples are missing or damaged.
    """
    return from_samples(read_folder(folder, SAMPLES), settings)[0]


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy"),
    switch=("revision.enabled",),
    version=2,
    work=lambda settings: f"{product(settings.trajectories.questions, settings.trajectories.samples)} answers",
)
