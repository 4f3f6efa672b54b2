"""The base_orm stage: an outcome-reward model of the policy's own samples, beside the process-reward model.

It is told of the same samples only whether their answers are right (Snell et al. 2024, Figs. 13 to 15).
"""

from __future__ import annotations

from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.sample.loading import load_model
from ttcjax.train.orm import train_verifier
from ttcjax.train.prm import read_outcomes


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the verifier on the samples that the labels stage graded and write it to `out/best`.

    Args:
        config: `orm` is used.
        workdir: Holds the finished stages `data`, `policy` and `labels`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        What `train_verifier` returns.
    """
    tokenizer = loader.tokenizer(workdir)
    return train_verifier(
        config,
        load_model(workdir, "policy", tokenizer),
        read_outcomes(workdir / "labels"),
        tokenizer,
        out,
        kind="base_orm",
        name="base ORM",
        source="labels.questions",
    )
