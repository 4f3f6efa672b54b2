"""The rescore_chains stage: the answers of chains of revisions judged by verifiers from elsewhere.

They judge an answer by itself, with no other in view. Nothing is sampled again; rows say whose scores they are
(`ttcjax.eval.records.verifier_scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from ttcjax.config import ChainsConfig, ExperimentConfig, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.eval.collect import revision_chains
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.bank import solutions_of
from ttcjax.eval.collect.rescore import Further
from ttcjax.eval.records import verifier_scores
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SCHEMA = verifier_scores.ANSWER_SCHEMA
"""Columns of the shards, a row an answer and verifier."""


@dataclass(frozen=True)
class Settings:
    """Settings of the rescore_chains stage."""

    verifiers: tuple[Further, ...]
    questions: Questions
    sampler: SamplerConfig
    chains: ChainsConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        return cls(Further.named(config), config.test_questions, config.sampler.of_solutions(), config.chains)


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, those of a verifier together."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    return [
        shard
        for verifier in settings.verifiers
        for shard in shards_lib.cut(
            min(questions, settings.chains.questions or questions),
            settings.chains.shard_questions,
            strategy=verifier.name,
            answers=((verifier.name, 0),),
            seed=settings.chains.seed,
            generations=0,
            cells=(verifier.name,),
        )
    ]


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question takes of a verifier: every answer of its chains is read once."""
    del generations, own
    [(verifier, _)] = answers
    return Spent(0.0, units.prompt + sum(settings.chains.lengths) * (units.token + 1), 0, readers=(verifier,))


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Score every answer of the chains with every verifier, shard by shard; finished shards are kept.

    Returns:
        `answers`, and `shards`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples = splits.test[: settings.chains.questions or len(splits.test)]
    table = revision_chains.read(inputs["chains"]).filter(pc.field("strategy") == "revise")
    answers: dict[str, list[dict[str, Any]]] = {}
    for row in table.select([*verifier_scores.ANSWER_KEY, "text", "finished", "tokens", "logprob"]).to_pylist():
        answers.setdefault(row["question"], []).append(row)
    every = shards_of(settings, len(examples))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    each = sum(settings.chains.lengths)
    whole, left = (sum(s.questions for s in some) * each for some in (mine, todo))
    with progress(whole, "rescore_chains: answers") as bar:
        bar.skip(whole - left)
        for verifier in settings.verifiers:
            own = [shard for shard in todo if shard.strategy == verifier.name]
            if not own:
                continue
            engine = verifier.engine(inputs, settings.sampler, task.steps)
            engine.on_batch = bar.update
            for shard in own:
                asked = shard.take(examples)
                groups = [answers[example.id] for example in asked]
                prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked]
                scored = engine.score(prompts, [solutions_of(engine, group) for group in groups])
                rows = [
                    row
                    for group, found in zip(groups, scored, strict=True)
                    for row in verifier_scores.answer_rows(group, verifier.name, [one.step_scores for one in found])
                ]
                for path in shard.paths(sink.folder):
                    write_shard(path, rows, SCHEMA)
    sink.lists(*shards_lib.names(every))
    return {"answers": table.num_rows, "shards": len(every)}


def _work(settings: Settings) -> str:
    own, questions = settings.chains, settings.questions.num_test
    by = f", by {len(settings.verifiers)} verifiers" * (len(settings.verifiers) > 1)
    return f"{product(min(own.questions or questions, questions), sum(own.lengths))} answers{by}"


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "chains"),
    switch=("revision.enabled", "sweep.verifiers"),
    schema=SCHEMA,
    shards=shards,
    work=_work,
    spends=spends,
)
