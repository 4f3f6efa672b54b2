"""The search families by name, and what is asked of them for an example."""

from __future__ import annotations

import random

from ttcjax.data.procmath.family import Family
from ttcjax.data.procmath.numbers import Change, Pair, Residue
from ttcjax.data.procmath.paths import Doors, Reach, Subset
from ttcjax.data.task import Draft, Example

FAMILIES: dict[str, Family] = {
    family.name: family for family in (Pair(), Residue(), Change(), Doors(), Reach(), Subset())
}
"""Name, which is the subject of its examples, to family."""


def attempts_inform(subject: str) -> bool:
    """Return whether an attempt that failed tells a further one something: so in the search families alone.

    To check a line of a derivation costs what writing it costs, and its slips are out of the next attempt's sight.
    """
    return subject in FAMILIES


def failing(example: Example, count: int, rng: random.Random) -> list[Draft]:
    """Return attempts at a question that fail; see `Task.failing`."""
    family = FAMILIES.get(example.subject)
    if family is None:
        return []
    reference = family.read(example.question)
    right = family.attempt(reference, family.right(reference))
    return family.failing(example.question, count, rng, check_lines=right.verdict in example.solution.split("\n"))
