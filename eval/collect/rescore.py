"""The rescore stage: the bank's samples judged by the outcome-reward model of the policy's samples.

Those at the sampler's temperature are, on which verifiers are compared. Nothing is sampled again: what was written down
is read by another verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import shards as shards_lib
from ttcjax.eval.collect import temperatures
from ttcjax.eval.collect.bank import solutions_of
from ttcjax.eval.collect.shards import WHOLE, Part, Shard
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress

SCHEMA = verifier_scores.SCHEMA
"""Columns of the shards, a row a sample of the bank."""

VERIFIER = "base_orm"
"""What the rows call the verifier, by the stage that trained it."""


def shards(config: ExperimentConfig, questions: int, chosen: Any = None) -> list[Shard]:
    """Return the stage's shards, of so many test questions."""
    del chosen  # Verifiers are compared on samples at the sampler's temperature.
    sweep = config.sweep
    return shards_lib.cut(
        questions,
        sweep.shard_questions,
        strategy="rescore",
        answers=(("sample", sweep.samples),),
        seed=sweep.seed,
        generations=0,
    )


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Score every sample of the bank, shard by shard; finished shards are kept.

    Args:
        config: The experiment.
        workdir: Its folder.
        out: The folder of this stage.
        part: Which of the shards are this process's.

    Returns:
        `solutions`, `shards`, `files`.
    """
    task, splits = loader.askable(config, workdir)
    prompts = {e.id: task.prompt(e.question) for e in splits.test[:]}
    columns = (*verifier_scores.KEY, "text", "finished", "tokens", "logprob")
    table = sample_rows.read_folder(workdir / "bank", columns)
    bank = temperatures.rows_at(table, config.sampler.temperature).to_pylist()
    samples = config.sweep.samples
    every = shards(config, len(prompts))
    mine = part.of(every)
    todo = shards_lib.missing(mine, out, SCHEMA)
    engine = load_engine(workdir, config.sampler, verifier=VERIFIER)
    whole, left = (sum(s.questions for s in some) * samples for some in (mine, todo))
    with progress(whole, "rescore: solutions") as bar:
        bar.skip(whole - left)
        engine.on_batch = bar.update
        for shard in todo:
            piece = bank[shard.first * samples : (shard.first + shard.questions) * samples]
            for path in shard.paths(out):
                write_shard(path, _scored(engine, prompts, piece), SCHEMA)
    return {"solutions": len(bank), "shards": len(every), "files": shards_lib.names(every)}


def _scored(engine: Engine, prompts: dict[str, str], piece: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in piece:
        groups.setdefault(row["question"], []).append(row)
    solutions = [solutions_of(engine, group) for group in groups.values()]
    asked = [engine.encode_prompt(question, prompts[question]) for question in groups]
    return [
        row
        for group, scored in zip(groups.values(), engine.score(asked, solutions), strict=True)
        for row in verifier_scores.rows(group, VERIFIER, [solution.step_scores for solution in scored])
    ]
