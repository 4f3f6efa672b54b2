"""Final answers: found in a solution, brought to one spelling, and compared with the reference.

Comparison goes from cheap to dear: equal canonical text, exact rational numbers, and only then symbolic
mathematics, done by math-verify in a process of its own that is killed when it takes too long. Model text is
never evaluated as code.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path

from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.text.quantities import MAX_ANSWER_CHARS, in_words, parse_number, parse_quantity

logger = logging.getLogger(__name__)

_CRASHES = {getattr(signal, name, 0) for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")}
"""Signals that a process brings upon itself."""

_ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*)$", re.MULTILINE)
_HASH_MARK = re.compile(r"(\*{1,3}|_{1,3}|`{1,3})?#{4,}|^(\*{1,3}|_{1,3}|`{1,3})?A:", re.MULTILINE)
_LINE = re.compile(r"[^\n\r]*")
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
# What stands without braces after `\boxed` is an answer where it is mathematics; else it is the sentence that goes on.
_BARE_BOX = re.compile(r"(?:[-+]?(?:\\?\$)?\.?\d|[-+]?\\[a-zA-Z])(?:(?!\\[)\]])[^\s$`])*|[a-zA-Z](?=\$|\\[)\]])")

# Marks that enclose a text and are no part of it: of mathematics, of emphasis.
_ENCLOSED = (
    re.compile(r"(\$\$?)((?:[^$\\]|\\.)+)\1", re.DOTALL),
    re.compile(r"(\\\()(.+?)\\\)", re.DOTALL),
    re.compile(r"(\\\[)(.+?)\\\]", re.DOTALL),
    re.compile(r"(\*{1,3}|_{1,3}|`{1,3})((?:(?!\1).)+)\1(?![\w*])", re.DOTALL),
)
_BOX = re.compile(_BOXED.pattern + r"(?=\{)")
_FONT = re.compile(
    r"(?:\\(?:text|textrm|textit|textbf|texttt|textsf|emph|mathrm|mathbf|mathit|boldsymbol|bm|mbox|hbox)\s*)?(?=\{)"
)
_SWITCH = re.compile(r"\\(?:displaystyle|textstyle|bf|rm|it)(?![a-zA-Z])\s*")
_BLANK = r"\\[,:;!> ]|\\q?quad(?![a-zA-Z])|\s"
_BLANK_ENDS = re.compile(rf"^(?:{_BLANK})+|(?:{_BLANK}|~)+$|(?<!\\)\\$")
_STOP = re.compile(r"(?<![\\.])[.,;:\u3002]$")
_DOTS = re.compile(r"(?:[.\u2026\s]|\\[a-z]*dots)*")


def extract_answer_line(text: str) -> str | None:
    """Return the canonical answer of the last line `Answer: x`; `None` if there is none."""
    found = _ANSWER_LINE.findall(text)
    return canonical(found[-1]) or None if found else None


def extract_hash_number(text: str) -> str | None:
    """Return the canonical number after the last `####`, or `A:` at the start of a line; `None` if there is none.

    GSM8K's references have the one mark, the models' solutions that were released with it the other. The rest of the
    line must be one number, as `quantities.parse_quantity` reads it: with a currency sign, a unit or words, or none of
    them. A percent sign is a unit: where GSM8K asks for percents, its references are the number alone. Marks of
    emphasis and mathematics around the number are dropped. A mark with nothing after it is passed over.
    """
    for mark in reversed(list(_HASH_MARK.finditer(text))):
        line = _LINE.match(text, mark.end())
        assert line is not None
        rest, opened = line[0].strip(), mark[1] or mark[2]
        if opened:  # as in **A:** 5 and **A: 5**
            rest = rest.removeprefix(opened) if rest.startswith(opened) else rest.rstrip(". ").removesuffix(opened)
        if rest.strip(" \t*_`"):
            value = parse_quantity(_unwrapped(rest), words=True)
            return None if value is None else str(value)
    return None


def extract_boxed(text: str) -> str | None:
    r"""Return the canonical content of the last `\boxed{...}` (MATH); `None` if there is none or it never closes.

    Braces may nest; `\boxed 5`, without braces, is read up to the next space, `$` or end of line. Passed over are boxes
    with nothing or only dots in them, and `\boxed` as a word of a sentence.
    """
    answer, end = None, 0
    for mark in _BOXED.finditer(text):
        if mark.start() < end:
            continue  # inside another box
        if text.startswith("{", mark.end()):
            closed = _closing(text, mark.end())
            if closed is None:
                answer = None
                continue
            content, end = text[mark.end() + 1 : closed - 1], closed
        elif bare := _BARE_BOX.match(text, mark.end()):
            content = bare[0] if "(" in bare[0] else bare[0].rstrip(").,;:")
        else:
            continue
        found = canonical(content)
        answer = answer if _DOTS.fullmatch(_in_font(found)) else found
    return answer


def _closing(text: str, start: int) -> int | None:
    """Return the place after the brace that closes the one at `start`."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1  # an escaped brace neither opens nor closes
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return None


