"""The process behind `grading.SymbolicWorker`; run as a script, it imports nothing of ttcjax.

Reads one JSON object a line with `answer`, `gold` and `timeout` (seconds), and replies with one byte each:
`1` for the same, `0` for not. The byte `r` at the start says that imports are done.
"""

from __future__ import annotations

import json
import os
import sys

MEMORY_BYTES = 4 << 30


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_cpu(seconds: float) -> None:
    # The kernel ends a comparison that outlives a parent killed before it could end this process.
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a library's prints are no replies
    _limit_memory()
    from math_verify import LatexExtractionConfig, parse, verify

    # Only the LaTeX grammar: math-verify's reader of plain expressions ends in Python's eval.
    target = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]

    def same(answer: str, gold: str) -> bool:
        parsed_gold, parsed_answer = (
            parse(f"\\boxed{{{text}}}", extraction_config=target, parsing_timeout=None)  # type: ignore[arg-type]
            for text in (gold, answer)
        )
        return bool(parsed_gold and parsed_answer) and verify(parsed_gold, parsed_answer, timeout_seconds=None)

    replies.write(b"r")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_cpu(request["timeout"])
        try:
            verdict = same(request["answer"], request["gold"])
        except Exception:  # whatever sympy cannot digest is no proof of equality
            verdict = False
        replies.write(b"1" if verdict else b"0")


if __name__ == "__main__":
    main()
