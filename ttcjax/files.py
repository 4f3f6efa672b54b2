"""Paths, and files that are whole or absent."""

from __future__ import annotations

import os

from etils import epath


def absolute(path: epath.PathLike) -> epath.Path:
    """Return a local path as an absolute one, which Orbax asks for; bucket paths as they are."""
    found = epath.Path(path)
    return found if "://" in os.fspath(found) else found.expanduser().absolute()


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write a file under another name, then rename it, so that `path` never holds half of it.

    Raises:
        OSError: The file cannot be written, e.g. because the disk is full; what was there before stays.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "://" in os.fspath(path):  # Object stores show an object once it is whole, and cannot rename one.
        path.write_bytes(content)
        return
    partial = path.parent / f"{path.name}.partial"
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
