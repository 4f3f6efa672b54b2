"""The contract of a stage: all that it sees of an experiment, which folders it reads, and where its files go.

A stage is one file that declares `STAGE` and a line in `ttcjax.pipeline.stages.STAGES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig, TrainConfig
from ttcjax.runtime.shards import WHOLE, Part, Shard

S = TypeVar("S")


class Inputs(Mapping[str, epath.Path]):
    """Folders of complete stages, by name: for a stage, those that it declares to read, and no other."""

    def __init__(self, folders: Mapping[str, epath.Path]):
        self._folders = dict(folders)

    @classmethod
    def of(cls, workdir: epath.Path, names: Sequence[str]) -> Inputs:
        """Return the folders that stages of these names have in a workdir."""
        return cls({name: workdir / name for name in names})

    def __getitem__(self, name: str) -> epath.Path:
        if name not in self._folders:
            raise KeyError(f"the stage reads {name!r}, and its `needs` are {', '.join(self._folders) or 'none'}")
        return self._folders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def product(*numbers: int) -> str:
    """Return a product as text, such as `2 x 1,000 = 2,000`."""
    return f"{' x '.join(f'{number:,}' for number in numbers)} = {math.prod(numbers):,}"


@dataclass
class Sink:
    """Place that a stage writes to: a folder that holds what an interrupted run of the same settings left."""

    folder: epath.Path
    part: Part = WHOLE
    """This process's part of the stage's shards."""
    files: list[str] = field(default_factory=list)
    """The paths, from the folder, that the stage's record is to list: what later stages read."""

    def lists(self, *names: str) -> None:
        """List files in the stage's record; they may have been written by an earlier, interrupted run."""
        self.files += names


@dataclass(frozen=True)
class Stage(Generic[S]):
    """Declaration of a stage by its author; its name and a line on what it is for stand in the list of all stages."""

    settings: Callable[[ExperimentConfig], S]
    """Returns the frozen dataclass that is all `run` sees of an experiment. Its hash, without what
    `ttcjax.config.base.SPEED_ONLY` marks, decides whether a folder can be kept."""
    run: Callable[[S, Inputs, Sink], dict[str, Any]]
    """Does the work, and returns facts for the record, ready for JSON."""
    needs: tuple[str, ...] = ()
    """Stages whose folders it reads, as far as an experiment has them."""
    also_needs: Callable[[S], tuple[str, ...]] = lambda settings: ()
    """Returns further ones that these settings ask for, so that others do not wait for them, nor depend on them."""
    writes: tuple[str, ...] = ()
    """Paths, from its folder, without which a complete stage is not complete after all."""
    switch: tuple[str | tuple[str, ...], ...] = ()
    """Dotted paths of the settings that turn it on together, of some in a tuple any one; none for a stage of every
    experiment."""
    version: int = 1
    """Part of its fingerprint: raise it when the same settings come to mean other results of this stage."""
    schema: pa.Schema | None = None
    """Columns of its shards, for a stage that several processes can share."""
    shards: Callable[[S, Inputs], list[Shard]] | None = None
    """Returns what is computed at once and written as files of their own. Inputs that are not complete yet are missing
    from the mapping; the shards are then all that may come to be needed."""
    work: Callable[[S], str] = lambda settings: ""
    """Says how much there is to do, from the settings alone."""
    spends: Callable[..., Any] | None = None
    """Tells what a question of a shard takes; see `ttcjax.eval.collect.amounts`."""
    trainings: Callable[[S], Sequence[tuple[str, TrainConfig]]] = lambda settings: ()
    """Returns its training runs, each with a name."""
