"""The policy stage: a language model trained from scratch on the reference solutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ttcjax.config import SPEED_ONLY, DraftsConfig, ExperimentConfig, ModelConfig, Questions, TrainConfig, to_dict
from ttcjax.data import loader
from ttcjax.model import heads, transformer
from ttcjax.model import params as model_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train import losses
from ttcjax.train.batches import train_batches, valid_batches
from ttcjax.train.drafts import draft_examples
from ttcjax.train.loop import LossFn, LossSums, fit, in_training


def resolve_model(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """Return the model config with the tokenizer's vocabulary size filled in.

    Raises:
        UserError: The config names another size that is too small for the tokenizer.
    """
    if config.vocab_size == 0:
        return dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size={config.vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size}: "
            "set it to 0 to take the tokenizer's"
        )
    return config


def make_loss(config: ModelConfig) -> LossFn:
    """Return the next-token loss of a policy; its metric is the accuracy of the most likely token."""

    def loss(params: Any, batch: Mapping[str, jax.Array], dropout_key: jax.Array | None) -> LossSums:
        hidden_BTD = transformer.forward(
            params,
            batch["tokens"],
            batch["positions"],
            config,
            segment_ids_BT=batch["segment_ids"],
            dropout_key=dropout_key,
        )
        total, hits = losses.next_token(
            lambda hidden: heads.logits(params, hidden, config),
            hidden_BTD,
            batch["targets"],
            batch["weights"],
            vocab_size=config.vocab_size,
        )
        weight = jnp.sum(batch["weights"])
        return total, weight, {"accuracy": (hits, weight)}

    return loss


@dataclass(frozen=True)
class Settings:
    """Settings of a policy's training."""

    model: ModelConfig
    """Its vocabulary size may be left to the tokenizer."""
    train: TrainConfig
    """Equal seeds and batches mean equal data in equal order, whatever the model."""
    drafts: DraftsConfig
    """Drafts that its texts hold beside single solutions."""
    questions: Questions = field(metadata=SPEED_ONLY)
    """Those that can be asked: what could not be asked later is refused before anything is trained."""


def training_work(train: TrainConfig, models: int = 1) -> str:
    """Return how much one training run or several equal ones have to do."""
    found = f"{train.steps:,} steps of {train.batch_size} rows of {train.seq_len} tokens"
    return f"{models} models, each {found}" if models > 1 else found


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train the policy on the solutions of the data stage and write it to `best`.

    Returns:
        `FitResult.summary`: among others `steps`, `tokens_seen`, `best_step`, `valid_loss`, `chosen_by` (the metric
        that picked the checkpoint), `valid_metrics` and `params` (their number).
    """
    return fit_policy("policy", settings, inputs, sink)


def fit_policy(kind: str, settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Train a language model on the reference solutions; see `run`.

    Args:
        kind: The stage that it is for; stands in the checkpoint.
        settings: Of the model and its training.
        inputs: Has `data`.
        sink: The stage's folder, with the checkpoints of an earlier run that was stopped.
    """
    train = settings.train
    loader.askable(settings.questions, inputs["data"])
    task, splits = loader.load(settings.questions.data, inputs["data"])
    examples = splits.to_train_on(kind, solutions=True)
    tokenizer = loader.tokenizer(inputs["data"])
    model = resolve_model(settings.model, tokenizer)
    rows = {"batch_size": train.batch_size, "seq_len": train.seq_len}

    train_examples, valid_examples = (
        draft_examples(task, split, settings.drafts, tokenizer, train.seq_len) for split in (examples, splits.valid)
    )
    result = fit(
        train,
        make_loss(in_training(model, train)),
        model_params.init(jax.random.key(train.seed), model),
        train_batches(train_examples, **rows, seed=train.seed),
        valid_batches(valid_examples, **rows),
        sink.folder,
        name=kind,
        metadata={"kind": kind, "model": to_dict(model), "tokenizer": tokenizer.fingerprint},
    )
    return result.summary()


def _settings(config: ExperimentConfig) -> Settings:
    return Settings(config.model, config.policy, config.drafts, config.questions)


STAGE = Stage(
    _settings,
    run,
    needs=("data",),
    writes=("best",),
    work=lambda settings: training_work(settings.train),
    trainings=lambda settings: [("policy", settings.train)],
)
