"""The ORM stage: verifiers of the revision model's answers, trained on whether whole answers are right.

Snell et al. 2024, App. J and K: one judges an answer with those before it in view, one the same answer alone.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from ttcjax.config import DataConfig, ExperimentConfig, InView, SamplerConfig
from ttcjax.data import loader
from ttcjax.engine.engine import Model
from ttcjax.engine.loading import load_model
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.search import revision_verifiers
from ttcjax.search.context import Context
from ttcjax.search.revision_verifiers import Judges
from ttcjax.text.steps import StepFormat
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import JudgedAnswer, orm_examples, train_batches, valid_batches, warn_of_cuts
from ttcjax.train.collect import attempts
from ttcjax.train.loop import fit, in_training
from ttcjax.train.models import verifier_choice
from ttcjax.train.models.policy import training_work
from ttcjax.train.models.prm import CHOOSE_BY, Training, held_out, initial_params, learnt_from, make_loss, metadata
from ttcjax.verify.value_head import ValueHead


@dataclass(frozen=True)
class Settings:
    """Settings of the ORM stage; a verifier has the shape and the trunk of the model that it judges."""

    data: DataConfig
    """Says how answers are read and graded, and where a step ends."""
    variants: tuple[str, ...]
    training: Training
    every_step: bool
    """Label every step of an answer with what comes of it, not the last alone."""
    view: InView
    sampler: SamplerConfig
    """Settings of the engine that scores the held-out answers."""
    judges: Judges
    """The verifiers among which one is chosen."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        return cls(
            config.data,
            config.orm.variants,
            Training.of(config.orm),
            config.orm.every_step,
            config.revision.view,
            config.sampler.of_solutions(),
            Judges.of(config),
        )


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train the verifiers and write each to `<variant>/best`.

    Returns:
        For each variant what `train_verifier` returns; `selection`: how well each, and the PRM, selects among the
        revisions of the questions held out, and which one does best (`verifier_choice.judge`).
    """
    tokenizer = loader.tokenizer(inputs["data"])
    judged, task = load_model(inputs, "revision", tokenizer), loader.task(settings.data)
    chains = attempts.read(inputs["attempts"])
    read = attempt_rows(chains, history=False)
    held = held_out((row.question for row in read), settings.training.valid_fraction, "orm.questions")
    found: dict[str, Any] = {
        variant: train_verifier(
            judged,
            attempt_rows(chains, history=variant == "history"),
            tokenizer,
            sink.folder / variant,
            training=settings.training,
            view=settings.view,
            every_step=settings.every_step,
            steps=task.steps,
            kind="orm",
            name=f"ORM {variant}",
            held=held,
        )
        for variant in settings.variants
    }
    found[revision_verifiers.SELECTION] = verifier_choice.judge(
        settings.judges,
        settings.sampler,
        settings.view,
        functools.partial(verifier_choice.candidate, inputs, sink.folder, tokenizer),
        judged,
        tokenizer,
        task,
        [chain for chain in chains if chain["question"] in held],
    )
    sink.lists(*(f"{variant}/best" for variant in settings.variants))
    return found


def train_verifier(
    judged: Model,
    rows: Sequence[JudgedAnswer],
    tokenizer: Tokenizer,
    out: epath.Path,
    *,
    training: Training,
    view: InView | None,
    every_step: bool,
    steps: StepFormat,
    kind: str,
    name: str,
    held: Collection[str],
) -> dict[str, Any]:
    """Train one outcome-reward model and write it to `out/best`.

    Args:
        judged: The model that gave the answers; the verifier has its shape and its trunk.
        rows: Answers with their labels.
        tokenizer: Of that model.
        out: The verifier's folder.
        training: How it is trained.
        view: What the verifier has in view of the answers before; `None` where answers stand alone.
        every_step: Label every step of an answer with what comes of it, not the last alone.
        steps: The task's; says which tokens end a step.
        kind: The stage's name, for the checkpoint.
        name: Of the work, beside its progress.
        held: Questions held out for the choice of checkpoint.

    Returns:
        What the policy stage returns, `train_answers`, `valid_answers`, `cut_answers`: how many of both do not have
        all answers before them in view, for want of room, and `learnt_from` of those trained on.
    """
    judge, train = ValueHead(likelihood=training.likelihood), training.train
    context = Context(tokenizer) if view is None else Context(tokenizer, view.max_answers, restate=view.restate)
    train_examples, valid_examples = (
        orm_examples(
            [row for row in rows if (row.question in held) is kept],
            context,
            tokenizer,
            train.seq_len,
            every_step=every_step,
            steps=steps,
        )
        for kept in (False, True)
    )
    warn_of_cuts(context, len(rows), "orm.train.seq_len")
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}
    result = fit(
        train,
        make_loss(in_training(judged.config, train), judge, training.imitation),
        initial_params(judged.params, judged.config, judge, train.seed),
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out,
        name=name,
        metadata=metadata(kind, judged.config, judge, tokenizer),
        choose_by=CHOOSE_BY,
    )
    return {
        **result.summary(),
        "train_answers": len(train_examples),
        "valid_answers": len(valid_examples),
        "cut_answers": context.cut,
        "learnt_from": learnt_from(train_examples),
    }


def attempt_rows(chains: Sequence[dict[str, Any]], *, history: bool) -> list[JudgedAnswer]:
    """Return what a verifier learns from graded chains.

    What cannot be read is no candidate: nothing is learned of it, but later answers have it in view.

    Args:
        chains: Rows of `attempts.SCHEMA`.
        history: Whether the verifier sees the answers before.
    """
    return [
        JudgedAnswer(chain["question"], chain["prompt"], tuple(chain["answers"][: k if history else 0]), text, correct)
        for chain in chains
        for k, (text, correct, parsable) in enumerate(
            zip(chain["answers"], chain["correct"], chain["parsable"], strict=True)
        )
        if parsable
    ]


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "prm", "revision", "attempts"),
    switch=("revision.enabled", "orm.revisions"),
    version=2,
    work=lambda settings: training_work(settings.training.train, len(settings.variants)),
    trainings=lambda settings: [(f"ORM {variant}", settings.training.train) for variant in settings.variants],
)
