"""The PRM stage: a process-reward model trained on Monte Carlo step labels (Snell et al. 2024, section 5.1, App. D)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ttcjax.config import (
    ExperimentConfig,
    ModelConfig,
    ORMConfig,
    PRMConfig,
    Questions,
    SamplerConfig,
    TrainConfig,
    to_dict,
)
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model, Solution
from ttcjax.engine.loading import load_model, model_of
from ttcjax.model import params as model_params
from ttcjax.model import transformer
from ttcjax.runtime import parquet
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.train import losses
from ttcjax.train.batches import JudgedAnswer, TokenExample, prm_examples, train_batches, valid_batches
from ttcjax.train.collect.labels import SCHEMA as LABEL_SCHEMA
from ttcjax.train.loop import LossFn, LossSums, fit, in_training
from ttcjax.train.models.policy import training_work
from ttcjax.verify import formats, value_head
from ttcjax.verify.quality import VALIDATION_SCHEMA
from ttcjax.verify.value_head import ValueHead
from ttcjax.verify.verifier import Verifier

logger = logging.getLogger(__name__)

VALIDATION_FILE = "validation_scores.parquet"
"""Scores and truths of the held-out solutions' steps, beside the model."""

CHOOSE_BY = "step_loss"
"""The metric of a verifier's loss that picks its checkpoint: how well it judges, without what imitation adds."""

LabelRow = tuple[str, str, str, list[float]]
"""(question id, prompt, solution, one value a step)."""


def make_loss(config: ModelConfig, judge: ValueHead, imitation: float = 0.0) -> LossFn:
    """Return the loss of a verifier; `step_loss` is the cross-entropy of steps alone, `accuracy` that of their classes.

    Args:
        config: Shape of the verifier.
        judge: How it is asked.
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
        if judge.likelihood or imitation:
            logprob_BT = value_head.token_logprobs(params, hidden_BTD, batch["tokens"], config)
            least_BT = value_head.packed_least_logprob(logprob_BT, batch["segment_ids"], batch["solution"])
            imitated = -jnp.sum(jnp.where(batch["right"] > 0, logprob_BT * batch["right"], 0.0))
        values_BT = judge.value(params, hidden_BTD, least_BT)
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


def initial_params(policy: model_params.Params, config: ModelConfig, judge: Verifier, seed: int) -> model_params.Params:
    """Return a verifier with the policy's trunk and new heads."""
    fresh = model_params.init(jax.random.key(seed), config, heads=judge.heads)
    return {name: jax.tree.map(jnp.asarray, policy[name]) if name in policy else fresh[name] for name in fresh}


def metadata(kind: str, model: ModelConfig, judge: Verifier, tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Return what the checkpoint of a verifier says of it; `ttcjax.engine.loading.model_of` reads it."""
    return {
        "kind": kind,
        "model": to_dict(model),
        "tokenizer": tokenizer.fingerprint,
        "verifier": formats.describe(judge),
    }


@dataclass(frozen=True)
class Training:
    """Settings of a verifier's training; the tables `prm` and `orm` have these fields and more."""

    train: TrainConfig
    valid_fraction: float
    """Share of the questions held out for the choice of checkpoint."""
    likelihood: bool
    imitation: float

    @classmethod
    def of(cls, table: PRMConfig | ORMConfig) -> Training:
        """Return what of a table of settings decides how a verifier is trained."""
        return cls(table.train, table.valid_fraction, table.likelihood, table.imitation)


@dataclass(frozen=True)
class Settings:
    """Settings of the PRM stage; the model is the policy's."""

    training: Training
    questions: Questions
    labelled: int
    """Training questions that the labels stage asked, the first ones."""
    sampler: SamplerConfig
    """Settings of the engine that scores the held-out solutions."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        sampler = config.sampler.of_solutions()
        return cls(Training.of(config.prm), config.questions, config.labels.questions, sampler)


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train the verifier from the policy and the step labels and write it to `best`.

    Beside it stands `VALIDATION_FILE` where the data set knows the truth of steps.

    Returns:
        What the policy stage returns, and `train_questions`, `valid_questions`, `train_solutions`,
        `valid_solutions`, and `learnt_from` of the training solutions.
    """
    tokenizer = loader.tokenizer(inputs["data"])
    policy = load_model(inputs, "policy", tokenizer)
    judge, train = ValueHead(likelihood=settings.training.likelihood), settings.training.train
    shape = {"batch_size": train.batch_size, "seq_len": train.seq_len}

    rows, steps = read_labels(inputs["labels"]), loader.task(settings.questions.data).steps
    questions = {row[0] for row in rows}
    valid_questions = held_out(questions, settings.training.valid_fraction, "labels.questions")
    train_examples, valid_examples = (
        prm_examples((row[1:] for row in rows if (row[0] in valid_questions) is held), tokenizer, steps)
        for held in (False, True)
    )
    result = fit(
        train,
        make_loss(in_training(policy.config, train), judge, settings.training.imitation),
        initial_params(policy.params, policy.config, judge, train.seed),
        train_batches(train_examples, **shape, seed=train.seed),
        valid_batches(valid_examples, **shape),
        sink.folder,
        name="PRM",
        metadata=metadata("prm", policy.config, judge, tokenizer),
        choose_by=CHOOSE_BY,
    )
    if _score_held_out(settings, inputs, sink.folder, tokenizer, policy, rows, valid_questions):
        sink.lists(VALIDATION_FILE)
    return {
        **result.summary(),
        "train_questions": len(questions) - len(valid_questions),
        "valid_questions": len(valid_questions),
        "train_solutions": len(train_examples),
        "valid_solutions": len(valid_examples),
        "learnt_from": learnt_from(train_examples),
    }


def _score_held_out(
    settings: Settings,
    inputs: Inputs,
    out: epath.Path,
    tokenizer: tokenizers.Tokenizer,
    policy: Model,
    rows: list[LabelRow],
    held: set[str],
) -> bool:
    """Write the scores and truths of the held-out solutions' steps, from which thresholds are chosen.

    A data set that cannot tell the truth of a step gets no file.

    Returns:
        Whether there is one.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples = {e.id: e for e in splits.to_train_on("prm")[: settings.labelled] if e.id in held}
    kept = [(row, examples[row[0]]) for row in rows if row[0] in held]
    truths = [task.check_steps(example, task.steps.split(row[2])) for row, example in kept]
    if any(truth is None for truth in truths):
        return False
    verifier = model_of(*load_params(out / "best", tokenizer))
    engine = Engine(policy, tokenizer, settings.sampler, verifier, steps=task.steps)
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


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "labels"),
    writes=("best",),
    version=2,
    work=lambda settings: training_work(settings.training.train),
    trainings=lambda settings: [("PRM", settings.training.train)],
)
