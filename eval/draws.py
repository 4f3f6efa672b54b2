"""What resamples of the questions say of every estimate of a summary: kept beside it, for what is computed of several.

An interval alone does not tell how two estimates go together. Two runs that were asked the same questions and draw the
same resamples can be compared resample by resample.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from ttcjax.files import write_bytes
from ttcjax.runtime import records

KEY = "draws"
"""Where an estimate among the numbers of a summary has its `Draws`, until `take` takes them out."""
FILE = "draws.npz"
SEPARATOR = "\t"
"""Between the keys of a path."""
KEPT = 500
"""Resamples of an estimate that are kept, the first ones: a standard error by so many is off by 3%."""


class Draws:
    """An estimate in every resample of the questions; not to be changed.

    Attributes:
        values: `[R]`; not a number where a resample has nothing to estimate from.
        share: Whether it is one of 0 to 1, and its interval Wilson's.
    """

    def __init__(self, values: np.ndarray, share: bool):
        self.values, self.share = values, share

    def __deepcopy__(self, memo: object) -> Draws:
        return self  # `dataclasses.asdict` copies what it finds.

    def __eq__(self, other: object) -> bool:
        equal = isinstance(other, Draws) and self.share == other.share
        return equal and np.array_equal(self.values, other.values, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]


def take(summary: dict[str, Any]) -> dict[str, Draws]:
    """Take the draws out of a summary, which then holds JSON's own types, and return them by the path of their cell.

    A path has the keys and numbers that lead to the cell, with `SEPARATOR` between.
    """
    found: dict[str, Draws] = {}
    for path, cell in cells(summary):
        if KEY in cell:
            drawn = cell.pop(KEY)
            if drawn is not None:
                found[path] = drawn
    return found


def cells(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every table among the numbers of a summary that has both ends of an interval, with its path."""
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            yield SEPARATOR.join(path), value
        for key, inner in list(value.items()):
            if key != KEY:
                yield from cells(inner, (*path, str(key)))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from cells(inner, (*path, str(place)))


def write(path: epath.PathLike, draws: Mapping[str, Draws], questions: int) -> None:
    """Write draws, of every estimate the first `KEPT`.

    Args:
        path: The file.
        draws: By the path of their cell.
        questions: How many were resampled.
    """
    kept = [drawn.values[:KEPT].astype(np.float32) for drawn in draws.values()]
    sink = io.BytesIO()
    np.savez(
        sink,
        paths=np.array(list(draws), np.str_),
        values=np.stack(kept) if kept else np.zeros((0, 0), np.float32),
        share=np.array([drawn.share for drawn in draws.values()], bool),
        questions=np.int64(questions),
    )
    write_bytes(path, sink.getvalue())


def read(path: epath.PathLike) -> tuple[dict[str, Draws], int]:
    """Return the draws that were written into the report of a complete run, and how many questions were resampled.

    Raises:
        DamagedError: The file has other bytes than were written.
    """
    with np.load(io.BytesIO(records.read_own(path)), allow_pickle=False) as file:
        values, share = file["values"].astype(np.float64), file["share"]
        found = {str(name): Draws(values[i], bool(share[i])) for i, name in enumerate(file["paths"])}
        return found, int(file["questions"])
