"""The verdict on an answer: by exact arithmetic, else by computer algebra in a process of its own."""

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

from ttcjax.config.convention import MATH, Convention
from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.text.grading.comparison import compare
from ttcjax.text.grading.extraction import canonical
from ttcjax.text.grading.keys import key
from ttcjax.text.grading.quantities import MAX_ANSWER_CHARS, in_words
from ttcjax.text.grading.sentences import extract_answer, final_answer, joined_boxes
from ttcjax.text.grading.spelling import MAX_DEPTH

logger = logging.getLogger(__name__)

_CRASHES = {getattr(signal, name, 0) for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")}
"""Signals that a process brings upon itself."""

_LONGEST_KEY = 300
"""Of longer keys, such as those of large powers, the answer itself is shorter."""
_TOWER = re.compile(
    r"(?:\^|\*\*)\s*[{(\s]*[^\^\s]{1,60}?(?:\^|\*\*)\s*[{(\s]*\d"  # a power of a power
    r"|(?:(?:\^|\*\*)[^\^*]{1,60}){3}"
    r"|(?:\^|\*\*)\s*[{(]?\s*-?\d{5,}|\d{4,}\s*[})]?\s*!|!\s*\)?\s*!|binom\s*\{?\s*\d{5,}"
    r"|[)\]]\s*(?:\^|\*\*)\s*[{(]?\s*-?\d{2,}|\((?:[^()+-]*[+-]){4}[^()]*\)\s*(?:\^|\*\*)"  # a sum multiplied out
)


def grade(answer: str | None, gold: str, convention: Convention = MATH) -> bool:
    r"""Return whether `answer` is mathematically the same as `gold`.

    Each may be a sentence that states the answer or has it in a box (`final_answer`). Text, exact arithmetic and values
    to many digits decide nearly always (`compare`); what is left, sums and integrals among it, is given to math-verify,
    and what that cannot decide in time is wrong. Results are cached.

    Args:
        answer: An answer; `None` is wrong.
        gold: The reference.
        convention: What counts as the same.

    Raises:
        UserError: math-verify is needed and not installed.
    """
    if answer is None or gold is None:
        return False
    return _grade(str(answer), str(gold), convention)


@lru_cache(maxsize=1 << 16)
def _grade(answer: str, gold: str, convention: Convention) -> bool:
    for text, other, swapped in ((answer, gold, False), (gold, answer, True)):
        if text.count("boxed") > 1 and (several := joined_boxes(text)) is not None:
            pair = (other, several) if swapped else (several, other)
            if _grade(*pair, convention):
                return True
    answer, gold = final_answer(answer), final_answer(gold)
    if max(len(answer), len(gold)) > MAX_ANSWER_CHARS or not answer.strip():
        return answer.strip() != "" and answer == gold
    short, short_gold = canonical(answer), canonical(gold)
    if short == short_gold and short and convention.ignore_units:
        return True
    words = in_words(short) if "_" not in short else None
    if words or ("_" not in short_gold and in_words(short_gold)):
        return words == in_words(short_gold)
    verdict = compare(answer, gold, convention)
    if verdict is None and not (heavy(answer) or heavy(gold)):
        verdict = _WORKER.grade(answer, gold)
    return bool(verdict)


def heavy(text: str) -> bool:
    """Return whether computer algebra is not to be asked about a text: a tower of powers, a large factorial, depth."""
    return len(text) > MAX_ANSWER_CHARS or max(map(text.count, "({[")) > MAX_DEPTH or bool(_TOWER.search(text))


def answer_key(answer: str, convention: Convention = MATH) -> str:
    r"""Return one text for all spellings of an answer that exact arithmetic shows to be the same, for votes.

    `0.5`, `\frac{1}{2}` and `x = 1/2` have the key `1/2`, `\frac{\sqrt{8}}{4}` and `\frac{1}{\sqrt{2}}` the key
    `1/2*2^(1/2)`. A key is an answer of the same value and its own key; where arithmetic does not apply it is the
    canonical text.
    """
    return _answer_key(answer, convention)


def extract_key(text: str) -> str | None:
    """Return the key of the final answer of a solution; `None` where it states none.

    As a task's `extract` it makes all spellings of an answer one vote. A key is graded like the answer it stands for.
    """
    answer = extract_answer(text)
    return None if answer is None else answer_key(answer)


@lru_cache(maxsize=1 << 14)
def _answer_key(answer: str, convention: Convention) -> str:
    short = canonical(answer)
    if len(short) > MAX_ANSWER_CHARS or in_words(short):
        return short
    found = key(short, convention)
    return short if found is None or len(found) > _LONGEST_KEY else found


class SymbolicWorker:
    """A process that compares answers with math-verify, started at the first question asked of it.

    It is a fresh interpreter, not a fork: JAX's threads do not survive forks. Its timeout is enforced from
    here by killing it, so no signal handler is installed in either process. Safe to share between threads.

    Args:
        timeout: Seconds one comparison may take.
        start_timeout: Seconds the process may take to start.
        exact: Whether numbers are compared exactly; otherwise by math-verify's own tolerances, which take 10^-20 and
            10^-21 for the same.
    """

    def __init__(self, timeout: float = 5.0, start_timeout: float = 120.0, *, exact: bool = True):
        self.exact = exact
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
        asked = {"answer": answer, "gold": gold, "timeout": self.timeout, "exact": self.exact}
        request = json.dumps(asked).encode() + b"\n"
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
