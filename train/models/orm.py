"""The ORM stage: verifiers of the revision model's answers, trained on whether whole answers are right.

Snell et al. 2024, App. J and K: one judges an answer with those before it in view, one the same answer alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig, ORMConfig, PRMConfig, to_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Model
from ttcjax.engine.loading import load_model
from ttcjax.search import revision_verifiers
from ttcjax.search.context import Context
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import JudgedAnswer, orm_examples, train_batches, valid_batches, warn_of_cuts
from ttcjax.train.collect import attempts
from ttcjax.train.loop import fit, in_training
from ttcjax.train.models import verifier_choice
from ttcjax.train.models.prm import CHOOSE_BY, held_out, initial_params, learnt_from, make_loss


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the verifiers that `config.orm` names and write each to `out/<variant>/best`.

    Args:
        config: `orm` is used; a verifier has the shape and the trunk of the model that it judges.
        workdir: Holds the finished stages `data`, `prm`, `revision` and `attempts`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped.

    Returns:
        For each variant what `train_verifier` returns; `selection`: how well each, and the PRM, selects among the
        revisions of the questions held out, and which one does best (`choice.judge`); `files`.
    """
    tokenizer = loader.tokenizer(workdir)
    judged = load_model(workdir, "revision", tokenizer)
    chains = attempts.read(workdir / "attempts")
    read = attempt_rows(chains, history=False)
    held = held_out((row.question for row in read), config.orm.valid_fraction, "orm.questions")
    found: dict[str, Any] = {
        variant: train_verifier(
            config,
            judged,
            attempt_rows(chains, history=variant == "history"),
            tokenizer,
            out / variant,
            settings=config.orm,
            kind="orm",
            name=f"ORM {variant}",
            held=held,
        )
        for variant in config.orm.variants
    }
    found[revision_verifiers.SELECTION] = verifier_choice.judge(
        config,
        functools.partial(verifier_choice.candidate, workdir, out, tokenizer),
        judged,
        tokenizer,
        loader.task(config.data),
        [chain for chain in chains if chain["question"] in held],
    )
    return found | {"files": [f"{variant}/best" for variant in config.orm.variants]}


def train_verifier(
    config: ExperimentConfig,
    judged: Model,
    rows: Sequence[JudgedAnswer],
    tokenizer: Tokenizer,
    out: epath.Path,
    *,
    settings: ORMConfig | PRMConfig,
    kind: str,
    name: str,
    held: Collection[str],
) -> dict[str, Any]:
    """Train one outcome-reward model and write it to `out/best`.

    Args:
        config: `orm.every_step` and `revision` are used.
        judged: The model that gave the answers; the verifier has its shape and its trunk.
        rows: Answers with their labels.
        tokenizer: Of that model.
        out: The verifier's folder.
        settings: `train`, `likelihood` and `imitation` of it are used.
        kind: The stage's name, for the checkpoint.
        name: Of the work, beside its progress.
        held: Questions held out for the choice of checkpoint.

    Returns:
        What the policy stage returns, `train_answers`, `valid_answers`, `cut_answers`: how many of both do not have
        all answers before them in view, for want of room, and `learnt_from` of those trained on.
    """
    train = settings.train
    model = dataclasses.replace(judged.config, value_likelihood=settings.likelihood)
    context = Context(tokenizer, config.revision.max_answers, restate=config.revision.restate)
    train_examples, valid_examples = (
        orm_examples(
            [row for row in rows if (row.question in held) is kept],
            context,
            tokenizer,
            train.seq_len,
            every_step=config.orm.every_step,
            steps=loader.task(config.data).steps,
        )
        for kept in (False, True)
    )
    warn_of_cuts(context, len(rows), "orm.train.seq_len")
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}
    result = fit(
        train,
        make_loss(in_training(model, train), settings.imitation),
        initial_params(judged.params, model, train.seed),
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out,
        name=name,
        metadata={"kind": kind, "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
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
