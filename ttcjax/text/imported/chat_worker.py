"""The process behind `chat.ChatTemplate`; run as a script, it imports nothing of ttcjax.

A template is a program of somebody else's: it runs in jinja2's sandbox, and here, where time and memory have limits.
Writes an empty list in a line once imports are done. Reads one JSON object with `template`, `values`, `date`, `most`
(characters of a text) and `seconds`, then one list of messages a line, and replies to each with a line of JSON: `[true,
text]`, or `[false, what is wrong]`. It ends with its standard input.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
from typing import Any

MEMORY_BYTES = 1 << 30

_MEMORY = f"it takes more than {MEMORY_BYTES >> 30} GiB of memory"


class _Refused(Exception):
    pass


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_cpu(seconds: float) -> None:
    # The kernel ends a template that outlives a parent killed before it could end this process.
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def compiled(template: str, date: str) -> Any:
    """Return a chat template as transformers compiles it: the same sandbox, blanks, filters and functions.

    Args:
        template: Its text.
        date: The day that `strftime_now` tells, as `2024-07-26`.
    """
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what the assistant says in a training text: here its body alone counts."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def tojson(
        x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message: Any) -> None:
        raise _Refused(str(message))

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    day = datetime.datetime.combine(datetime.date.fromisoformat(date), datetime.time())
    environment.globals["strftime_now"] = day.strftime
    return environment.from_string(template)


def rendered(template: Any, values: dict[str, Any], messages: list[dict[str, str]], most: int) -> str:
    """Return the text that a template makes of a conversation, which the assistant is to go on with.

    Raises:
        _Refused: It has more than `most` characters.
    """
    parts, length = [], 0
    for part in template.generate(**values, messages=messages, tools=None, documents=None, add_generation_prompt=True):
        parts.append(part)
        length += len(part)
        if length > most:
            raise _Refused(f"it writes more than {most} characters")
    return "".join(parts)


def main() -> None:
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii", newline="\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def reply(what: list[Any]) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    import jinja2.ext
    import jinja2.sandbox  # noqa: F401

    reply([])
    request = json.loads(sys.stdin.buffer.readline())
    _limit_memory()
    _limit_cpu(request["seconds"])
    template, failed = None, ""
    try:
        template = compiled(request["template"], request["date"])  # which computes what is constant in it
    except MemoryError:
        failed = _MEMORY
    except Exception as error:
        failed = _line(error)
    for line in sys.stdin.buffer:
        if template is None:
            reply([False, failed])
            continue
        _limit_cpu(request["seconds"])
        try:
            reply([True, rendered(template, request["values"], json.loads(line), request["most"])])
        except MemoryError:
            reply([False, _MEMORY])
        except Exception as error:
            reply([False, _line(error)])


def _line(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    line = getattr(error, "lineno", None)
    where = f" in line {line}" if isinstance(line, int) else ""
    return f"{type(error).__name__}{where}: {error}"


if __name__ == "__main__":
    main()
