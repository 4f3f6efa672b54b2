"""The revision stage: the policy fine-tuned to answer again with earlier answers in view.

Snell et al. 2024, section 6.1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig, ModelConfig, RevisionConfig, from_dict, to_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model
from ttcjax.model.params import Params
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.parquet import sampled_tokens, shard_names
from ttcjax.search.context import Context
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import TokenExample, revision_examples, train_batches, valid_batches, warn_of_cuts
from ttcjax.train.collect import rest_em, trajectories
from ttcjax.train.loop import fit, in_training
from ttcjax.train.models.policy import make_loss
from ttcjax.train.models.prm import held_out


def model_config(policy: ModelConfig, revision: RevisionConfig) -> ModelConfig:
    """Return the revision model's shape: the policy's, with room for the answers in view."""
    return dataclasses.replace(policy, max_seq_len=revision.max_seq_len or policy.max_seq_len)


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Fine-tune the policy on the trajectories and write the revision model to `out/best`.

    With `revision.rest_em` that model, in `out/offline/best`, samples trajectories of its own, and the one in
    `out/best` is the policy fine-tuned on these.

    Args:
        config: `revision` is used; the model is the policy's.
        workdir: Holds the finished stages `data`, `policy` and `trajectories`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        What the policy stage returns, `train_trajectories`, `valid_trajectories`, and `cut_trajectories`: how many of
        both do not show all their answers, for want of room; with `revision.rest_em` the same of the first model as
        `offline`, the counts of `rest_em.balanced` as `rest_em`, `sampled_tokens` (`parquet.sampled_tokens`), and
        `files`.
    """
    tokenizer = loader.tokenizer(workdir)
    policy, metadata = load_params(workdir / "policy" / "best", tokenizer)
    model = model_config(from_dict(ModelConfig, metadata["model"]), config.revision)
    fine_tune = functools.partial(_fine_tune, config, tokenizer, policy, model)
    rows = trajectories.read(workdir / "trajectories", config.revision.trajectories)
    if not config.revision.rest_em.chains:
        return fine_tune(rows, out)
    first = fine_tune(rows, out / "offline", name="revision, offline")
    params, _ = load_params(out / "offline" / "best", tokenizer)
    steps = loader.task(config.data).steps
    engine = Engine(Model(params, model, tokenizer.fingerprint), tokenizer, config.sampler, steps=steps)
    chains = rest_em.sample(config, engine, workdir, out / "chains")
    rows, counts = rest_em.balanced(chains, config.revision.rest_em)
    second = fine_tune(rows, out, source="revision.rest_em.questions")
    settings = config.revision.rest_em
    shards = shard_names(len(chains) // settings.chains, settings.shard_questions)
    files = ["offline/best", *(f"chains/{name}" for name in shards)]
    tokens = sampled_tokens(out / "chains" / name for name in shards)
    return {**second, "offline": first, "rest_em": counts, "sampled_tokens": tokens, "files": files}


def _fine_tune(
    config: ExperimentConfig,
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
    train = config.revision.train
    held = held_out((row["question"] for row in rows), config.revision.valid_fraction, source)
    context = Context(tokenizer, config.revision.max_answers, restate=config.revision.restate)

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