def _unwrapped(text: str) -> str:
    """Return `text` without the marks that enclose its beginning."""
    while True:
        text = text.strip()
        if match := next((match for pattern in _ENCLOSED if (match := pattern.match(text))), None):
            text = f"{match[2].strip()} {text[match.end() :]}"
        elif (match := _BOX.match(text) or _FONT.match(text)) and (end := _closing(text, match.end())):
            text = f"{text[match.end() + 1 : end - 1].strip()} {text[end:]}"
        elif match := _SWITCH.match(text):
            text = text[match.end() :]
        else:
            return text


def canonical(answer: str) -> str:
    r"""Return one spelling for answers that are plainly the same.

    Numbers become a reduced integer or fraction (`1,250.50` -> `2501/2`, `\frac{2}{4}` -> `1/2`, `-0` -> `0`), without
    a currency sign or a unit in `\text{...}`; of other text, marks of emphasis and mathematics around the whole go, a
    stop at its end too, and runs of white space become one space. What has been brought to it once stays as it is.
    """
    text = " ".join(answer.replace("\u2212", "-").split())
    if len(text) > MAX_ANSWER_CHARS:
        return text
    while (bare := _bare(text)) != text:
        text = bare
    inner = text
    while (value := parse_quantity(inner, words=False)) is None:
        # Fonts and braces go only where a number is inside: \text{rat} is a word, rat the product of three variables.
        bare = _bare(_in_font(inner))
        if bare == inner:
            return text
        inner = bare
    return str(value)


def _bare(text: str) -> str:
    """Return `text` without the outermost marks that enclose it and a stop at its end."""
    text = _STOP.sub("", _BLANK_ENDS.sub("", text))
    for pattern in _ENCLOSED:
        if match := pattern.fullmatch(text):
            return match[2].strip()
    if (match := _BOX.match(text)) and _closing(text, match.end()) == len(text):
        return text[match.end() + 1 : -1].strip()
    if text.startswith("\\$") or (text.startswith("$") and "$" not in text[1:]):
        return text.removeprefix("\\")[1:].strip()
    return text.strip()


def _in_font(text: str) -> str:
    match = _FONT.match(text)
    if match and _closing(text, match.end()) == len(text):
        return text[match.end() + 1 : -1]
    return _SWITCH.sub("", text, count=1) if _SWITCH.match(text) else text


def grade_exact(answer: str | None, gold: str) -> bool:
    """Return whether both have the same canonical form; enough where answers are numbers or fixed text."""
    return answer is not None and canonical(answer) == canonical(gold)


