"""Rows of JSON: one a line, elements of one list, or one a file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ttcjax.config import FieldsConfig


class Row(NamedTuple):
    """One row of a file, not decoded yet."""

    where: str
    """As messages name it: the file, with the line or the entry."""
    id: str
    line: bytes


def rows(path: str, name: str, label: str, content: bytes) -> Iterator[Row]:
    """Yield the rows of a file that are not blank.

    Args:
        path: Of the file, for messages.
        name: Of the file in its folder; the id of the row where the file is one object.
        label: Beginning of other rows' ids; the number of the line or entry, from 1, follows.
        content: JSON lines, or one JSON list or, in a file that ends in `.json`, one object.
    """
    body = content.removeprefix(codecs.BOM_UTF8)
    whole = _whole(body) if name.endswith(".json") or body.lstrip()[:1] == b"[" else None
    if isinstance(whole, dict):
        yield Row(path, name, body)
    elif isinstance(whole, list):
        for number, entry in enumerate(whole, 1):
            yield Row(f"{path}, entry {number}", f"{label}-{number:05d}", json.dumps(entry).encode())
    else:
        for number, line in enumerate(body.split(b"\n"), 1):
            if line.strip():
                yield Row(f"{path}, line {number}", f"{label}-{number:05d}", line)


def _whole(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        return None


def decode(line: bytes) -> dict[str, Any] | str:
    """Return the JSON object of a line, or what is wrong with it; an object that is none has no fields."""
    twice: list[str] = []

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.extend(key for key in found if [k for k, _ in pairs].count(key) > 1)
        return found

    try:
        row = json.loads(line.decode(), object_pairs_hook=table)
    except UnicodeDecodeError:
        return "not UTF-8 text"
    except (ValueError, RecursionError):
        return "not valid JSON"
    if twice:
        return f"the field {twice[0]!r} stands twice"
    return row if isinstance(row, dict) else {}


USUAL: Mapping[str, Sequence[str]] = {
    "question": ("question", "problem", "prompt"),
    "answer": ("answer", "final_answer", "expected_answer", "target"),
    "solution": ("solution", "rationale"),
    "id": ("id", "unique_id"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "category"),
}
"""Names that a field of `FieldsConfig` is looked for by where none is given."""


def field(row: Mapping[str, Any], fields: FieldsConfig, name: str) -> Any:
    """Return the value of a field of `FieldsConfig` in a row; `None` where there is none.

    Args:
        row: The row.
        fields: Names that were given.
        name: One of `USUAL`.
    """
    given = getattr(fields, name)
    if given is None:
        small = {key.lower(): value for key, value in reversed([*row.items()])}
        return next((small[key] for key in USUAL[name] if key in small), None)
    if given in row:
        return row[given]
    value: Any = row
    for part in given.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def level_of(value: Any) -> int | None:
    """Return a level from 1 to 5 that is written `3`, `"3"` or `"Level 3"`; `None` for anything else."""
    text = str(value).strip().lower().removeprefix("level").strip() if isinstance(value, (int, str)) else ""
    return int(text) if text in ("1", "2", "3", "4", "5") else None
