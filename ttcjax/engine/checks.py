"""What an engine refuses: models and tokenizers that do not belong together, numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence

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


def not_finite(what: str, question_id: str) -> UserError:
    """Return the error for numbers of a model that are not finite.

    Args:
        what: The numbers and whose they are.
        question_id: The question they came up at.
    """
    return UserError(
        f"the {what} are not finite at question {question_id[:60]}: the weights are damaged, or numbers overflow in "
        "the model; take another checkpoint, or train again at a lower learning rate or in float32"
    )
