"""The shards of an evaluation's stages: which there are, whose they are, and which are missing."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from etils import epath

from ttcjax.data.task import Example
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import is_whole, shard_path


@dataclass(frozen=True)
class Shard:
    """Some questions of one cell: what is computed at once, and written as a file for each name it answers."""

    strategy: str
    """Name of what is run; a cell of a stage is a strategy with all its seeds."""
    answers: tuple[tuple[str, int], ...]
    """The (name, budget) pairs of the config that it answers; budget 0 where all of them are cut from it."""
    seed: int
    number: int
    """In its cell."""
    first: int
    """Place of its first question among the test questions."""
    questions: int
    generations: int
    """Generations of each question, as the paper counts them; 0 where nothing is sampled."""
    cells: tuple[str, ...] = ("",)
    """Beginnings of its files' names, one for each name that it answers; empty for a stage of one cell."""

    def paths(self, out: epath.Path) -> tuple[epath.Path, ...]:
        """Return its files."""
        return tuple(shard_path(out, self.number, cell) for cell in self.cells)

    def take(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Return its questions among all of them."""
        return examples[self.first : self.first + self.questions]


@dataclass(frozen=True)
class Part:
    """The share of one process among several that work on the same stages."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `I/K`.

        Raises:
            UserError: It is no such share.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part must be I/K with I from 1 to K, such as 2/4, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return this part's share of a stage's shards, in their order.

        Every shard goes to the part with the least work so far, the largest first, so that shards of equal size go
        round. It depends on nothing but the shards: parts that start at other times, or again, take the same ones.
        """
        loads = [(0, part) for part in range(self.count)]
        mine = []
        for place in sorted(range(len(shards)), key=lambda i: (-_work(shards[i]), i)):
            load, part = heapq.heappop(loads)
            heapq.heappush(loads, (load + _work(shards[place]), part))
            if part == self.index - 1:
                mine.append(place)
        return [shards[place] for place in sorted(mine)]


WHOLE = Part(1, 1)
"""The part of a process that works alone."""


def _work(shard: Shard) -> int:
    return shard.questions * max(1, shard.generations)


def cut(
    questions: int,
    size: int,
    *,
    strategy: str,
    answers: tuple[tuple[str, int], ...],
    seed: int,
    generations: int,
    cells: tuple[str, ...] = ("",),
) -> list[Shard]:
    """Return the shards of `size` questions, the last one smaller, of one strategy and seed."""
    return [
        Shard(strategy, answers, seed, number, first, min(size, questions - first), generations, cells)
        for number, first in enumerate(range(0, questions, size))
    ]


def names(shards: Sequence[Shard]) -> list[str]:
    """Return the names of the files of some shards in the folder of their stage.

    Raises:
        ValueError: Two have the same name.
    """
    found = [path.name for shard in shards for path in shard.paths(epath.Path())]
    if len(set(found)) < len(found):
        raise ValueError("two shards of a stage have the same name")
    return found


def missing(shards: Sequence[Shard], out: epath.Path, schema: pa.Schema) -> list[Shard]:
    """Return the shards of which a file is absent or damaged."""
    return [shard for shard in shards if not all(is_whole(path, schema) for path in shard.paths(out))]
