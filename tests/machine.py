"""What a machine must have for a test, and what processes that tests start run under."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

import jax
import pytest


def need_devices(count: int) -> None:
    """Skip the test that calls this where there are fewer devices; `TTCJAX_TEST_DEVICES` sets how many there are."""
    if count > jax.device_count():
        pytest.skip(f"needs {count} devices, and there are {jax.device_count()}")


def compiled_once(folder: pathlib.Path) -> dict[str, str]:
    """Return the environment of processes that run stages whole, and again after they were killed: programs are kept in
    a folder, as compiling anew would be most of the work."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(folder / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    return os.environ | kept


def common(base: pathlib.Path) -> pathlib.Path:
    """Return the folder that the workers of pytest-xdist have in common, of a worker's own base."""
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def alone(folder: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Yield `folder/name` to one worker at a time: the first one that comes makes what the others find there."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield folder / name
