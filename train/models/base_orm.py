"""The base_orm stage: an outcome-reward model of the policy's own samples, beside the process-reward model.

It is told of the same samples only whether their answers are right (Snell et al. 2024, Figs. 13 to 15). Everything else
of its training is the PRM's, unless `orm.base_settings` says otherwise: what they differ in is then what they are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ttcjax.config import DataConfig, ExperimentConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_model
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.train.models.orm import train_verifier
from ttcjax.train.models.policy import training_work
from ttcjax.train.models.prm import Training, held_out, outcomes, read_labels


@dataclass(frozen=True)
class Settings:
    """Settings of the base_orm stage."""

    data: DataConfig
    """Says where a step ends."""
    training: Training
    """The PRM's, or those of the verifiers of revisions (`orm.base_settings`)."""
    every_step: bool
    """Label every step of an answer with what comes of it, not the last alone."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        table = config.prm if config.orm.base_settings == "prm" else config.orm
        return cls(config.data, Training.of(table), config.orm.every_step)


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train the verifier on the samples that the labels stage graded and write it to `best`.

    Returns:
        What `train_verifier` returns.
    """
    tokenizer = loader.tokenizer(inputs["data"])
    labels, steps = read_labels(inputs["labels"]), loader.task(settings.data).steps
    return train_verifier(
        load_model(inputs, "policy", tokenizer),
        outcomes(labels, tokenizer, steps),
        tokenizer,
        sink.folder,
        training=settings.training,
        view=None,
        every_step=settings.every_step,
        steps=steps,
        kind="base_orm",
        name="base ORM",
        # As the PRM does, out of all questions that are labelled, those too of which no solution can be used.
        held=held_out((row[0] for row in labels), settings.training.valid_fraction, "labels.questions"),
    )


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "labels"),
    writes=("best",),
    switch=("orm.base",),
    version=2,
    work=lambda settings: training_work(settings.training.train),
    trainings=lambda settings: [("base ORM", settings.training.train)],
)
