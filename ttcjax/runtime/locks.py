"""Locks of a workdir: one run works in it, or the parts of one sweep, and nobody beside them.

The locks are the system's own (`fcntl`), which work over NFS and end with their process, however that ends. Where a
file system has none, the lease of the library `filelock` takes their place: a file that its holder renews, and that
others take over once it has not been renewed for a while. Object stores have neither: there the caller sees to it that
one run at a time uses a workdir.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_remote

logger = logging.getLogger(__name__)

LOCK = ".lock"
_GATE = f"{LOCK}-stages"

_HELD = frozenset({errno.EACCES, errno.EAGAIN})
"""The numbers by which the system says that another process has a lock."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""Those by which it says that there are no locks here."""

_MOST_OPENINGS = 100
"""Tries to open a lock's file that other processes take away."""
_PATIENCE = 5.0
"""Seconds to wait for another part that holds the workdir for a moment."""
_RENEWAL = 10.0
"""Seconds between two renewals of a lease; after four without one it is void."""

_leases_told: set[str] = set()
_mine: set[str] = set()
"""Workdirs that this process holds."""
_mine_changes = threading.Lock()


@contextlib.contextmanager
def alone(workdir: epath.Path) -> Iterator[None]:
    """Hold the workdir against every other process.

    A workdir that is made here and in which nothing is begun goes again at the end, while it is still held.

    Raises:
        UserError: Another process holds the workdir, or it cannot be written.
    """
    if is_remote(workdir):
        yield
        return
    new = _make(workdir)
    with _here(workdir), _opened(workdir / LOCK) as lock:
        if not lock.take(exclusive=True, patience=lock.void_after):
            raise UserError(
                f"workdir {workdir} is in use by {lock.holder()}: wait for it to end, or choose another with --workdir"
            )
        lock.say(_myself())
        try:
            yield
        finally:
            _unmake(workdir, new)


@contextlib.contextmanager
def shared(workdir: epath.Path, part: str, mark: str) -> Iterator[Callable[[], bool]]:
    """Hold the workdir together with the other parts of a sweep, and against everything else.

    Gives a function that returns whether no other part is at work; where it says so, none begins until this one ends.

    Args:
        workdir: The folder.
        part: This part, as `2/4`; it runs once at a time.
        mark: What all parts have in common, in words.

    Raises:
        UserError: Another process holds the workdir or runs the same part, or other parts of another sweep do.
    """
    if is_remote(workdir):
        yield lambda: False  # There is nothing to tell.
        return
    own_name = f"{LOCK}-part-{part.replace('/', '-of-')}"
    _make(workdir)
    with _here(workdir), _opened(workdir / own_name) as own, _opened(workdir / LOCK) as everyone:
        if not own.take(exclusive=True, patience=own.void_after):
            raise UserError(f"part {part} of a sweep in {workdir} runs already, as {own.holder()}")
        own.say(_myself())
        try:
            _join(everyone, workdir, mark)
            yield lambda: everyone.take(exclusive=True, patience=0.0)
        finally:
            if everyone.take(exclusive=True, patience=0.0):
                (workdir / _GATE).unlink(missing_ok=True)
            (workdir / own_name).unlink(missing_ok=True)


@contextlib.contextmanager
def gate(workdir: epath.Path, name: str = "stages") -> Iterator[None]:
    """Let one part at a time do something; others wait until it is done, or its process gone.

    Args:
        workdir: The folder, which is there.
        name: What is done: `stages`, to begin or complete a stage, or what else takes turns.
    """
    if is_remote(workdir):
        yield
        return
    with _opened(workdir / f"{LOCK}-{name}") as lock:
        lock.take(exclusive=True, patience=None)
        yield


@runtime_checkable
class _Lock(Protocol):
    """A file that processes lock, and in which the holder says who it is."""

    @property
    def void_after(self) -> float:
        """Seconds for which a holder that is gone may still seem to be there."""
        ...

    def take(self, *, exclusive: bool, patience: float | None) -> bool:
        """Take the lock, in place of one that is held, and return whether it could be had within so many seconds;
        `None` waits for ever."""
        ...

    def say(self, text: str) -> None: ...

    def holder(self) -> str: ...


def _join(lock: _Lock, workdir: epath.Path, mark: str) -> None:
    """Take a shared lock where nobody has one, or where those who have are parts of the same sweep."""
    begin = time.monotonic()
    while True:
        if lock.take(exclusive=True, patience=0.0):  # Nobody else is here: what the file says is old.
            lock.say(mark)
        passed = time.monotonic() - begin
        if lock.take(exclusive=False, patience=0.0):
            if (holder := lock.holder()) == mark:
                return
            if passed >= lock.void_after:
                raise UserError(f"workdir {workdir} is in use by {holder}, and this is {mark}: wait for it to end")
        elif passed > _PATIENCE + lock.void_after:
            raise UserError(
                f"workdir {workdir} is in use by {lock.holder()}: wait for it to end, or choose another with --workdir"
            )
        time.sleep(0.05)


@contextlib.contextmanager
def _here(workdir: epath.Path) -> Iterator[None]:
    """Hold the workdir within this process, to which the system's locks belong as a whole."""
    key = os.path.realpath(workdir)
    with _mine_changes:
        if key in _mine:
            raise UserError(f"workdir {workdir} is in use by this process: wait for it to end, or choose another")
        _mine.add(key)
    try:
        yield
    finally:
        with _mine_changes:
            _mine.discard(key)


