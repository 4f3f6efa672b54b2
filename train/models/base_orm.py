"""The base_orm stage: an outcome-reward model of the policy's own samples, beside the process-reward model.

It is told of the same samples only whether their answers are right (Snell et al. 2024, Figs. 13 to 15). Everything else
of its training is the PRM's, unless `orm.base_settings` says otherwise: what they differ in is then what they are told.
"""

from __future__ import annotations

from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.engine.loading import load_model
from ttcjax.train.models.orm import train_verifier
from ttcjax.train.models.prm import held_out, outcomes, read_labels


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the verifier on the samples that the labels stage graded and write it to `out/best`.

    Args:
        config: `orm.base_settings` says whose settings are used; `orm.every_step` counts in any case.
        workdir: Holds the finished stages `data`, `policy` and `labels`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        What `train_verifier` returns.
    """
    tokenizer = loader.tokenizer(workdir)
    labels = read_labels(workdir / "labels")
    return train_verifier(
        config,
        load_model(workdir, "policy", tokenizer),
        outcomes(labels, tokenizer, loader.task(config.data).steps),
        tokenizer,
        out,
        settings=config.base_orm,
        kind="base_orm",
        name="base ORM",
        # As the PRM does, out of all questions that are labelled, those too of which no solution can be used.
        held=held_out((row[0] for row in labels), config.base_orm.valid_fraction, "labels.questions"),
    )
