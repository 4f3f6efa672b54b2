"""The PRM stage: a process-reward model trained on Monte Carlo step labels (Snell et al. 2024, section 5.1, App. D)."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ttcjax.config import ExperimentConfig, ModelConfig, from_dict, to_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model, Solution
from ttcjax.model import heads, transformer
from ttcjax.model import params as model_params
from ttcjax.runtime import parquet
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.train import losses
from ttcjax.train.batches import JudgedAnswer, TokenExample, prm_examples, train_batches, valid_batches
from ttcjax.train.collect.labels import SCHEMA as LABEL_SCHEMA
from ttcjax.train.loop import LossFn, LossSums, fit, in_training
from ttcjax.verify import value_head
from ttcjax.verify.quality import VALIDATION_SCHEMA

logger = logging.getLogger(__name__)

VALIDATION_FILE = "validation_scores.parquet"
"""Scores and truths of the held-out solutions' steps, beside the model."""

CHOOSE_BY = "step_loss"
"""The metric of a verifier's loss that picks its checkpoint: how well it judges, without what imitation adds."""

LabelRow = tuple[str, str, str, list[float]]
"""(question id, prompt, solution, one value a step)."""


def make_loss(config: ModelConfig, imitation: float = 0.0) -> LossFn:
    """Return the loss of a verifier; `step_loss` is the cross-entropy of steps alone, `accuracy` that of their classes.

    Args:
        config: Shape of the verifier.
        imitation: Weight of next-token prediction on solutions that end right (`PRMConfig.imitation`).
    """

    def loss(params: Any, batch: Mapping[str, jax.Array], dropout_key: jax.Array | None) -> LossSums:
        hidden_BTD = transformer.forward(
            params,
            batch["tokens"],
            batch["positions"],
            config,
            segment_ids_BT=batch["segment_ids"],
            dropout_key=dropout_key,
        )
        least_BT, imitated = None, jnp.float32(0.0)
        if config.value_likelihood or imitation:
            logprob_BT = value_head.token_logprobs(params, hidden_BTD, batch["tokens"], config)
            least_BT = value_head.packed_least_logprob(logprob_BT, batch["segment_ids"], batch["solution"])
            imitated = -jnp.sum(jnp.where(batch["right"] > 0, logprob_BT * batch["right"], 0.0))
        values_BT = heads.value(params, hidden_BTD, config, least_BT)
        total, hits = losses.step_binary(values_BT, batch["labels"], batch["weights"])
        weight = jnp.sum(batch["weights"])
        metrics = {"accuracy": (hits, weight), "step_loss": (total, weight)}
        return total + imitation * imitated, weight, metrics

    return loss


def read_labels(folder: epath.Path) -> list[LabelRow]:
    """Return the rows of the labels stage, in the order of its files.

    Raises:
        UserError: There are none, or a file cannot be read.
    """
    columns = ("question", "prompt", "solution", "step_values")
    table = parquet.read_folder(folder, LABEL_SCHEMA, columns)
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


def outcomes(
    rows: Sequence[LabelRow], tokenizer: tokenizers.Tokenizer, steps: StepFormat = LINES
) -> list[JudgedAnswer]:
    """Return the labelled solutions that a PRM learns from, with nothing but whether each is right.

    Those whose steps and labels differ in number are left out, as `prm_examples` leaves them out: so the verifiers of
    both kinds learn from the same.
    """
    encoded, marks = tokenizer.encode_batch([solution for _, _, solution, _ in rows]), steps.marks(tokenizer)
    return [
        JudgedAnswer(question, prompt, (), solution, values[-1] > 0.5)
        for (question, prompt, solution, values), ids in zip(rows, encoded, strict=True)
        if len(marks.ends([*ids, tokenizer.eos_id])) == len(values)
    ]


def learnt_from(examples: Sequence[TokenExample]) -> dict[str, Any]:
    """Return what says that two verifiers learn from the same solutions, whatever they are told of them.

    Returns:
        `examples` and `tokens` (their numbers), and `hash`: 16 hex digits of the tokens of all, in their order.
    """
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.asarray([len(example["tokens"]), *example["tokens"]], np.int64).tobytes())
    return {
        "examples": len(examples),
        "tokens": sum(len(example["tokens"]) for example in examples),
        "hash": digest.hexdigest()[:16],
    }