def _make(workdir: epath.Path) -> list[epath.Path]:
    """Make the workdir, and return the folders that were not there before, the workdir first."""
    new = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot make workdir {workdir}: {error.strerror}; choose another with --workdir") from None
    except OSError as error:
        raise (faults.explain(error) or error) from None
    return new


def _unmake(workdir: epath.Path, new: Sequence[epath.Path]) -> None:
    """Remove the folders that were made for a workdir which still holds nothing but locks; the caller has the lock."""
    with contextlib.suppress(OSError):
        if new and all(path.name.startswith(LOCK) for path in workdir.iterdir()):
            for path in workdir.iterdir():
                path.rmtree() if path.is_dir() else path.unlink()
            for folder in new:
                folder.rmdir()


@contextlib.contextmanager
def _opened(path: epath.Path) -> Iterator[_Lock]:
    handle = _open(path)
    try:
        with contextlib.ExitStack() as stack:
            yield _System(path, handle) if _has_locks(handle, path) else stack.enter_context(_leased(path, handle))
    finally:
        os.close(handle)


def _open(path: epath.Path) -> int:
    """Open a lock's file, made anew where the process that made it has taken it away again."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise (faults.explain(error) or error) from None


def _is_current(handle: int, path: epath.Path) -> bool:
    """Return whether an open file is the one that others will open.

    The process that had it may have taken it away between our opening and our locking it.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(handle))


def _open_again(handle: int, path: epath.Path) -> None:
    fresh = _open(path)
    os.dup2(fresh, handle, inheritable=False)
    os.close(fresh)


def _has_locks(handle: int, path: epath.Path) -> bool:
    """Return whether the file system has locks, and say so once where it has not."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(handle, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno in _HELD:
            return True
        if error.errno not in _NO_LOCKS:
            raise (faults.explain(error) or error) from None
        folder = os.fspath(path.parent)
        if folder not in _leases_told:
            _leases_told.add(folder)
            logger.warning(
                "the file system of %s has no locks (%s): a lease that is renewed every %.0f s takes their place",
                folder,
                error.strerror,
                _RENEWAL,
            )
        return False
    return True


class _System:
    """The system's lock; `fcntl` and not `flock`, whose locks forked workers inherit and keep past their parent."""

    @property
    def void_after(self) -> float:
        return 0.0

    def __init__(self, path: epath.Path, handle: int):
        self._path, self._handle = path, handle

    def take(self, *, exclusive: bool, patience: float | None) -> bool:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        deadline = None if patience is None else time.monotonic() + patience
        opened = 0
        while True:
            try:
                fcntl.lockf(self._handle, kind | fcntl.LOCK_NB)
                # Some file systems give a file another number each time: that does not end.
                if opened == _MOST_OPENINGS or _is_current(self._handle, self._path):
                    return True
                _open_again(self._handle, self._path)
                opened += 1
                continue
            except OSError as error:
                if error.errno not in _HELD:
                    raise (faults.explain(error) or error) from None
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.05)

    def say(self, text: str) -> None:
        _say(self._handle, text)

    def holder(self) -> str:
        return _holder(self._handle)


@contextlib.contextmanager
def _leased(path: epath.Path, handle: int) -> Iterator[_Lease]:
    lease = _Lease(path, handle)
    try:
        yield lease
    finally:
        lease.drop()


class _Lease:
    """A lease, which a process that ends without a word keeps until it is void."""

    def __init__(self, path: epath.Path, handle: int):
        import filelock

        self._handle = handle
        self._timeout: type[Exception] = filelock.Timeout
        self._path = path
        self._held = False
        self._lock = filelock.SoftReadWriteLock(
            os.fspath(path),
            is_singleton=False,
            heartbeat_interval=_RENEWAL,
            stale_threshold=4 * _RENEWAL,
            poll_interval=min(0.25, _RENEWAL / 4),
            on_compromise=self._lost,
        )

    @property
    def void_after(self) -> float:
        return 4 * _RENEWAL + 1

    def take(self, *, exclusive: bool, patience: float | None) -> bool:
        self.drop()
        acquire = self._lock.acquire_write if exclusive else self._lock.acquire_read
        waits = [-1.0] if patience is None else [min(patience, 0.5), max(0.0, patience - 0.5)]
        for number, wait in enumerate(waits):
            try:
                acquire(timeout=wait)
                self._held = True
                if not _is_current(self._handle, self._path):
                    _open_again(self._handle, self._path)
                return True
            except self._timeout:
                if not number and waits[-1] > 1:
                    logger.info("%s: waiting to see whether %s renews its lease", self._path.parent, self.holder())
            except OSError as error:
                raise faults.explain(error) or UserError(
                    f"{self._path.parent} has neither locks nor what a lease needs ({error}): choose a --workdir on "
                    "another file system"
                ) from error
        return False

    def drop(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()

    def say(self, text: str) -> None:
        _say(self._handle, text)

    def holder(self) -> str:
        return _holder(self._handle)

    def _lost(self, reason: object) -> None:
        logger.error("the lease on %s was lost, and another process may hold it: stopping (%s)", self._path, reason)
        os.kill(os.getpid(), signal.SIGTERM)


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _say(handle: int, text: str) -> None:
    os.truncate(handle, 0)
    os.pwrite(handle, f"{text}\n".encode(), 0)


def _holder(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
