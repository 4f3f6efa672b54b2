"""The `ttcjax` command: reads arguments, calls the library, prints results and errors.

An error becomes one line on stderr and an exit status:

    1    the machine refuses: a full disk, no permission, no memory, no network
    2    what was given cannot be used: a setting, a path, a file, a library or a device that is not there
    3    `ttcjax data check` found test questions in the training data
    130  Ctrl-C
    143  SIGTERM, as shells say it; also where it came before the program could handle it or after its work was done

`--debug` shows the traceback too.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from ttcjax.cli import commands, parser
from ttcjax.config import ConfigError
from ttcjax.runtime import faults, stop
from ttcjax.runtime.errors import UserError
from ttcjax.text import shown


def entry() -> int:
    """Run as a program: `main` in a process that takes its memory in large pages."""
    _take_large_pages()
    sys.excepthook = shown.excepthook
    return main()


def _take_large_pages() -> None:
    """Start this program again with large pages for what the C library allocates, where it was started without.

    XLA on CPU takes the memory of every step anew, and in small pages a fifth of the time of training goes into
    page faults. The GNU C library reads the setting when a process starts, and only then.
    """
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        recent = tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except (AttributeError, OSError, ValueError):  # Another C library.
        return
    if name == "glibc" and recent and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    shown.protect_output()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, distributed = _take(arguments, "--debug"), _take(arguments, "--distributed")
    try:
        with stop.watching():
            args = parser.build(commands.CALLS).parse_args(parser.prepared(arguments))
            _start_logging()
            if args.command in commands.COMPUTING:
                _prepare_jax()
            if distributed:
                _join_distributed()
            status = args.call(args)
            sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        return _report("interrupted; run the same command again to go on", 130, debug)
    except stop.Stopped as error:
        return _report("stopped by SIGTERM; run the same command again to go on", int(error.code or 0), debug)
    except BrokenPipeError:
        if not _is_broken(sys.stdout):
            return _report("a connection was cut; run the same command again to go on", 1, debug)
        # The reader of our output, such as `head`, is gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        return _report(str(error), UserError.status, debug)
    except Exception as error:
        fault = faults.explain(error)
        if fault is not None:
            return _report(str(fault), fault.status, debug)
        if isinstance(error, OSError) and error.strerror:
            return _report(f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1, debug)
        raise


def _is_broken(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads any more."""
    poll = select.poll()
    try:
        poll.register(stream, 0)  # Errors and hang-ups are told unasked.
    except (TypeError, ValueError):  # No file of the system, as in a notebook, or a closed one.
        return False
    return bool(poll.poll(0))


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        print(shown.block(traceback.format_exc()), end="", file=sys.stderr)
    print(f"ttcjax: {shown.one_line(message)}", file=sys.stderr)
    return status


def _take(arguments: list[str], flag: str) -> bool:
    """Remove a flag of every command and return whether it was there; what follows `--` is no flag."""
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    found = flag in flags
    arguments[: len(flags)] = [argument for argument in flags if argument != flag]
    return found


def _start_logging() -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[shown.log_handler()])
    logging.getLogger("ttcjax").setLevel(logging.INFO)


def _prepare_jax() -> None:
    from ttcjax.parallel import all_devices, skip_absent_tpu, use_all_cpu_cores  # imports jax

    skip_absent_tpu()
    use_all_cpu_cores()
    all_devices()  # A platform that is not here is told before anything is read or written.


def _join_distributed() -> None:
    import jax

    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed found no multi-host job to join: {error}") from error
    if jax.process_count() > 1:
        raise UserError(
            f"{jax.process_count()} processes joined, and stages write from one: start `ttcjax` on one host"
        )
