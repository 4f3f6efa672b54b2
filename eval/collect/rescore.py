"""The rescore stage: the bank's samples judged by further verifiers, such as the outcome-reward model of base samples.

Those at the sampler's temperature are, on which verifiers are compared. Nothing is sampled again: what was written down
is read by another verifier. Its rows say whose scores they are (`ttcjax.eval.records.verifier_scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from ttcjax.config import SPEED_ONLY, ExperimentConfig, OwnVerifier, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts, temperatures
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.bank import solutions_of
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.runtime import checkpoint
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product
from ttcjax.text.steps import StepFormat

SCHEMA = verifier_scores.SCHEMA
"""Columns of the shards, a row a sample of the bank and verifier."""


@dataclass(frozen=True)
class Further:
    """A verifier that judges samples which are there."""

    name: str
    """Where there is no folder, also the stage that trained it."""
    folder: str | None = field(default=None, metadata=SPEED_ONLY)
    """Of its model, for one that was not trained in the run."""
    content: str | None = None
    """Hash of that model."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> tuple[Further, ...]:
        """Return the verifiers of an experiment that judge its bank beside the one it is made with."""
        return (*[cls(verifier_scores.BASE_ORM)] * config.orm.base, *cls.named(config))

    @classmethod
    def named(cls, config: ExperimentConfig) -> tuple[Further, ...]:
        """Return those of `sweep.verifiers` alone."""
        sweep = config.sweep
        hashes = {own.name: own.place for own in map(OwnVerifier.parse, sweep.verifiers_content or ())}
        return tuple(cls(own.name, own.place, hashes.get(own.name)) for own in sweep.own_verifiers)

    def engine(self, inputs: Inputs, sampler: SamplerConfig, steps: StepFormat) -> Engine:
        """Return an engine whose verifier it is.

        Raises:
            UserError: There is no such model, or it is not the one with that hash.
        """
        if self.folder is None:
            return load_engine(inputs, sampler, verifier=self.name, steps=steps)
        folder = epath.Path(self.folder)
        if self.content is not None and checkpoint.content(folder) != self.content:
            raise UserError(
                f"the verifier {self.name} in {folder} is not the one that is to judge the bank: put it back, or read "
                "what is there (--changed_inputs read)"
            )
        return load_engine(inputs, sampler, verifier=folder, steps=steps)


@dataclass(frozen=True)
class Settings:
    """Settings of the rescore stage."""

    verifiers: tuple[Further, ...]
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
        return cls(
            Further.of(config),
            config.test_questions,
            config.sampler.of_solutions(),
            sweep.samples,
            sweep.seed,
            sweep.shard_questions,
        )


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, those of a verifier together."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    return [
        shard
        for verifier in settings.verifiers
        for shard in shards_lib.cut(
            questions,
            settings.shard_questions,
            strategy=verifier.name,
            answers=((verifier.name, settings.samples),),
            seed=settings.seed,
            generations=0,
            cells=(verifier.name,),
        )
    ]


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question takes of a verifier: what the bank's read is read once more."""
    del generations, own
    [(verifier, _)] = answers
    _, read = amounts.of_samples(units.bank, settings.samples, units)
    return Spent(0.0, read, 0, readers=(verifier,))


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Score every sample of the bank with every verifier, shard by shard; finished shards are kept.

    Returns:
        `solutions`, and `shards`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    prompts = {e.id: task.prompt(e.question) for e in splits.test[:]}
    columns = (*verifier_scores.KEY, "text", "finished", "tokens", "logprob")
    table = sample_rows.read_folder(inputs["bank"], columns)
    bank = temperatures.rows_at(table, settings.sampler.temperature).to_pylist()
    samples = settings.samples
    every = shards_of(settings, len(prompts))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    whole, left = (sum(s.questions for s in some) * samples for some in (mine, todo))
    with progress(whole, "rescore: solutions") as bar:
        bar.skip(whole - left)
        for verifier in settings.verifiers:
            own = [shard for shard in todo if shard.strategy == verifier.name]
            if not own:
                continue
            engine = verifier.engine(inputs, settings.sampler, task.steps)
            engine.on_batch = bar.update
            for shard in own:
                piece = bank[shard.first * samples : (shard.first + shard.questions) * samples]
                for path in shard.paths(sink.folder):
                    write_shard(path, _scored(engine, prompts, piece, verifier.name), SCHEMA)
    sink.lists(*shards_lib.names(every))
    return {"solutions": len(bank), "shards": len(every)}


def _work(settings: Settings) -> str:
    by = f", by {len(settings.verifiers)} verifiers" * (len(settings.verifiers) > 1)
    return f"{product(settings.questions.num_test, settings.samples)} solutions{by}"


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "base_orm", "bank"),
    switch=(("orm.base", "sweep.verifiers"),),
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=_work,
    spends=spends,
)


def _scored(
    engine: Engine, prompts: dict[str, str], piece: Sequence[dict[str, Any]], verifier: str
) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in piece:
        groups.setdefault(row["question"], []).append(row)
    solutions = [solutions_of(engine, group) for group in groups.values()]
    asked = [engine.encode_prompt(question, prompts[question]) for question in groups]
    return [
        row
        for group, scored in zip(groups.values(), engine.score(asked, solutions), strict=True)
        for row in verifier_scores.rows(group, verifier, [solution.step_scores for solution in scored])
    ]
