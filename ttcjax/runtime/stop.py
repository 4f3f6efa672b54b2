"""Stops: SIGTERM and Ctrl-C, noted when they come and obeyed at the next safe point, whatever code holds the thread.

Where nothing can be left half done, a signal raises at once. Where something can (a training step, a folder that is
being published), it is noted, and raised where the guarded block ends. A noted stop stays noted: if a library swallows
the exception, the next `check` raises again, so that no work is begun after it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """SIGTERM came. Ends the process with status 143, which shells give to a process that SIGTERM ended."""

    def __init__(self, message: str = "stopped by SIGTERM"):
        super().__init__(128 + signal.SIGTERM)
        self.message = message

    def __str__(self) -> str:
        return self.message


class _State:
    """The stop of this process; signals are a process's, so there is one."""

    noted: int | None = None
    """The signal that came first."""
    guards: int = 0
    """Guarded blocks that the main thread is in."""
    watching: bool = False


_state = _State()


def noted() -> bool:
    """Return whether a stop has been asked for."""
    return _state.noted is not None


def check() -> None:
    """Raise if a stop has been asked for, unless a guarded block holds it back; long work calls this between pieces.

    Raises:
        Stopped: After SIGTERM.
        KeyboardInterrupt: After Ctrl-C.
    """
    if not _state.guards:
        obey()


def obey(message: str = "") -> None:
    """Raise if a stop has been asked for: the call says that nothing is half done here.

    Args:
        message: What the exception says, where there is more to say than that a signal came.

    Raises:
        Stopped: After SIGTERM.
        KeyboardInterrupt: After Ctrl-C.
    """
    if _state.noted is not None and threading.current_thread() is threading.main_thread():
        raise _exception(_state.noted, message)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Handle SIGTERM and Ctrl-C inside; in the main thread alone, and once where blocks are nested."""
    if _state.watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    _state.watching, _state.noted, _state.guards = True, None, 0
    try:
        for number in SIGNALS:
            signal.signal(number, _handle)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _state.watching, _state.noted = False, None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Hold a stop back inside, and obey it at the end. A second Ctrl-C is not held back.

    Raises:
        Stopped: At the end, after SIGTERM.
        KeyboardInterrupt: At the end, after Ctrl-C.
    """
    with watching():
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        _state.guards += 1
        try:
            yield
        finally:
            _state.guards -= 1
        check()


def _handle(number: int, frame: FrameType | None) -> None:
    again = _state.noted is not None
    if not again:
        _state.noted = number
    if again and number != signal.SIGINT:
        return  # It is on its way; to raise once more would end what puts things in order.
    if not _state.guards or again:
        raise _exception(number, "")
    if number == signal.SIGINT:
        # Past Python's buffers, which the signal may have interrupted.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping as soon as nothing is half done; Ctrl-C again stops at once\n")


def _exception(number: int, message: str) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt(message or "interrupted")
    return Stopped(message or "stopped by SIGTERM")
