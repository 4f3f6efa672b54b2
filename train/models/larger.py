"""The larger stage: a policy with more parameters, trained on the same data in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.train.models.policy import fit_policy


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the larger policy and write it to `out/best`; see `train.policy.run`.

    Args:
        config: `data`, `policy`, `drafts` and `larger` are used.
        workdir: Holds the finished `data` stage.
        out: The stage's folder.

    Returns:
        What the policy stage returns.
    """
    train = dataclasses.replace(config.policy, optimizer=config.larger.optimizer)
    return fit_policy("larger", config.data, config.larger.model, train, config.drafts, workdir, out)
