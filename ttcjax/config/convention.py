"""The choices that graders of mathematics differ in, each one named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ttcjax.config.base import require


@dataclass(frozen=True)
class Convention:
    """Choices of what counts as the same answer; the defaults are the usage of MATH (Hendrycks et al. 2021)."""

    percent: Literal["either", "number", "share"] = "either"
    """Meaning of `20%`: 20 as well as 1/5 (`either`), 20 alone (`number`), or 1/5 alone (`share`)."""
    ordered_lists: bool = False
    """Whether `1, 2` and `2, 1` differ; tuples and matrices are always ordered, sets never."""
    decimals: int = 6
    """A decimal is right if it is the exact value rounded to so many places (so many digits of a small number, nine of
    a large one); 0 asks for exact values. A value that has no more places than that is always asked for exactly."""
    ignore_units: bool = True
    """Whether `5 cm`, `$5`, `5` and `5 degrees` are the same; otherwise units are compared as text."""
    ignore_case: bool = True
    """Whether words are compared without regard to capitals; variables never are."""
    ignore_labels: bool = True
    """Whether `x = 5` is 5, and `x \\in [0, 1]` is `[0, 1]`."""
    decimal_comma: bool = True
    """Whether `1,5` may be 1.5 where it cannot be the list of both numbers."""
    scaled_equations: bool = True
    """Whether equations and inequalities are the same up to a factor, and with sides exchanged."""
    relations_as_sets: bool = False
    """Whether `0 < x < 1` answers a reference `(0, 1)`; the other way round is always accepted. An inequality may be
    the question copied, where an interval is its solution."""
    bare_tuples: bool = True
    """Whether `1, 2` without brackets answers a reference `(1, 2)`, and a tuple a column of the same entries."""
    bare_base: bool = False
    """Whether `101` answers a reference `101_2`."""

    def __post_init__(self) -> None:
        require(0 <= self.decimals <= 15, f"decimals must lie in [0, 15], not {self.decimals}")


MATH = Convention()
