"""Attempts that fail, as a policy's own do: guesses that do not fit, and derivations with a slip."""

from __future__ import annotations

import itertools
import random
import re

from ttcjax.data.procmath.checker import parse_step
from ttcjax.data.procmath.search import FAMILIES
from ttcjax.data.task import Draft, Example

_TRIES = 20
_MOST_OFF = 3


def failing(example: Example, count: int, rng: random.Random) -> list[Draft]:
    """Return attempts at a question that fail; see `Task.failing`."""
    family = FAMILIES.get(example.subject)
    if family is None:
        return slipped(example, count, rng)
    reference = family.read(example.question)
    right = family.attempt(reference, family.right(reference))
    return family.failing(example.question, count, rng, check_lines=right.verdict in example.solution.split("\n"))


def slipped(example: Example, count: int, rng: random.Random) -> list[Draft]:
    """Return derivations of an example, each with one result that is wrong and what follows from this.

    They are independent of each other, and nothing is to be learned from any of their lines.
    """
    found = (_slip(example, rng) for _ in range(count * _TRIES))
    return [*itertools.islice((draft for draft in found if draft is not None), count)]


def _slip(example: Example, rng: random.Random) -> Draft | None:
    """Return a derivation with a slip; `None` where a later result would be no number of this domain."""
    *steps, last = example.solution.split("\n")
    results = [int(step.rpartition("=")[2]) for step in steps]
    at = rng.randrange(len(steps))
    wrong = results[at] + rng.choice([d for d in range(-_MOST_OFF, _MOST_OFF + 1) if d])
    if wrong < 0:
        return None
    given = {int(n) for n in re.findall(r"\d+", example.question)}
    # A number of the question may stand in later lines for itself: only what is new there is carried on.
    new = {results[at]: wrong} if results[at] not in given else {}
    lines = [*steps[:at], f"{steps[at].rpartition('=')[0]}={wrong}"]
    found = [*results[:at], wrong]
    for step, result in zip(steps[at + 1 :], results[at + 1 :], strict=True):
        line, value = _carried(step, new)
        if value is None:
            return None
        if value != result and result not in given:
            new[result] = value
        lines.append(line)
        found.append(value)
    # What the answer names beyond the results stays as it is.
    found += [int(n) for n in re.findall(r"\d+", last)][len(results) :]
    lines.append(f"Answer: {', '.join(map(str, found))}")
    return Draft(tuple(lines), len(lines))


def _carried(step: str, new: dict[int, int]) -> tuple[str, int | None]:
    """Return a step whose operands are replaced, with its result; no result where that is no number of this domain."""
    left = re.sub(r"\d+", lambda match: str(new.get(int(match[0]), match[0])), step.rpartition("=")[0])
    parsed = parse_step(f"{left}=0")
    if parsed is None or parsed[0].denominator != 1 or parsed[0] < 0:
        return step, None
    return f"{left}={parsed[0]}", int(parsed[0])
