"""Faults told apart: the machine's, a missing library's or device's, and the rest.

Libraries report a full disk, a lack of permission or of memory, an absent platform or a missing package in their own
ways, wrapped several times over. `explain` finds the cause in the chain of exceptions and says it in one line with its
cure, so that nothing is called damaged for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from ttcjax.runtime.errors import MachineError, UserError

_EXTRAS = {
    "gcsfs": "data",
    "gguf": "gguf",
    "torch": "bench",
    "transformers": "bench",
    "tensorboardX": "tensorboard",
}
"""The extra of this package that installs a module."""

_FULL = "free some space and run the same command again, finished work is kept"
_PERMISSION = "run as a user who may, change its permissions, or choose another place"
_MEMORY = "use a machine with more, or lower sampler.rows or sampler.memory, and in training batch_size"
_DRIVE = "see to the drive and run the same command again"
_NETWORK = "see that the machine is connected and run the same command again, finished work is kept"

_BY_NUMBER: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space left on the disk", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("a file would be larger than this system allows", "raise the limit (ulimit -f)"),
    errno.EACCES: ("permission denied", _PERMISSION),
    errno.EPERM: ("operation not permitted", _PERMISSION),
    errno.EROFS: ("the file system is read-only", "choose a folder that can be written"),
    errno.ENOMEM: ("out of memory", _MEMORY),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many open files on this machine", "end other programs"),
    errno.ENAMETOOLONG: ("a path is too long", "choose a shorter --workdir"),
    errno.EISDIR: ("a folder stands where a file is due", "move it away and run the same command again"),
    errno.ENOTDIR: ("a file stands where a folder is due", "move it away and run the same command again"),
    errno.ELOOP: ("a symbolic link leads to itself", "mend the link, or give the folder it is to lead to"),
    errno.EBUSY: ("something else is using a file", "end it and run the same command again"),
    errno.ENOTCONN: ("the network drive is not connected", _DRIVE),
    errno.EREMOTEIO: ("the network drive failed to answer", _DRIVE),
    errno.EIO: ("the disk or network drive failed to answer", _DRIVE),
    errno.ESTALE: ("the network drive lost a file", _DRIVE),
    errno.ENETUNREACH: ("no network", _NETWORK),
    errno.EHOSTUNREACH: ("no network", _NETWORK),
    errno.ECONNREFUSED: ("the connection was refused", _NETWORK),
    errno.ECONNRESET: ("the connection was lost", _NETWORK),
    errno.ETIMEDOUT: ("the connection timed out", _NETWORK),
}
"""Meaning of an error number of the system, and the cure."""

# What C++ libraries (TensorStore, XLA, Arrow) say of the same, in the text of their exceptions alone.
_BY_TEXT: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"No space left on device|Disk quota exceeded|\[.*os_error_code='28'"), errno.ENOSPC),
    (re.compile(r"File too large"), errno.EFBIG),
    (re.compile(r"Read-only file system"), errno.EROFS),
    (re.compile(r"PERMISSION_DENIED|Permission denied"), errno.EACCES),
    (re.compile(r"RESOURCE_EXHAUSTED|Out of memory|std::bad_alloc|Cannot allocate memory"), errno.ENOMEM),
    (re.compile(r"Too many open files"), errno.EMFILE),
    (re.compile(r"File name too long"), errno.ENAMETOOLONG),
    (re.compile(r"Input/output error"), errno.EIO),
)

_BACKEND = re.compile(r"Unable to initialize backend '(\w+)'|Backend '(\w+)' (?:failed to initialize|is not in)")
_SETTING = re.compile(
    r"[Ii]nvalid (?:truth )?value [\"'](.*?)[\"'] for (?:JAX flag (jax_\w+)|environment [\"']?(JAX_\w+))"
)
_NETWORK_MODULES = ("aiohttp", "urllib3", "requests", "http")
_CLOUD_MODULES = ("gcsfs", "google.api_core", "google.auth", "google.cloud", "google.resumable_media")

_WRAPPERS = frozenset(("array_record", "etils", "fsspec", "gcsfs", "grain", "jax", "orbax", "pyarrow", "tensorstore"))
"""Libraries that raise an error of their own for one that they were told of, without saying that it is the cause."""


def explain(error: BaseException) -> UserError | None:
    """Return what an exception comes to if the machine, a missing library or an absent device is its cause.

    Args:
        error: As it was caught; what it was raised from is looked at too.

    Returns:
        An error with one line for the user; a `UserError` in the chain is returned itself. `None` where the cause is
        another, such as damaged data or a fault of the program.
    """
    for cause, is_cause in _chain(error):
        if isinstance(cause, UserError):
            if is_cause:
                return cause
            continue  # Something else went wrong while it was handled.
        found = _by_type(cause) or _by_text(cause)
        if found is not None:
            return found
    return None


def raise_explained(error: BaseException) -> None:
    """Raise what `explain` makes of an exception; return where it makes nothing of it."""
    found = explain(error)
    if found is not None:
        raise found from (None if found is error else error)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise what `explain` makes of exceptions in their place: for functions that programs call, as a decorator too."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise_explained(error)
        raise


def missing_library(name: str, purpose: str = "") -> UserError:
    """Return the error for an optional library that is not installed, with the command that installs it."""
    root = name.partition(".")[0]
    wanted = f"'ttcjax[{_EXTRAS[root]}]'" if root in _EXTRAS else root.replace("_", "-")
    return UserError(f"{purpose or 'this'} needs the library {root}, which is not installed: pip install {wanted}")


def absent_platform(name: str, detail: str = "") -> UserError:
    """Return the error for a platform that JAX cannot start here."""
    asked = os.environ.get("JAX_PLATFORMS", "").split(",")
    count = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
    if name == "cpu" and not count.strip().strip("+0").isdigit():
        return UserError(f"JAX_NUM_CPU_DEVICES must be 1 or more, not {count}")
    if name in ("cuda", "rocm") and name not in asked and "gpu" in asked:
        name = "gpu"
    extra = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}.get(name)
    install = f", or pip install 'ttcjax[{extra}]' on a machine that has one" if extra else ""
    why = f" ({detail})" if detail else ""
    return UserError(f"JAX finds no platform {name!r} here{why}: unset JAX_PLATFORMS, or set it to cpu{install}")


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield an exception and what it was raised from, and whether each is its cause.

    What was being handled when it was raised is looked at where a library that wraps errors raised it. Elsewhere it is
    something that went wrong in the handling.
    """
    seen: set[int] = set()
    waiting: list[tuple[BaseException | None, bool]] = [(error, True)]
    while waiting:
        one, is_cause = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one, is_cause
        waiting.append((one.__cause__, is_cause))
        if isinstance(one, BaseExceptionGroup):
            waiting += [(inside, is_cause) for inside in one.exceptions]
        if not one.__suppress_context__ and _raised_in(one) in _WRAPPERS:
            waiting.append((one.__context__, False))


