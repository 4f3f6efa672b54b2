"""The revision stage: the policy fine-tuned to answer again with earlier answers in view.

Snell et al. 2024, section 6.1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from ttcjax.config import (
    ExperimentConfig,
    InView,
    ModelConfig,
    Questions,
    ReSTConfig,
    SamplerConfig,
    TrainConfig,
    TrajectoryConfig,
    to_dict,
)
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model
from ttcjax.engine.loading import load_model
from ttcjax.model.params import Params
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.parquet import sampled_tokens, shard_names
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.search.context import Context
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import TokenExample, revision_examples, train_batches, valid_batches, warn_of_cuts
from ttcjax.train.collect import rest_em, trajectories
from ttcjax.train.loop import fit, in_training
from ttcjax.train.models.policy import make_loss, training_work
from ttcjax.train.models.prm import held_out


@dataclass(frozen=True)
class SecondTraining:
    """Settings of the training on trajectories of the model's own (`revision.rest_em`)."""

    made: ReSTConfig
    """How trajectories are sampled and balanced."""
    questions: Questions
    sampler: SamplerConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> SecondTraining | None:
        """Return the settings; `None` where an experiment has no second training, and nothing is sampled."""
        rest = config.revision.rest_em
        return cls(rest, config.questions, config.sampler.of_solutions()) if rest.chains else None


@dataclass(frozen=True)
class Settings:
    """Settings of the revision stage; the model is the policy's, with room for the answers in view."""

    train: TrainConfig
    valid_fraction: float
    """Share of the questions held out for the choice of checkpoint."""
    max_seq_len: int
    """Longest question with its answers in tokens; 0 is the policy's."""
    view: InView
    trajectories: TrajectoryConfig
    """How trajectories are made of the samples of that stage."""
    rest_em: SecondTraining | None

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        own = config.revision
        return cls(
            own.train,
            own.valid_fraction,
            own.max_seq_len,
            own.view,
            own.trajectories,
            SecondTraining.of(config),
        )


def _work(settings: Settings) -> str:
    return training_work(settings.train, 2 if settings.rest_em else 1)


def _trainings(settings: Settings) -> list[tuple[str, TrainConfig]]:
    first = [("revision, offline", settings.train)] if settings.rest_em else []
    return [*first, ("revision", settings.train)]


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Fine-tune the policy on the trajectories and write the revision model to `best`.

    With `revision.rest_em` that model, in `offline/best`, samples trajectories of its own, and the one in `best` is the
    policy fine-tuned on these.

    Returns:
        What the policy stage returns, `train_trajectories`, `valid_trajectories`, and `cut_trajectories`: how many of
        both do not show all their answers, for want of room; with `revision.rest_em` the same of the first model as
        `offline`, the counts of `rest_em.balanced` as `rest_em`, and `sampled_tokens` (`parquet.sampled_tokens`).
    """
    tokenizer, out = loader.tokenizer(inputs["data"]), sink.folder
    policy = load_model(inputs, "policy", tokenizer)
    model = dataclasses.replace(policy.config, max_seq_len=settings.max_seq_len or policy.config.max_seq_len)
    fine_tune = functools.partial(_fine_tune, settings, tokenizer, policy.params, model)
    rows = trajectories.read(inputs["trajectories"], settings.trajectories)
    own = settings.rest_em
    if own is None:
        return fine_tune(rows, out)
    first = fine_tune(rows, out / "offline", name="revision, offline")
    params, _ = load_params(out / "offline" / "best", tokenizer)
    task, splits = loader.askable(own.questions, inputs["data"])
    engine = Engine(Model(params, model, tokenizer.fingerprint), tokenizer, own.sampler, steps=task.steps)
    rest = own.made
    chains = rest_em.sample(rest, settings.view, engine, task, splits.to_train_on("revision"), out / "chains")
    rows, counts = rest_em.balanced(chains, rest)
    second = fine_tune(rows, out, source="revision.rest_em.questions")
    shards = shard_names(len(chains) // rest.chains, rest.shard_questions)
    sink.lists("offline/best", *(f"chains/{name}" for name in shards))
    tokens = sampled_tokens(out / "chains" / name for name in shards)
    return {**second, "offline": first, "rest_em": counts, "sampled_tokens": tokens}


def _fine_tune(
    settings: Settings,
    tokenizer: Tokenizer,
    policy: Params,
    model: ModelConfig,
    rows: Sequence[Mapping[str, Any]],
    out: epath.Path,
    name: str = "revision",
    source: str = "revision.trajectories.questions",
) -> dict[str, Any]:
    """Fine-tune the policy on rows with `question`, `prompt`, `answers` and `target`; write it to `out/best`.

    `source` is the setting that gives more rows.
    """
    train = settings.train
    held = held_out((row["question"] for row in rows), settings.valid_fraction, source)
    context = Context(tokenizer, settings.view.max_answers, restate=settings.view.restate)

    def examples(rows: Sequence[Mapping[str, Any]]) -> list[TokenExample]:
        given = ((row["prompt"], row["answers"], row["target"]) for row in rows)
        return revision_examples(given, context, tokenizer, train.seq_len)

    train_examples = examples([row for row in rows if row["question"] not in held])
    valid_examples = examples([row for row in rows if row["question"] in held])
    warn_of_cuts(context, len(rows), "revision.train.seq_len")
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}
    result = fit(
        train,
        make_loss(in_training(model, train)),
        policy,
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out,
        name=name,
        metadata={"kind": "revision", "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
    )
    return {
        **result.summary(),
        "train_trajectories": len(train_examples),
        "valid_trajectories": len(valid_examples),
        "cut_trajectories": context.cut,
    }


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "trajectories"),
    writes=("best",),
    switch=("revision.enabled",),
    work=_work,
    trainings=_trainings,
)
