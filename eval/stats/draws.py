"""Resamples of the questions behind every estimate of a summary, kept beside it for what is computed of several.

An interval alone does not tell how two estimates go together. Two runs that were asked the same questions and draw the
same resamples can be compared resample by resample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

SEPARATOR = "\t"
"""Between the keys of a path."""


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
