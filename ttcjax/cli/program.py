"""The `ttcjax` command: reads arguments, calls the library, prints results and errors.

Library errors become one line on stderr and an exit status: 2 for bad input, 1 for a full disk or
another failure of the system, 130 for Ctrl-C and 143 for SIGTERM. `--debug` shows the traceback too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ttcjax.cli import commands, parser
from ttcjax.config import ConfigError
from ttcjax.errors import UserError
from ttcjax.text import shown

_TERMINATED = 128 + signal.SIGTERM
"""The status that shells give to a process ended by SIGTERM."""


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
        args = parser.build(commands.CALLS).parse_args(arguments)
        _start_logging()
        with _sigterm_raises():
            if args.command in commands.COMPUTING:
                _prepare_jax()
            if distributed:
                _join_distributed()
            args.call(args)
        return 0
    except KeyboardInterrupt:
        return _report("interrupted; run the same command again to go on", 130, debug)
    except BrokenPipeError:
        # The reader of our output, such as `head`, is gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, ConfigError) as error:
        return _report(str(error), 2, debug)
    except SystemExit as error:
        if error.code == _TERMINATED:
            return _report("stopped by SIGTERM; run the same command again to go on", _TERMINATED, debug)
        raise
    except Exception as error:
        if _disk_is_full(error):
            where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
            advice = "free some space and run the same command again, finished work is kept"
            return _report(f"no space left on the disk{where}: {advice}", 1, debug)
        if isinstance(error, OSError) and error.strerror:
            return _report(f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1, debug)
        raise


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        print(shown.block(traceback.format_exc()), end="", file=sys.stderr)
    print(f"ttcjax: {shown.one_line(message)}", file=sys.stderr)
    return status


def _take(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _disk_is_full(error: BaseException | None) -> bool:
    """Say whether the error or what caused it is a full disk; C++ writers tell it in their message only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(_TERMINATED)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed and what can be saved is saved."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _start_logging() -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[shown.log_handler()])
    logging.getLogger("ttcjax").setLevel(logging.INFO)


def _prepare_jax() -> None:
    from ttcjax.parallel import skip_absent_tpu, use_all_cpu_cores  # imports jax

    skip_absent_tpu()
    use_all_cpu_cores()


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
