"""Refusals of an engine: models and tokenizers that do not belong together, prompts that leave no room."""

from __future__ import annotations

from collections.abc import Sequence

from ttcjax.config import ModelConfig
from ttcjax.engine.requests import Model, Prompt
from ttcjax.runtime.errors import UserError
from ttcjax.text.tokenizer import Tokenizer


def check_tokenizer(tokenizer: Tokenizer, model: Model, name: str) -> None:
    """Refuse a tokenizer that is not the one a model was trained with, as far as that is known.

    Args:
        tokenizer: What texts are to be encoded and decoded with.
        model: The model that reads and writes the ids.
        name: What the model is called in the error.

    Raises:
        UserError: The model was trained with another tokenizer, or has no rows for some ids of this one.
    """
    if model.tokenizer is not None and model.tokenizer != tokenizer.fingerprint:
        raise UserError(
            f"the {name} was trained with tokenizer {model.tokenizer}, not with {tokenizer.fingerprint}: take the "
            f"tokenizer of the {name}'s own workdir, or a {name} that was trained with this one"
        )
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the {name} a vocabulary of {model.config.vocab_size}: "
            f"take the tokenizer of the {name}'s own workdir"
        )


def check_read(
    prompts: Sequence[Prompt], rows: Sequence[Sequence[tuple[tuple[int, ...], int]]], limit: int, name: str
) -> None:
    """Refuse rows that a model has no room to read whole.

    Args:
        prompts: The prompts.
        rows: Of each, tokens to read after it, and the first slot that counts.
        limit: Most tokens that the model reads.
        name: What the model is called in the error.

    Raises:
        UserError: A prompt and a row are longer together.
    """
    for prompt, group in zip(prompts, rows, strict=True):
        length = len(prompt.tokens) + max((len(tokens) for tokens, _ in group), default=0)
        if length > limit:
            raise UserError(
                f"{prompt.id[:60]} and its continuation have {length} tokens, more than the {name}'s limit of {limit}: "
                "shorten one of them"
            )


def check_lengths(
    prompts: Sequence[Prompt], max_tokens: int, policy: ModelConfig, verifier: ModelConfig | None, begun: int = 0
) -> None:
    """Refuse prompts that leave no room for a solution.

    Args:
        prompts: The prompts.
        max_tokens: Longest solution; the prompts' own limits come before it.
        policy: Writes the solutions.
        verifier: Reads them, where one is to.
        begun: Tokens that stand between a prompt and its solution.

    Raises:
        UserError: A prompt is empty, or it and a solution are longer together than a model's limit.
    """
    limit = min(model.max_seq_len for model in (policy, verifier) if model is not None)
    for prompt in prompts:
        if not prompt.tokens:
            raise UserError(f"the prompt of {prompt.id[:60]} is empty: it needs a token, such as the begin mark")
        length = len(prompt.tokens) + begun
        room = max_tokens if prompt.max_tokens is None else min(max_tokens, prompt.max_tokens)
        if length + room > limit:
            cure = " or lower --sampler.max_tokens" if length < limit else ""
            raise UserError(
                f"the prompt of {prompt.id[:60]} has {length} tokens and sampler.max_tokens is {room}, more than the "
                f"model's limit of {limit} together: shorten the prompt{cure}"
            )
