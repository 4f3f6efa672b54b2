"""The record of every stage of a workdir: how it was made, and which files are its own.

A stage's folder of rows holds Parquet files and nothing else, so that any reader opens it as one table. What is known
of it stands beside: `stages/<stage>.json` under the workdir has the settings, the fingerprint, the costs, and the list
of the files that belong to the stage with their sizes and hashes. What else lies in the folder, left there by a
program that copies or synchronises, is not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from ttcjax.runtime import faults as machine
from ttcjax.runtime.errors import DamagedError, UserError
from ttcjax.runtime.files import is_remote, is_there, sha256, write_bytes

logger = logging.getLogger(__name__)

FOLDER = "stages"
"""Holds the records, under the workdir."""

_told: set[tuple[str, ...]] = set()
"""Folders and the strangers in them of which the log has told."""

_KEYS = frozenset({"fingerprint", "complete", "attempts", "seconds", "started"})


def path_of(folder: epath.PathLike) -> epath.Path:
    """Return the path of the record of a stage's folder; an unfinished stage has the name of the finished one."""
    folder = epath.Path(folder)
    return folder.parent / FOLDER / f"{folder.name.removesuffix('.partial')}.json"


def read(folder: epath.PathLike) -> dict[str, Any] | None:
    """Return the record of a stage's folder, or `None` where there is none or it is no record.

    Raises:
        OSError: It is there and cannot be read, e.g. for want of permission.
    """
    try:
        record = json.loads(path_of(folder).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) and set(record) >= _KEYS else None


def read_complete(folder: epath.PathLike) -> dict[str, Any] | None:
    """Return the record of a stage's folder if the stage is complete and its folder there, else `None`."""
    record = read(folder)
    return record if record is not None and record["complete"] and epath.Path(folder).is_dir() else None


def why_none(folder: epath.PathLike) -> str:
    """Return in words why a stage's folder has no record: it is missing itself, or its record cannot be read."""
    if not is_there(folder):
        return "is missing"
    return f"has no record that can be read ({path_of(folder)})"


def of_stages(workdir: epath.PathLike) -> dict[str, dict[str, Any]]:
    """Return the records of the complete stages of a workdir, in the order of their names."""
    folder = epath.Path(workdir) / FOLDER
    names = sorted(path.stem for path in folder.iterdir() if path.suffix == ".json") if folder.is_dir() else []
    found = {name: read_complete(epath.Path(workdir) / name) for name in names if "." not in name}
    return {name: record for name, record in found.items() if record is not None}


def part_path(folder: epath.PathLike, index: int, count: int) -> epath.Path:
    """Return the path of what one of several processes leaves of a stage that they share."""
    path = path_of(folder)
    return path.parent / f"{path.stem}.part-{index}-of-{count}.json"


def part_paths(folder: epath.PathLike) -> list[epath.Path]:
    """Return the paths of what the parts of a stage have left, in the order of their names."""
    path = path_of(folder)
    name = re.compile(rf"{re.escape(path.stem)}\.part-[0-9]+-of-[0-9]+\.json")
    found = path.parent.iterdir() if path.parent.is_dir() else ()
    return sorted((one for one in found if name.fullmatch(one.name)), key=str)


def parts(folder: epath.PathLike) -> list[dict[str, Any]]:
    """Return what the parts of a stage have left; see `part_path`."""
    return [json.loads(path.read_text()) for path in part_paths(folder)]


def write(folder: epath.PathLike, record: Mapping[str, Any]) -> None:
    """Write the record of a stage's folder, so that a reader sees the whole of it or the one before."""
    write_json(path_of(folder), record)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write JSON so that a reader sees the whole file or the one that was there before."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def move(source: epath.Path, target: epath.Path) -> None:
    """Give a stage's folder and its record another name; a process killed in between leaves both findable."""
    record = read(source)
    if record is not None:
        write(target, record)
    source.rename(target)
    if record is not None:
        path_of(source).unlink(missing_ok=True)


def identities(folder: epath.Path, names: Iterable[str]) -> dict[str, dict[str, int | str]]:
    """Return size, hash and time of change of the files of a stage; a folder's name stands for all files below it.

    Raises:
        FileNotFoundError: A file is not there.
    """
    found: dict[str, dict[str, int | str]] = {}
    for name in names:
        for path in _files(folder / name):
            found[str(path.relative_to(folder))] = _identity(path)
    return dict(sorted(found.items()))


