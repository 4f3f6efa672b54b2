"""The ORM stage: verifiers trained on whether whole answers are right (Snell et al. 2024, App. J and K).

One judges the revision model's answers with the answers before them in view, one the same answers alone, and one
the policy's own samples, beside the process-reward model that is trained on the same samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig, to_dict
from ttcjax.revise import attempts
from ttcjax.revise.context import Context
from ttcjax.sample.loading import load_model
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import JudgedAnswer, orm_examples, train_batches, valid_batches
from ttcjax.train.loop import fit
from ttcjax.train.prm import held_out, initial_params, make_loss, read_outcomes


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the verifiers that `config.orm` names and write each to `out/<variant>/best`.

    Args:
        config: `orm` is used; a verifier has the shape and the trunk of the model that it judges.
        workdir: Holds the finished stages `data`, `policy` and `labels`, or for the revision model's verifiers
            `revision` and `attempts`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        For each variant what the policy stage returns, and `train_answers` and `valid_answers`.
    """
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    variants = [*(config.orm.variants if config.revision.enabled else ()), *(["base"] if config.orm.base else [])]
    return {variant: _train(variant, config, workdir, out, tokenizer) for variant in variants}


def _train(
    variant: str, config: ExperimentConfig, workdir: epath.Path, out: epath.Path, tokenizer: Tokenizer
) -> dict[str, Any]:
    settings, train = config.orm, config.orm.train
    judged = load_model(workdir, "policy" if variant == "base" else "revision", tokenizer)
    model = dataclasses.replace(judged.config, value_likelihood=settings.likelihood)
    if variant == "base":
        rows = read_outcomes(workdir / "labels")
    else:
        rows = attempt_rows(attempts.read(workdir / "attempts"), history=variant == "history")
    source = "labels.questions" if variant == "base" else "orm.questions"
    held = held_out((row.question for row in rows), settings.valid_fraction, source)
    context = Context(tokenizer, config.revision.max_answers, restate=config.revision.restate)
    train_examples, valid_examples = (
        orm_examples(
            [row for row in rows if (row.question in held) is kept],
            context,
            tokenizer,
            train.seq_len,
            every_step=settings.every_step,
        )
        for kept in (False, True)
    )
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}
    result = fit(
        train,
        make_loss(dataclasses.replace(model, dropout=train.dropout or model.dropout), settings.imitation),
        initial_params(judged.params, model, train.seed),
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out / variant,
        name=f"ORM {variant}",
        metadata={"kind": "orm", "variant": variant, "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
    )
    return {**result.summary(), "train_answers": len(train_examples), "valid_answers": len(valid_examples)}


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
