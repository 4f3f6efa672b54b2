"""Files outside a workdir that a data set is read from: known by their content, and compared when a run goes on."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
from etils import epath

from ttcjax.config import DataConfig, config_hash
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_shard, write_shard

FILE = "sources.parquet"
"""Beside the examples: a digest of every line that was read."""

SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int32(), nullable=False, metadata={"about": "from 1"}),
        pa.field("digest", pa.binary(8), nullable=False, metadata={"about": "first bytes of the line's SHA-256"}),
    ]
)

_NAMED = 5
"""Most changed lines of a file that a message names."""
_COMPARED = 4000
"""Most lines in which insertions are told from changes, which takes a time that grows with the square."""


def lost(config: DataConfig) -> UserError:
    """Return the error for files that do not hold the lines which are to be read from them."""
    return UserError(
        f"the data stage is to read lines that {config.dir} does not hold: put the files back as they were, or read "
        "what is there and make again what was made of them (--changed_inputs read)"
    )


def digests(files: Mapping[str, bytes]) -> dict[str, list[bytes]]:
    """Return the digest of every line of some files."""
    return {name: [_digest(line) for line in content.split(b"\n")] for name, content in files.items()}


def content(found: dict[str, list[bytes]]) -> str | None:
    """Return 16 hex digits that identify the content of files, `None` for no files."""
    if not found:
        return None
    return config_hash({name: hashlib.sha256(b"".join(lines)).hexdigest() for name, lines in found.items()})


def write(folder: epath.Path, found: dict[str, list[bytes]]) -> None:
    """Write the digests beside the examples that were read from the files."""
    rows = [
        {"file": name, "line": number, "digest": digest}
        for name, lines in found.items()
        for number, digest in enumerate(lines, 1)
    ]
    write_shard(folder / FILE, rows, SCHEMA)


def read(folder: epath.Path) -> dict[str, list[bytes]]:
    """Return the digests that `write` wrote.

    Raises:
        UserError: The file is gone or damaged.
    """
    found: dict[str, list[bytes]] = {}
    for row in read_shard(folder / FILE, SCHEMA, sha256=records.hash_of(folder / FILE)).to_pylist():
        found.setdefault(row["file"], []).append(row["digest"])
    return found


def difference(before: dict[str, list[bytes]], after: dict[str, list[bytes]]) -> str:
    """Return in a few words which lines of which files differ."""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return "; ".join(
        f"{name}: {_lines(before.get(name, []), after[name])}" if name in after else f"{name} is gone" for name in names
    )


def _lines(before: Sequence[bytes], after: Sequence[bytes]) -> str:
    if before[-1:] == after[-1:] == [_digest(b"")]:  # Of what follows the last line end.
        before, after = before[:-1], after[:-1]
    head = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(len(old), len(new)) > _COMPARED:
        return f"lines {head + 1} to {head + len(new)} differ"
    changed, added, removed = [], [], []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            both = min(b - a, d - c)
            changed += range(head + c + 1, head + c + both + 1)
            added += range(head + c + both + 1, head + d + 1)
            removed += range(head + a + both + 1, head + b + 1)
    parts = (("changed", changed), ("added", added), ("removed", removed))
    return ", ".join(f"{_numbers(numbers)} {word}" for word, numbers in parts if numbers)


def _numbers(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:_NAMED]))
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"line{'s' * (len(numbers) > 1)} {named}{more}"


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line.rstrip(b"\r")).digest()[:8]
