"""The search families by name."""

from __future__ import annotations

from ttcjax.data.procmath.family import Family
from ttcjax.data.procmath.numbers import Coins, Pair, Residue
from ttcjax.data.procmath.paths import Doors, Reach, Subset

FAMILIES: dict[str, Family] = {
    family.name: family for family in (Pair(), Residue(), Coins(), Doors(), Reach(), Subset())
}
"""Name, which is the subject of its examples, to family."""


def attempts_inform(subject: str) -> bool:
    """Return whether an attempt that failed tells a further one something: so in the search families alone.

    To check a line of a derivation costs what writing it costs, and its slips are out of the next attempt's sight.
    """
    return subject in FAMILIES
