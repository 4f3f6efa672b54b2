"""The one door to every data set: a config in, a `Task` and its `Splits` out."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import DataConfig, Questions
from ttcjax.data import gsm8k, sources
from ttcjax.data.screen import Fault, refusal
from ttcjax.data.task import Example, Examples, Splits, Task
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_shard, write_shard
from ttcjax.text import tokenizer as tokenizers

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
LENGTHS_FILE = "prompt_tokens.npz"
"""Tokens of every question's prompt, the begin mark included, by split; written by the data stage."""

RECORDS = "records"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("solution", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
    ]
)


def prepare(config: DataConfig, folder: epath.PathLike) -> list[Fault]:
    """Build on disk, under `folder`, what `load` will read; what is complete there is kept.

    A data set of files is read here and nowhere else: what the files hold later changes nothing.

    Returns:
        Why examples of the files cannot be used; these are left out.

    Raises:
        UserError: The records cannot be written, more questions are asked for than there are, files are missing, or
            examples cannot be used and `data.faults` refuses them.
    """
    folder = epath.Path(folder)
    if config.name == "procmath":
        from ttcjax.data import builder  # imports tfds, which is slow

        builder.prepare(config, folder / RECORDS)
        return []
    found = sources.read_files(config)
    digests = sources.digests(found)
    if config.content is not None and sources.content(digests) != config.content:
        raise sources.lost(config)
    splits, faults = gsm8k.read(config, found)
    if faults and config.faults == "refuse":
        raise refusal(faults)
    for name in SPLITS:
        write_shard(folder / f"{name}.parquet", [vars(example) for example in getattr(splits, name)], _SCHEMA)
    sources.write(folder, digests)
    return faults


def files(config: DataConfig) -> list[str]:
    """Return the names of the files and folders that `prepare` leaves."""
    return [RECORDS] if config.name == "procmath" else [*(f"{name}.parquet" for name in SPLITS), sources.FILE]


def task(config: DataConfig) -> Task:
    """Return how the data set's questions are put, answered and checked, without opening its files."""
    from ttcjax.data import procmath

    return {"procmath": procmath.TASK, "gsm8k": gsm8k.TASK}[config.name]


def load(config: DataConfig, folder: epath.PathLike) -> tuple[Task, Splits]:
    """Open a data set.

    Args:
        config: Which data set, and how much of it.
        folder: The folder given to `prepare`.

    Raises:
        UserError: Files are missing, corrupt or cut short; the message names the file and the fix.
    """
    folder = epath.Path(folder)
    if config.name == "procmath":
        from ttcjax.data import builder

        return task(config), builder.load(config, folder / RECORDS)
    splits = []
    for path in (folder / f"{split}.parquet" for split in SPLITS):
        table = read_shard(path, _SCHEMA, sha256=records.hash_of(path))
        splits.append([Example(**row) for row in table.to_pylist()])
    return task(config), Splits(*splits)


def tokenizer(folder: epath.PathLike) -> tokenizers.SentencePieceTokenizer:
    """Return the tokenizer that the data stage with this folder trained.

    Raises:
        UserError: It is gone or damaged.
    """
    path = epath.Path(folder) / tokenizers.FILE
    try:
        content = records.read_own(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise tokenizers.missing(path) from error
    return tokenizers.parse(content, path)


def askable(questions: Questions, folder: epath.PathLike) -> tuple[Task, Splits]:
    """Open the data set of an experiment, without the questions whose prompts leave no room for a solution.

    Args:
        questions: Which there are, and what can be asked.
        folder: Of the data stage.

    Raises:
        UserError: As for `load`; or there are questions that cannot be asked, and `data.faults` refuses them.
    """
    folder = epath.Path(folder)
    task, splits = load(questions.data, folder)
    with np.load(io.BytesIO(records.read_own(folder / LENGTHS_FILE))) as lengths:
        fits = {name: lengths[name] <= questions.longest_prompt for name in SPLITS}
    if all(kept.all() for kept in fits.values()):
        return task, splits
    faults = too_long(questions, splits, fits)
    if questions.data.faults == "refuse":
        raise too_long_refusal(faults)
    logger.warning("%d questions are left out: they leave no room for a solution", len(faults))
    return task, Splits(*(_Some(getattr(splits, name), np.flatnonzero(fits[name])) for name in SPLITS))


def too_long(questions: Questions, splits: Splits, fits: dict[str, np.ndarray]) -> list[Fault]:
    """Return the faults of the questions that do not fit."""
    return [
        Fault(
            f"{name} {getattr(splits, name)[int(i)].id}",
            f"its prompt leaves no room for sampler.max_tokens={questions.max_tokens} in "
            f"model.max_seq_len={questions.max_seq_len}",
        )
        for name in SPLITS
        for i in np.flatnonzero(~fits[name])
    ]


def too_long_refusal(faults: Sequence[Fault]) -> UserError:
    """Return the error for questions that leave no room for a solution."""
    return refusal(faults, "raise --model.max_seq_len, lower --sampler.max_tokens, shorten them")


class _Some(Sequence[Example]):
    """Some examples of a split, read when they are asked for."""

    def __init__(self, examples: Examples, places: np.ndarray):
        self._examples, self._places = examples, places.tolist()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._examples[place] for place in self._places[index]]
        return self._examples[self._places[index]]