def held_out(questions: Iterable[str], fraction: float, setting: str) -> set[str]:
    """Return the questions held out for validation: those whose id has the lowest hashes.

    At least one is held out and at least one is not.

    Args:
        questions: Ids, repeated ones too.
        fraction: Share to hold out.
        setting: Which one to raise where there are too few questions.

    Raises:
        UserError: There are fewer than two questions.
    """
    ranked = sorted(set(questions), key=lambda q: hashlib.sha256(q.encode()).digest())
    if len(ranked) < 2:
        raise UserError(
            f"there are examples of {len(ranked)} questions, and training and validation need one each at least: "
            f"raise --{setting}"
        )
    return set(ranked[: min(max(1, math.floor(fraction * len(ranked))), len(ranked) - 1)])


def initial_params(policy: model_params.Params, config: ModelConfig, seed: int) -> model_params.Params:
    """Return a verifier with the policy's trunk and a new value head."""
    fresh = model_params.init(jax.random.key(seed), config, heads=("value",))
    return {name: jax.tree.map(jnp.asarray, policy[name]) if name in policy else fresh[name] for name in fresh}


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path) -> dict[str, Any]:
    """Train the verifier from the policy and the step labels and write it to `out/best`.

    Args:
        config: `prm` is used; the model is the policy's.
        workdir: Holds the finished stages `data`, `policy` and `labels`.
        out: The stage's folder, with the checkpoints of an earlier run that was stopped. Beside `best/` it gets
            `VALIDATION_FILE` where the data set knows the truth of steps.

    Returns:
        What the policy stage returns, and `train_questions`, `valid_questions`, `train_solutions`,
        `valid_solutions`, and `learnt_from` of the training solutions; `files`.
    """
    tokenizer = loader.tokenizer(workdir)
    policy, metadata = load_params(workdir / "policy" / "best", tokenizer)
    policy_model = from_dict(ModelConfig, metadata["model"])
    model = dataclasses.replace(policy_model, value_likelihood=config.prm.likelihood)
    train = config.prm.train
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}

    rows, steps = read_labels(workdir / "labels"), loader.task(config.data).steps
    questions = {row[0] for row in rows}
    valid_questions = held_out(questions, config.prm.valid_fraction, "labels.questions")
    train_examples, valid_examples = (
        prm_examples((row[1:] for row in rows if (row[0] in valid_questions) is held), tokenizer, steps)
        for held in (False, True)
    )
    result = fit(
        train,
        make_loss(in_training(model, train), config.prm.imitation),
        initial_params(policy, model, train.seed),
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        out,
        name="PRM",
        metadata={"kind": "prm", "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
        choose_by=CHOOSE_BY,
    )
    scored = _score_held_out(
        config,
        workdir,
        out,
        tokenizer,
        Model(policy, policy_model, tokenizer.fingerprint),
        model,
        rows,
        valid_questions,
    )
    return {
        "files": [VALIDATION_FILE] * scored,
        **result.summary(),
        "train_questions": len(questions) - len(valid_questions),
        "valid_questions": len(valid_questions),
        "train_solutions": len(train_examples),
        "valid_solutions": len(valid_examples),
        "learnt_from": learnt_from(train_examples),
    }


def _score_held_out(
    config: ExperimentConfig,
    workdir: epath.Path,
    out: epath.Path,
    tokenizer: tokenizers.Tokenizer,
    policy: Model,
    model: ModelConfig,
    rows: list[LabelRow],
    held: set[str],
) -> bool:
    """Write the scores and truths of the held-out solutions' steps, from which thresholds are chosen.

    A data set that cannot tell the truth of a step gets no file.

    Returns:
        Whether there is one.
    """
    task, splits = loader.askable(config, workdir)
    examples = {e.id: e for e in splits.train[: config.labels.questions] if e.id in held}
    kept = [(row, examples[row[0]]) for row in rows if row[0] in held]
    truths = [task.check_steps(example, task.steps.split(row[2])) for row, example in kept]
    if any(truth is None for truth in truths):
        return False
    params, _ = load_params(out / "best", tokenizer)
    scorer = Model(params, model, tokenizer.fingerprint)
    engine = Engine(policy, tokenizer, config.sampler, scorer, steps=task.steps)
    prompts = [engine.encode_prompt(row[0], row[1]) for row, _ in kept]
    solutions = [
        [Solution((*tokenizer.encode(row[2]), tokenizer.eos_id), row[2], finished=True, logprob=0.0)] for row, _ in kept
    ]
    scored = engine.score(prompts, solutions)
    table = [
        {"step_scores": list(s.step_scores), "step_truth": truth} for [s], truth in zip(scored, truths, strict=True)
    ]
    parquet.write_shard(out / VALIDATION_FILE, table, VALIDATION_SCHEMA)
    return True
