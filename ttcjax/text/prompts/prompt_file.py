"""A prompt in a plain file: a few settings, a line of dashes, and the text with `{question}` in it.

```
# What it is for, in lines that begin with a number sign.
kind: chat
steps: blank line
---
[system]
Think step by step.
[user]
{question}
```

`kind` is `text`, where the text is put to the model as it stands, or `chat`, where lines `[system]`, `[user]` and
`[assistant]` begin messages and the model's own chat template does the rest. `steps` is `newline` or `blank line`: what
ends a step of an answer. `until` is the beginning of the line at which an answer is over, for models that go on with a
next question. What follows a line `[each answer]` is there once for each earlier answer, with `{answer}` in it: what a
model is shown that is asked to revise. Other braces are text, as LaTeX needs them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from etils import epath

from ttcjax.runtime.errors import UserError
from ttcjax.text import prompt as prompts
from ttcjax.text.steps import LINES, StepFormat

_FOLDER = "ttcjax.text.prompts"
_STEPS = {"newline": LINES, "blank line": StepFormat("\n\n", "\n\n+")}
_KEYS = ("kind", "steps", "until")
_TURN = re.compile(rf"^\[({'|'.join(prompts.ROLES)})\]$", re.MULTILINE)
_EACH = "[each answer]\n"


@dataclass(frozen=True)
class PromptFile:
    """A way to put questions, read from a file by `read`."""

    name: str
    about: str
    """What it is for, in a line."""
    kind: Literal["text", "chat"]
    steps: StepFormat
    """Format of the steps that it asks for."""
    until: str
    """Beginning of the line at which an answer is over; empty where the end mark alone ends one."""
    body: str
    """The text with `{question}`."""
    each: str
    """What is there for each earlier answer, with `{answer}`; empty where it asks for no revisions."""

    @property
    def content(self) -> str:
        """16 hex digits that change where the prompt does."""
        what = repr((self.kind, self.steps, self.until, self.body, self.each))
        return hashlib.sha256(what.encode(errors="surrogatepass")).hexdigest()[:16]

    def prompt(self, question: str, answers: Sequence[str] = ()) -> str:
        """Return the prompt of a question, for `ttcjax.text.prompt.encode_prompts`.

        Args:
            question: Its text.
            answers: Earlier ones, the newest last, for a prompt that asks for a revision.

        Raises:
            UserError: There are answers and the prompt has no place for them.
        """
        if answers and not self.each:
            raise UserError(f"the prompt {self.name} shows no earlier answers: give it an {_EACH.strip()} part")
        parts = [(self.body, ""), *((self.each, answer) for answer in answers)]
        if self.kind == "text":
            return prompts.text_prompt("".join(_filled(part, question, answer) for part, answer in parts))
        messages = [
            prompts.Message(role=role, content=_filled(text, question, answer))
            for part, answer in parts
            for role, text in _turns(part)
        ]
        return prompts.chat_prompt(messages)

    def cut(self, answer: str) -> str:
        """Return an answer up to the line at which it is over."""
        if not self.until:
            return answer
        lines = answer.split("\n")
        end = next((i for i, line in enumerate(lines) if line.startswith(self.until)), len(lines))
        return answer if end == len(lines) else "\n".join(lines[:end]).rstrip("\n")


def names() -> list[str]:
    """Return the names of the prompts that ttcjax has."""
    found = (file.name for file in resources.files(_FOLDER).iterdir())
    return sorted(name.removesuffix(".txt") for name in found if name.endswith(".txt"))


def read(name: str) -> PromptFile:
    """Return a prompt by its name, or that of a user's own file by its path.

    Raises:
        UserError: There is none, or the file does not say what it must; the message names the line.
    """
    if name in names():
        return parse(name, (resources.files(_FOLDER) / f"{name}.txt").read_text())
    path = epath.Path(name)
    try:
        return parse(name, path.read_bytes().decode().replace("\r\n", "\n"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"no prompt {name}: give the path of a file, or one of {', '.join(names())}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt {name} is no UTF-8 text: save it as such") from error


def parse(name: str, text: str) -> PromptFile:
    """Return the prompt of a file's text.

    Args:
        name: As messages call it.
        text: The whole file.

    Raises:
        UserError: It does not say what it must.
    """
    head, dashes, body = text.partition("\n---\n")
    if not dashes:
        raise UserError(f"the prompt {name} has no line --- between its settings and its text")
    told: dict[str, str] = {}
    for line in head.split("\n"):
        key, colon, value = line.partition(":")
        if line.startswith("#") or not line.strip():
            continue
        if not colon or key.strip() not in _KEYS:
            raise UserError(f"the prompt {name} has a line {line[:60]!r}: settings are {', '.join(_KEYS)}")
        told[key.strip()] = value.strip()
    kind, steps = told.get("kind", "text"), told.get("steps", "newline")
    if kind != "text" and kind != "chat":
        raise UserError(f"the prompt {name} is of the kind {kind!r}: say text or chat")
    if steps not in _STEPS:
        raise UserError(f"the prompt {name} has steps {steps!r}: say {' or '.join(_STEPS)}")
    body, _, each = body.partition(_EACH)
    if "{question}" not in body:
        raise UserError(f"the prompt {name} has no {{question}}: write it where the question is to stand")
    if each and "{answer}" not in each:
        raise UserError(f"the prompt {name} has no {{answer}} after {_EACH.strip()}: write it where an answer stands")
    for part in (body, each) if kind == "chat" else ():
        before = _TURN.split(part, maxsplit=1)[0]
        if part and (before.strip() or not _turns(part)):
            raise UserError(
                f"the prompt {name} is a chat and has text outside of its messages: begin each with a line [system], "
                "[user] or [assistant]"
            )
    about = " ".join(line.lstrip("# ") for line in head.split("\n") if line.startswith("#"))
    return PromptFile(name, about, kind, _STEPS[steps], told.get("until", ""), body, each)


def _turns(part: str) -> list[tuple[str, str]]:
    pieces = _TURN.split(part)[1:]
    return [(role, text.strip("\n")) for role, text in zip(pieces[::2], pieces[1::2], strict=True)]


def _filled(text: str, question: str, answer: str) -> str:
    # In one pass: a question that holds {answer} is not filled in.
    return re.sub(r"\{(question|answer)\}", lambda found: question if found[1] == "question" else answer, text)