def _raised_in(error: BaseException) -> str:
    """Return the top-level package of the code that raised an exception."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.partition(".")[0]


def _by_type(error: BaseException) -> UserError | None:
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _of_number(error.errno, error.filename)
    if isinstance(error, MemoryError):
        return _of_number(errno.ENOMEM)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ttcjax"):
        return missing_library(error.name)
    if isinstance(error, ImportError) and "gcsfs" in str(error):
        return missing_library("gcsfs", "a gs:// path")
    module = type(error).__module__
    cloud = any(f"{module}.".startswith(f"{name}.") for name in _CLOUD_MODULES)
    if cloud and not isinstance(error, FileNotFoundError):
        return MachineError(
            f"the bucket refused or could not be reached ({_line(error)}): see that the machine has credentials "
            "(gcloud auth application-default login) and a network"
        )
    if module == "socket" or (module.partition(".")[0] in _NETWORK_MODULES and isinstance(error, OSError)):
        return MachineError(f"no network ({_line(error)}): {_NETWORK}")
    return None


def _by_text(error: BaseException) -> UserError | None:
    text = str(error)
    if isinstance(error, RuntimeError | AssertionError) and (found := _BACKEND.search(text)):
        return absent_platform(found[1] or found[2])
    if isinstance(error, ValueError) and (found := _SETTING.search(text)):
        name = (found[3] or found[2]).upper()
        return UserError(f"the environment variable {name} has a value that JAX cannot take: {found[1]!r}")
    if isinstance(error, OSError | RuntimeError | ValueError | BaseExceptionGroup):
        for pattern, number in _BY_TEXT:
            if pattern.search(text):
                return _of_number(number)
    return None


def _of_number(number: int, filename: object = None) -> UserError:
    what, cure = _BY_NUMBER[number]
    where = f" at {os.fsdecode(filename)}" if isinstance(filename, str | bytes | os.PathLike) else ""
    return MachineError(f"{what}{where}: {cure}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
