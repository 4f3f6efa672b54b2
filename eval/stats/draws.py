"""What resamples of the questions say of every estimate of a summary: kept beside it, for what is computed of several.

An interval alone does not tell how two estimates go together. Two runs that were asked the same questions and draw the
same resamples can be compared resample by resample.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ttcjax.runtime import records
from ttcjax.runtime.files import write_bytes

FILE = "draws.npz"
SEPARATOR = "\t"
"""Between the keys of a path."""
KEPT = 500
"""Resamples of an estimate that are kept, the first ones: a standard error by so many is off by 3%."""


class Draws(NamedTuple):
    """An estimate in every resample of the questions.

    Attributes:
        values: `[R]`; not a number where a resample has nothing to estimate from.
        share: Whether it is one of 0 to 1, and its interval Wilson's.
    """

    values: np.ndarray
    share: bool


class Drawn(float):
    """An estimate that has its draws with it, through all tables of numbers up to `take`; else a number like any."""

    draws: Draws

    def __new__(cls, value: float, values_R: np.ndarray, share: bool = False) -> Drawn:
        found = super().__new__(cls, value)
        found.draws = Draws(values_R, share)
        return found

    def __deepcopy__(self, memo: object) -> Drawn:
        return self  # `dataclasses.asdict` copies what it finds.

    def __reduce__(self) -> tuple[Any, ...]:
        return Drawn, (float(self), *self.draws)

    def rounded(self, places: int) -> Drawn:
        """Return the same with fewer decimals, of the estimate alone."""
        return Drawn(round(float(self), places), *self.draws)


def take(summary: dict[str, Any]) -> dict[str, Draws]:
    """Take the draws out of a summary, which then holds JSON's own types, and return them by the path of their cell.

    A path has the keys and numbers that lead to the cell, with `SEPARATOR` between.
    """
    found: dict[str, Draws] = {}
    for path, cell in cells(summary):
        for name, value in cell.items():
            if isinstance(value, Drawn):
                found[path] = value.draws
                cell[name] = float(value)
    return found


def cells(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every table among the numbers of a summary that has both ends of an interval, with its path."""
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            yield SEPARATOR.join(path), value
        for key, inner in value.items():
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
