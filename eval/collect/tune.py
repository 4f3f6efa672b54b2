"""The tune stage: strategies whose temperature is to be chosen, run at several of them on validation questions.

Its rows are those of bank and search together, by the same code, of other questions, for
`ttcjax.eval.collect.validated`.
"""

from __future__ import annotations

from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import bank, validated
from ttcjax.eval.collect import searches as sweep
from ttcjax.eval.collect import shards as shards_lib
from ttcjax.eval.collect.shards import WHOLE, Part, Shard
from ttcjax.eval.records import sample_rows
from ttcjax.runtime.progress import progress

SCHEMA = sample_rows.SCHEMA
"""Columns of the shards."""


def shards(config: ExperimentConfig, questions: int, chosen: Any = None) -> list[Shard]:
    """Return the stage's shards, samples and then searches, of so many validation questions."""
    del chosen  # It is what this stage is for.
    trial = validated.on_validation(config, questions)
    return [*bank.shards(trial, questions), *sweep.shards(trial, questions)]


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Run the missing shards of every strategy at every temperature.

    Args:
        config: The experiment.
        workdir: Its folder.
        out: The folder of this stage.
        part: Which of the shards are this process's.

    Returns:
        `questions`, `solutions`, `shards`, and `files`.
    """
    task, splits = loader.askable(config, workdir)
    examples = splits.valid[: config.sweep.tune_questions]
    trial = validated.on_validation(config, len(examples))
    every = shards(config, len(examples))
    mine = part.of(every)
    todo = shards_lib.missing(mine, out, SCHEMA)
    engine = load_engine(workdir, trial.sampler, steps=task.steps)
    searches = sweep.by_answers(trial)
    sampled = [shard for shard in todo if shard.answers not in searches]
    searched = [shard for shard in todo if shard.answers in searches]

    def solutions(some: list[Shard]) -> int:
        # A sample is drawn and then scored, a search's rows are done at once.
        return sum(
            s.questions * (searches[s.answers].rows() if s.answers in searches else 2 * s.generations) for s in some
        )

    with progress(solutions(mine), "tune: solutions of validation questions") as bar:
        bar.skip(solutions(mine) - solutions(todo))
        engine.on_batch = bar.update
        for shard in sampled:
            bank.write(trial, task, examples, engine, shard, out)
        for shard in searched:
            sweep.write(trial, task, examples, engine, shard, out)
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * shard.generations for shard in every),
        "shards": len(every),
        "files": shards_lib.names(every),
    }
