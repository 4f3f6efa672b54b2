"""The larger stage: a policy with more parameters, trained on the same data in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any

from ttcjax.config import ExperimentConfig
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.train.models.policy import Settings, fit_policy, training_work


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train the larger policy as the policy is trained, but for the optimizer, and write it to `best`.

    Returns:
        What the policy stage returns.
    """
    return fit_policy("larger", settings, inputs, sink)


def _settings(config: ExperimentConfig) -> Settings:
    train = dataclasses.replace(config.policy, optimizer=config.larger.optimizer)
    return Settings(config.larger.model, train, config.drafts, config.questions)


STAGE = Stage(
    _settings,
    run,
    needs=("data",),
    writes=("best",),
    switch=("larger.enabled",),
    work=lambda settings: training_work(settings.train),
    trainings=lambda settings: [("larger", settings.train)],
)
