"""Prompts that put questions to a model: plain texts, and conversations that its chat template renders.

A prompt is kept as one text wherever rows are kept. A conversation is kept as its messages, not as what one model's
template makes of them, so that any model can read it: a policy, and a verifier with another template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypedDict

from ttcjax.runtime.errors import UserError
from ttcjax.text.tokenizer import Tokenizer

_CHAT = "\x02chat "  # A control character that no text prompt begins with.
ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str


def question_prompt(question: str) -> str:
    """Return the question and a newline, after which the solution is expected to begin."""
    return text_prompt(question + "\n")


def text_prompt(text: str) -> str:
    """Return a prompt that is read as a plain text, whatever it begins with."""
    return text[1:] if text.startswith(_CHAT) else text


def chat_prompt(messages: Sequence[Message]) -> str:
    """Return the prompt of a conversation, which the assistant is to go on with.

    Raises:
        UserError: A role is none of `ROLES`, or there is no message.
    """
    if not messages:
        raise UserError("a conversation without a message is no prompt: give the user's")
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(f"the role {message['role']!r} of a message is none of {', '.join(ROLES)}")
    return _CHAT + json.dumps([[message["role"], message["content"]] for message in messages], ensure_ascii=False)


def messages_of(prompt: str) -> list[Message] | None:
    """Return the messages of a prompt; `None` where it is a plain text.

    Raises:
        UserError: It is cut off or damaged.
    """
    if not prompt.startswith(_CHAT):
        return None
    try:
        return [Message(role=role, content=content) for role, content in json.loads(prompt[len(_CHAT) :])]
    except (ValueError, TypeError) as error:
        raise UserError(f"a prompt is no conversation any more: {prompt[len(_CHAT) :][:60]!r} is cut off") from error


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Return the ids of prompts as a model reads them, with one begin mark, or none where it has none.

    A plain text is put after `begin_ids`. Of a conversation the chat template alone says how it begins, as in the
    libraries that models are published with; where it and the conversation both bring a begin mark, one stays.

    Args:
        tokenizer: That of the model.
        prompts: Texts, as `text_prompt`, `question_prompt` and `chat_prompt` return them.

    Raises:
        UserError: There is a conversation and the model has no chat template, or it cannot be rendered.
    """
    talks = {place: found for place, prompt in enumerate(prompts) if (found := messages_of(prompt)) is not None}
    rows: list[Sequence[str | int]] = [[prompt] for prompt in prompts]
    if talks:
        if tokenizer.chat_template is None:
            raise UserError(
                "the prompt is a conversation and the model's tokenizer has no chat template: take a prompt that is a "
                "plain text, or put a chat_template.jinja beside the tokenizer"
            )
        rendered = tokenizer.chat_template.render(list(talks.values()), tokenizer.marks)
        for place, row in zip(talks, rendered, strict=True):
            rows[place] = row
    return [
        _begun_once(ids, tokenizer.bos_id) if place in talks else [*tokenizer.begin_ids, *ids]
        for place, ids in enumerate(tokenizer.encode_starts(rows))
    ]


def restated(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Return the ids of a prompt as it is put again further on: without the marks that a sequence begins with."""
    begin = len(tokenizer.begin_ids)
    return list(ids[begin:] if tuple(ids[:begin]) == tokenizer.begin_ids else ids)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the ids of one prompt; see `encode_prompts`."""
    return encode_prompts(tokenizer, [prompt])[0]


def _begun_once(ids: list[int], mark: int | None) -> list[int]:
    begins = next((place for place, token in enumerate(ids) if token != mark), len(ids))
    return ids[max(0, begins - 1) :]
