"""The one reading of a path argument, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from typing import Literal

from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError

_SCHEMES = {"gs": "gcsfs"}
"""Kinds of remote paths, and the library that each needs."""

_PATTERN = "*?[]\\"
"""Characters that Orbax and TensorStore take for a pattern or an escape: what is written there is not found again."""

_BLOCK = 1 << 20


def resolve(
    path: epath.PathLike, what: str = "the path", *, kind: Literal["any", "folder", "file"] = "any"
) -> epath.Path:
    """Return a path argument as every option, command and function reads it.

    `~` is the home folder; a relative path starts at the current folder; a slash at the end says nothing; `gs://` paths
    stay as they are.

    Args:
        path: As the user gave it.
        what: What the path is for, in messages, such as `--workdir`.
        kind: What it must be where something is there.

    Raises:
        UserError: It is empty, names no user's home or an unknown kind of storage, has characters that no path may
            have, is a file where a folder is due or the other way round, or needs a library that is not installed.
    """
    text = os.fsdecode(path)
    if not text.strip():
        due = "name a file" if kind == "file" else "name a folder, or . for the current one"
        raise UserError(f"{what} is empty: {due}")
    if odd := sorted({c for c in text if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000}):
        raise UserError(f"{what} {text!r} holds {odd[0]!r}, a control character or no Unicode: choose another name")
    scheme, _, rest = text.partition("://")
    if rest.strip("/") and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return _remote(scheme.lower(), rest, what)
    if mistyped := re.match(r"(gs):/*", text):
        raise UserError(f"{what} {text!r} is no bucket's path: it begins with {mistyped[1]}:// and the bucket's name")
    found = epath.Path(text).expanduser()
    if os.fspath(found).startswith("~"):
        raise UserError(f"{what} {text!r}: there is no such user; write ./{text} for a folder of that name")
    found = found.absolute()
    if kind == "folder" and is_there(found) and not found.is_dir():
        raise UserError(f"{what} {found} is a file, and a folder is due")
    if kind == "file" and found.is_dir():
        raise UserError(f"{what} {found} is a folder, and a file is due")
    return found


def resolve_workdir(path: epath.PathLike, what: str = "--workdir") -> epath.Path:
    """Return the folder of a run; see `resolve`.

    Raises:
        UserError: As for `resolve`, or the path has characters with which a checkpoint could not be read back.
    """
    found = resolve(path, what, kind="folder")
    text = os.fspath(found)
    if odd := sorted(set(text) & set(_PATTERN)):
        raise UserError(
            f"{what} {text} holds {odd[0]!r}, which the checkpoint library takes for a pattern, so that models could "
            "not be read back: choose a folder without it"
        )
    if any(part.rstrip(":") in _SCHEMES and part.endswith(":") for part in found.parts) and "://" not in text:
        raise UserError(f"{what} {text} holds a folder that looks like a bucket's address: choose another name")
    return found


def _remote(scheme: str, rest: str, what: str) -> epath.Path:
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise UserError(f"{what}: unknown storage {scheme}://; local folders and {known} paths are known")
    if importlib.util.find_spec(_SCHEMES[scheme]) is None:
        raise faults.missing_library(_SCHEMES[scheme], f"a {scheme}:// path")
    return epath.Path(f"{scheme}://{rest.rstrip('/')}")


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is a bucket's: such storage has no locks, renames or appended lines."""
    return "://" in os.fspath(path)


def is_there(path: epath.PathLike) -> bool:
    """Return whether something has a path's name; `exists` says so of what may not be looked at that it is not there.

    Raises:
        MachineError: The machine does not let it be looked at.
    """
    path = epath.Path(path)
    if is_remote(path):
        return path.exists()
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        faults.raise_explained(error)
        raise
    return True


def free(path: epath.Path) -> epath.Path:
    """Return the path, or where something has that name, the path with the first number that makes it new."""
    found, count = path, 1
    while found.exists():
        count += 1
        found = path.parent / f"{path.name}-{count}"
    return found


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write a file under another name, then rename it, so that `path` never holds half of it.

    Raises:
        OSError: The file cannot be written, e.g. because the disk is full; what was there before stays.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):  # Object stores show an object once it is whole, and cannot rename one.
        path.write_bytes(content)
        return
    partial = path.parent / f"{path.name}.partial"
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sha256(path: epath.PathLike) -> str:
    """Return the SHA-256 of a file's bytes in hex digits."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