def grade(answer: str | None, gold: str) -> bool:
    """Return whether `answer` is mathematically the same as `gold`.

    Two plain numbers are compared exactly. Anything else that differs in canonical form is given to
    math-verify; what it cannot decide in time is wrong. Results are cached.

    Raises:
        UserError: math-verify is needed and not installed.
    """
    if answer is None:
        return False
    answer, gold = canonical(answer), canonical(gold)
    if answer == gold:
        return True
    if max(len(answer), len(gold)) > MAX_ANSWER_CHARS or not answer:
        return False
    if parse_number(answer) is not None and parse_number(gold) is not None:
        return False
    if (words := in_words(answer)) or in_words(gold):
        return words == in_words(gold)
    return _grade_symbolic(answer, gold)


@lru_cache(maxsize=1 << 16)
def _grade_symbolic(answer: str, gold: str) -> bool:
    return _WORKER.grade(answer, gold)


class SymbolicWorker:
    """A process that compares answers with math-verify, started at the first question asked of it.

    It is a fresh interpreter, not a fork: JAX's threads do not survive forks. Its timeout is enforced from
    here by killing it, so no signal handler is installed in either process. Safe to share between threads.

    Args:
        timeout: Seconds one comparison may take.
        start_timeout: Seconds the process may take to start.
    """

    def __init__(self, timeout: float = 5.0, start_timeout: float = 120.0):
        self.timeout = timeout
        self.start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def grade(self, answer: str, gold: str) -> bool:
        """Return math-verify's verdict; `False` if it gives none in time, or crashes twice over this question.

        A process that died with time left is asked again, afresh: what ended it need not have been the question.

        Raises:
            MachineError: The process was killed twice from outside.
            UserError: math-verify is not installed or does not start.
        """
        request = json.dumps({"answer": answer, "gold": gold, "timeout": self.timeout}).encode() + b"\n"
        with self._lock:
            status, crashed = None, False
            for _ in range(2):
                reply = self._ask(request)
                if reply:
                    return reply == b"1"
                status = self._stop()
                if reply is None or status == -getattr(signal, "SIGXCPU", 0):
                    logger.warning("comparing %.80r with %.80r took too long; counted as wrong", answer, gold)
                    return False
                logger.info("the grading process ended with status %s", status)
                crashed = status is None or status > 0 or -status in _CRASHES
            if crashed:
                logger.warning("comparing %.80r with %.80r crashed twice; counted as wrong", answer, gold)
                return False
        raise MachineError(
            f"the grading process was killed twice from outside (status {status}), perhaps for want of memory: "
            "free some and run the same command again"
        )

    def _ask(self, request: bytes) -> bytes | None:
        """Return the process's reply; nothing where it has died, `None` where the time has run out."""
        try:
            process = self._process if self._process is not None and self.running else self._start()
            assert process.stdin is not None
            process.stdin.write(request)
            return self._reply(process, self.timeout)
        except BrokenPipeError:
            return b""
        except BaseException:
            self._stop()  # the reply to this question must not answer the next one
            raise

    def close(self) -> None:
        """Stop the process; a later `grade` starts a new one."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("symbolic grading needs math-verify: pip install 'math-verify[antlr4_13_2]'")
        # -P keeps the script's folder out of the import path, where our module names could shadow others.
        command = [sys.executable, "-P", str(Path(__file__).with_name("symbolic_worker.py"))]
        for _ in range(2):  # until the script runs, a signal to the group of processes ends it
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
            reply = self._reply(self._process, self.start_timeout)
            if reply == b"r":
                return self._process
            self._stop()
            if reply is None:
                break
        raise UserError(f"the grading process did not start; see what this says: {shlex.join(command)} < {os.devnull}")

    def _reply(self, process: subprocess.Popen[bytes], timeout: float) -> bytes | None:
        assert process.stdout is not None
        if not connection.wait([process.stdout], timeout):  # type: ignore[list-item]
            return None
        return process.stdout.read(1)

    def _stop(self) -> int | None:
        """Kill the process and return its exit status; `None` where there is none."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.communicate()
        return process.returncode


_WORKER = SymbolicWorker()
atexit.register(_WORKER.close)
