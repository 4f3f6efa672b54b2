"""Refusals of an engine: models and tokenizers that do not belong together, prompts that leave no room."""

from __future__ import annotations

from collections.abc import Sequence

from ttcjax.config import ModelConfig
from ttcjax.engine.requests import Model, Prompt
from ttcjax.runtime.errors import UserError
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.verify.verifier import Verifier


def check_models(tokenizer: Tokenizer, policy: Model, verifier: Model | None) -> None:
    """Refuse models that do not belong together, or not with a tokenizer.

    Args:
        tokenizer: What texts are to be encoded and decoded with.
        policy: Writes solutions.
        verifier: Reads them, where there is one.

    Raises:
        UserError: A model was trained with another tokenizer, its vocabulary is smaller than the tokenizer's, or the
            verifier cannot read what the policy writes.
    """
    check_tokenizer(tokenizer, policy, "policy")
    if verifier is not None:
        check_tokenizer(tokenizer, verifier, "verifier")
        check_judge(verifier, policy)


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


def check_judge(verifier: Model, policy: Model) -> None:
    """Refuse a verifier that cannot read what a policy writes.

    Raises:
        UserError: The model does not say how it is asked, or has ids of its own.
    """
    if verifier.judge is None:
        raise UserError(
            "the model given as verifier does not say how it is asked: give Model(..., judge=ValueHead()), or another "
            "of ttcjax.verify.formats"
        )
    verifier.judge.check(verifier.config, policy.config)


def check_room(
    prompts: Sequence[Prompt], max_tokens: int, begun: int, models: Sequence[tuple[ModelConfig, Verifier | None]]
) -> None:
    """Refuse prompts that leave no room for a solution.

    Args:
        prompts: The prompts.
        max_tokens: Longest solution.
        begun: Tokens that rows have begun with.
        models: Shape of each model, with how it is asked where it is a verifier: it may read more of a row than the
            policy writes.

    Raises:
        UserError: A prompt is empty, or it and its longest row are longer than what a model reads.
    """
    for prompt in prompts:
        if not prompt.tokens:
            raise UserError(f"the prompt of {prompt.id[:60]} is empty: it needs a token, such as the begin mark")
        room = max_tokens if prompt.max_tokens is None else min(max_tokens, prompt.max_tokens)
        read = [
            (
                model.max_seq_len,
                len(prompt.tokens) if judge is None else len(prompt.read) + judge.reads(room, room) - room,
            )
            for model, judge in models
        ]
        passed = [(limit, begun + tokens) for limit, tokens in read if begun + tokens + room > limit]
        if passed:
            limit, tokens = min(passed)
            cure = " or lower --sampler.max_tokens" if tokens < limit else ""
            raise UserError(
                f"the prompt of {prompt.id[:60]} has {tokens} tokens and sampler.max_tokens is {room}, more than the "
                f"model's limit of {limit} together: shorten the prompt{cure}"
            )


def check_read(prompts: Sequence[Prompt], read: Sequence[Sequence[int]], limit: int, *, verifier: bool) -> None:
    """Refuse rows that a model has no room to read whole.

    Args:
        prompts: The prompts.
        read: Of each, the tokens that are read of its rows, the prompt's last one among them.
        limit: Most tokens that the model reads.
        verifier: Whether it is the verifier, or else the policy.

    Raises:
        UserError: A prompt and a row are longer together.
    """
    for prompt, group in zip(prompts, read, strict=True):
        length = len(prompt.read if verifier else prompt.tokens) - 1 + max(group, default=0)
        if length > limit:
            raise UserError(
                f"{prompt.id[:60]} and its continuation have {length} tokens, more than the "
                f"{'verifier' if verifier else 'policy'}'s limit of {limit}: shorten one of them"
            )
