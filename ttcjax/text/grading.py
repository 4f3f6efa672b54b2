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
import re
import subprocess
import sys
import threading
from fractions import Fraction
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path

from ttcjax.errors import UserError

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 1000
"""Longer answers are wrong unless they equal the reference as text."""

_ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*)$", re.MULTILINE)
_HASH_NUMBER = re.compile(
    r"(?:####|^A:)[ \t]*\\?\$?[ \t]*([-+\u2212]?\\?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+))", re.ASCII | re.MULTILINE
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(rf"([-+]?)(?:{_DECIMAL})", re.ASCII)
_RATIO = re.compile(rf"([-+]?)({_DECIMAL})\s*/\s*({_DECIMAL})", re.ASCII)
_LATEX_RATIO = re.compile(
    rf"([-+]?)\s*\\[dt]?frac\s*(?:\{{([-+]?(?:{_DECIMAL}))\}}\s*\{{({_DECIMAL})\}}|(\d)\s*(\d))", re.ASCII
)


def extract_answer_line(text: str) -> str | None:
    """Return the canonical answer of the last line `Answer: x`; `None` if there is none."""
    found = _ANSWER_LINE.findall(text)
    return canonical(found[-1]) or None if found else None


def extract_hash_number(text: str) -> str | None:
    """Return the canonical number after the last `####`, or `A:` at the start of a line; `None` if there is none.

    GSM8K's references have the one mark, the models' solutions that were released with it the other. A currency sign
    and thousands commas are dropped, and so is text after the number.
    """
    found = _HASH_NUMBER.findall(text)
    return canonical(found[-1].replace("\\", "").replace("$", "").replace(",", "")) if found else None


def extract_boxed(text: str) -> str | None:
    r"""Return the canonical content of the last `\boxed{...}` (MATH); `None` if there is none or it never closes.

    Braces may nest; `\boxed 5`, without braces, is read up to the next space, `$` or end of line.
    """
    marks = list(_BOXED.finditer(text))
    if not marks:
        return None
    rest = text[marks[-1].end() :]
    if not rest.startswith("{"):
        found = re.match(r"[^\s$]+", rest)
        return canonical(found[0]) or None if found else None
    depth, i = 0, 0
    while i < len(rest):
        if rest[i] == "\\":
            i += 1  # an escaped brace neither opens nor closes
        elif rest[i] == "{":
            depth += 1
        elif rest[i] == "}":
            depth -= 1
            if depth == 0:
                return canonical(rest[1:i]) or None
        i += 1
    return None


def parse_number(text: str) -> Fraction | None:
    r"""Return the exact value of an integer, decimal, `a/b` or `\frac{a}{b}`; `None` for anything else.

    Commas count only where they separate thousands.
    """
    text = text.strip().replace("\u2212", "-")
    if len(text) > MAX_ANSWER_CHARS:
        return None
    if _NUMBER.fullmatch(text):
        return _decimal(text)
    if match := _RATIO.fullmatch(text):
        sign, numerator, denominator = match.groups()
    elif match := _LATEX_RATIO.fullmatch(text):
        sign = match[1]
        numerator, denominator = (match[2], match[3]) if match[2] else (match[4], match[5])
    else:
        return None
    if not _decimal(denominator):
        return None
    value = _decimal(numerator) / _decimal(denominator)
    return -value if sign == "-" else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").removesuffix("."))


def canonical(answer: str) -> str:
    r"""Return one spelling for answers that are plainly the same.

    Numbers become a reduced integer or fraction (`1,250.50` -> `2501/2`, `\frac{2}{4}` -> `1/2`, `-0` -> `0`);
    of other text, outer dollar signs and a final full stop go, and runs of white space become one space.
    """
    text = " ".join(answer.replace("\u2212", "-").split())
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text[1:-1].strip()
    text = text.removeprefix("\\$").removeprefix("$").removesuffix(".").strip()
    value = parse_number(text)
    return text if value is None else str(value)


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
        """Return math-verify's verdict; `False` if it gives none in time or its process dies."""
        with self._lock:
            process = self._process if self._process is not None and self.running else self._start()
            assert process.stdin is not None
            request = json.dumps({"answer": answer, "gold": gold, "timeout": self.timeout}).encode() + b"\n"
            try:
                process.stdin.write(request)
                reply = self._reply(process, self.timeout)
            except BrokenPipeError:
                reply = b""
            if not reply:
                logger.warning(
                    "symbolic grading of %.80r against %.80r gave no verdict; counted as wrong", answer, gold
                )
                self._stop()
            return reply == b"1"

    def close(self) -> None:
        """Stop the process; a later `grade` starts a new one."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("symbolic grading needs math-verify: pip install 'math-verify[antlr4_13_2]'")
        script = Path(__file__).with_name("symbolic_worker.py")
        # -P keeps the script's folder out of the import path, where our module names could shadow others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        if self._reply(self._process, self.start_timeout) != b"r":
            self._stop()
            raise UserError(f"the grading process did not start; try: {sys.executable} -c 'import math_verify'")
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], timeout: float) -> bytes:
        assert process.stdout is not None
        if not connection.wait([process.stdout], timeout):  # type: ignore[list-item]
            return b""
        return process.stdout.read(1)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_WORKER = SymbolicWorker()
atexit.register(_WORKER.close)
