"""The revision stage: the policy fine-tuned to answer again with earlier answers in view.

Snell et al. 2024, section 6.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ttcjax.checkpoint import load_params
from ttcjax.config import ExperimentConfig, ModelConfig, RevisionConfig, from_dict, to_dict
from ttcjax.revise import trajectories
from ttcjax.revise.context import Context
from ttcjax.text import tokenizer as tokenizers
from ttcjax.train.batches import TokenExample, revision_examples, train_batches, valid_batches
from ttcjax.train.loop import fit
from ttcjax.train.policy import make_loss
from ttcjax.train.prm import held_out


def model_config(policy: ModelConfig, revision: RevisionConfig) -> ModelConfig:
    """Return the revision model's shape: the policy's, with room for the answers in view."""
    return dataclasses.replace(policy, max_seq_len=revision.max_seq_len or policy.max_seq_len)


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Fine-tune the policy on the trajectories and write the revision model to `out/best`.

    Args:
        config: `revision` is used; the model is the policy's.
        workdir: Holds the finished stages `data`, `policy` and `trajectories`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        What the policy stage returns, and `train_trajectories` and `valid_trajectories`.
    """
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    policy, metadata = load_params(workdir / "policy" / "best", tokenizer)
    model = model_config(from_dict(ModelConfig, metadata["model"]), config.revision)
    train = config.revision.train
    rows = trajectories.read(workdir / "trajectories")
    questions = (row["question"] for row in rows)
    held = held_out(questions, config.revision.valid_fraction, "revision.trajectories.questions")
    context = Context(tokenizer, config.revision.max_answers, restate=config.revision.restate)

    def examples(rows: Sequence[Mapping[str, Any]]) -> list[TokenExample]:
        given = ((row["prompt"], row["answers"], row["target"]) for row in rows)
        return revision_examples(given, context, tokenizer, train.seq_len)

    train_examples = examples([row for row in rows if row["question"] not in held])
    valid_examples = examples([row for row in rows if row["question"] in held])
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}
    result = fit(
        train,
        make_loss(dataclasses.replace(model, dropout=train.dropout or model.dropout)),
        policy,
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out,
        name="revision",
        metadata={"kind": "revision", "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
    )
    return {
        **result.summary(),
        "train_trajectories": len(train_examples),
        "valid_trajectories": len(valid_examples),
    }