def _files(path: epath.Path) -> list[epath.Path]:
    if not path.is_dir():
        return [path]
    return [file for inside in path.iterdir() for file in _files(inside)]


def _identity(path: epath.Path) -> dict[str, int | str]:
    identity: dict[str, int | str] = {"bytes": path.stat().length, "sha256": sha256(path)}
    return identity if is_remote(path) else identity | {"changed": _changed(path)}


def _changed(path: epath.Path) -> int:
    """Return when the system last saw a file change, in nanoseconds; programs cannot set it back."""
    return os.stat(path).st_ctime_ns


def faults(folder: epath.PathLike, record: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with the files of a stage, by name: gone, cut short, or of other bytes.

    A file whose size and time of change are as recorded is taken to be whole, as it is not read here; what reads it
    compares its hash. One with another time, as after a copy, is hashed.
    """
    folder = epath.Path(folder)
    wrong: dict[str, str] = {}
    for name, identity in record.get("files", {}).items():
        path = folder / name
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            wrong[name] = "is gone"
            continue
        if found.length != identity["bytes"]:
            wrong[name] = f"has {found.length} bytes of {identity['bytes']}"
        elif not is_remote(path) and _changed(path) != identity.get("changed") and sha256(path) != identity["sha256"]:
            wrong[name] = "has other bytes than were written"
    return wrong


def refreshed(folder: epath.PathLike, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a stage without faults with the times of its files as they are now.

    After a copy they differ, and every file would be hashed each time.
    """
    folder = epath.Path(folder)
    if is_remote(folder):
        return record
    files = {n: {**identity, "changed": _changed(folder / n)} for n, identity in record.get("files", {}).items()}
    return record | {"files": files} if files else record


def members(folder: epath.PathLike, suffix: str = ".parquet") -> dict[epath.Path, str]:
    """Return the files of a complete stage that end in `suffix`, in the order of their names, and their hashes.

    What else lies beside them is named in the log and not read.

    Raises:
        UserError: The stage is not complete.
    """
    folder = epath.Path(folder)
    record = read_complete(folder)
    if record is None:
        raise UserError(f"{folder} is not the folder of a complete stage: run the {folder.name} stage first")
    own = record.get("files", {})
    odd = strangers(folder, record)
    if odd and (os.fspath(folder), *odd) not in _told:
        _told.add((os.fspath(folder), *odd))
        logger.warning("%s: %s", folder, told_of_strangers(odd))
    return {folder / name: identity["sha256"] for name, identity in sorted(own.items()) if name.endswith(suffix)}


def told_of_strangers(names: Sequence[str]) -> str:
    """Return in words that some files are not read."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"not its own and not read: {', '.join(names[:5])}{more}"


def hash_of(path: epath.PathLike) -> str | None:
    """Return the hash of a file directly in the folder of a complete stage, `None` where its record has none."""
    path = epath.Path(path)
    record = read_complete(path.parent)
    return record.get("files", {}).get(path.name, {}).get("sha256") if record is not None else None


def read_own(path: epath.PathLike) -> bytes:
    """Return the bytes of a stage's file, compared with its hash where its record has one.

    Raises:
        DamagedError: It has other bytes than were written, or the record names it and it is gone.
        FileNotFoundError: It is not there, and no record names it.
        MachineError: The machine does not let it be read.
    """
    path = epath.Path(path)
    known = hash_of(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if known is None:
            raise
        raise damaged(path, "it is gone") from error
    except OSError as error:
        machine.raise_explained(error)
        raise
    if known is not None and hashlib.sha256(content).hexdigest() != known:
        raise damaged(path, "it has other bytes than were written")
    return content


def hashes(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of every file of a complete stage."""
    return {name: identity["sha256"] for name, identity in record.get("files", {}).items()}


def strangers(folder: epath.PathLike, record: Mapping[str, Any]) -> list[str]:
    """Return the names of what lies in a folder of rows and does not belong to it.

    A folder is one of rows if its own files all lie directly in it and are Parquet files.
    """
    own = record.get("files", {})
    if not own or not all(name.endswith(".parquet") and "/" not in name for name in own):
        return []
    return sorted(path.name for path in epath.Path(folder).iterdir() if path.name not in own)


def damaged(path: epath.PathLike, why: str) -> DamagedError:
    """Return the error for a file of a stage whose bytes were read and are not those that were written."""
    return DamagedError(
        f"{path} is damaged ({why}): run `ttcjax run CONFIG` with the settings of its workdir, which keeps what is "
        "whole and makes the rest again"
    )
