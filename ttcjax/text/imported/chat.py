"""Chat templates: a conversation as text and marks, the way a model was trained to read it.

The template comes with the model and is a program in jinja2's language. What is said in a conversation stays text: a
mark that somebody writes into a message is letters like others, and only the template's own marks count.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.text.prompt import Message
from ttcjax.text.shown import shown

DATE = "2024-07-26"
"""The day that `strftime_now` tells, whatever day it is, so that a prompt is the same tomorrow; the one that templates
which ask for it name themselves where a program does not tell them."""
_SECONDS = 10.0
_START_SECONDS = 60.0
_MOST = 1 << 20
_SPLITTERS = "\ufdd2\ufdd3\ufdd4\ufdd5"  # Noncharacters: no text that is interchanged has them.


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template.

    It runs in jinja2's sandbox in a process of its own: one that loops, writes without end, takes memory or reaches for
    Python's insides is refused with one line, after 10 seconds, 1,048,576 characters or 1 GiB at most.
    """

    text: str
    """The template."""
    values: tuple[tuple[str, str], ...] = ()
    """Names and texts of marks that templates use, such as `bos_token`."""
    date: str = DATE
    """The day that `strftime_now` tells."""
    seconds: float = _SECONDS
    """Most time for a conversation."""

    def render(self, conversations: Sequence[Sequence[Message]], marks: Mapping[str, int]) -> list[list[str | int]]:
        """Return each conversation in parts, texts and ids of marks, up to where the assistant is to go on.

        Args:
            conversations: Some messages each.
            marks: Id of each mark by its text.

        Raises:
            UserError: The template cannot be used, refuses a conversation, or is over its limits.
        """
        finder = mark_finder(marks)
        splitter = _free_character(m["content"] for talk in conversations for m in talk)

        starts = {mark[:length] for mark in marks for length in range(1, len(mark))}
        longest = max(map(len, starts), default=0)

        def split(content: str) -> str:
            # A mark within a message is cut in two, and put together again once the marks of the template are found; so
            # is what begins one at the end, for the next message might end it.
            bare = content.rstrip()
            for length in range(1, min(longest, len(bare)) + 1):
                place = len(bare) - length
                if content[place : place + length] in starts:
                    content = content[: place + 1] + splitter + content[place + 1 :]
                    break
            return finder.sub(lambda found: found[0][0] + splitter + found[0][1:], content) if finder else content

        asked = [[{"role": m["role"], "content": split(m["content"])} for m in talk] for talk in conversations]
        found = []
        for text in _Process.of(self).render(asked):
            parts: list[str | int] = []
            begin = 0
            for match in finder.finditer(text) if finder else ():
                if before := text[begin : match.start()].replace(splitter, ""):
                    parts.append(before)
                parts.append(marks[match[0]])
                begin = match.end()
            if rest := text[begin:].replace(splitter, ""):
                parts.append(rest)
            found.append(parts)
        return found


def mark_finder(marks: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern of all marks, the longest first where several begin at a place; `None` where there is none."""
    texts = sorted((mark for mark in marks if len(mark) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def _free_character(texts: Iterable[str]) -> str:
    left = set(_SPLITTERS)
    for text in texts:
        left -= set(text)
    if not left:
        raise UserError("a message holds the noncharacters U+FDD2 to U+FDD5: take them out, they are no text")
    return min(left)


class _Process:
    """The process that renders one template; it is started when it is first asked, and again after it was ended."""

    def __init__(self, template: ChatTemplate):
        self._template = template
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: SimpleQueue[bytes] = SimpleQueue()

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def of(template: ChatTemplate) -> _Process:
        """Return the one process of a template."""
        return _Process(template)

    def render(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        with self._lock:
            return [self._render(talk) for talk in conversations]

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        running = self._process is not None and self._process.poll() is None
        try:
            process = self._process if running and self._process is not None else self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps(messages).encode() + b"\n")
            process.stdin.flush()
            reply = self._replies.get(timeout=self._template.seconds)
        except Empty:
            self.close()
            raise _refusal(f"it takes more than {self._template.seconds:g} seconds") from None
        except BrokenPipeError:
            reply = b""
        except BaseException:
            self.close()  # the reply to this conversation must not answer the next one
            raise
        if not reply:
            self.close()
            raise MachineError(
                "the process that renders the chat template has died, perhaps for want of memory: free some and run "
                "the same command again"
            )
        good, text = json.loads(reply)
        if not good:
            raise _refusal(text)
        return text

    def _start(self) -> subprocess.Popen[bytes]:
        if importlib.util.find_spec("jinja2") is None:
            raise UserError("chat templates need jinja2: pip install jinja2")
        # -P keeps the script's folder out of the import path, where our module names could shadow others.
        command = [sys.executable, "-P", str(Path(__file__).with_name("chat_worker.py"))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        self._process, self._replies = process, SimpleQueue()
        threading.Thread(target=_pass_on, args=(process, self._replies), daemon=True).start()
        own = self._template
        request = {
            "template": own.text,
            "values": dict(own.values),
            "date": own.date,
            "most": _MOST,
            "seconds": own.seconds,
        }
        try:
            begun = self._replies.get(timeout=_START_SECONDS)
        except Empty:
            begun = b""
        if not begun:
            self.close()
            raise MachineError(
                "the process that renders chat templates did not start: see that memory is free, and jinja2 installed"
            )
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        return process

    def close(self) -> None:
        """End the process; a later conversation starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __del__(self) -> None:
        self.close()


atexit.register(_Process.of.cache_clear)


def _pass_on(process: subprocess.Popen[bytes], replies: SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            replies.put(line)
    replies.put(b"")


def _refusal(told: str) -> UserError:
    return UserError(
        f"the model's chat template cannot be used: {shown(told, lines=False)[:300]}; put another into "
        "chat_template.jinja beside the tokenizer, or take a prompt that is a plain text"
    )
