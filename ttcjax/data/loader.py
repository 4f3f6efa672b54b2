"""The one door to every data set: a config in, a `Task` and its `Splits` out."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Sequence
from typing import overload

import numpy as np
from etils import epath

from ttcjax.config import DataConfig, Questions
from ttcjax.data.file_set import SPLITS
from ttcjax.data.screen import Fault, refusal
from ttcjax.data.sets import data_set
from ttcjax.data.task import Example, Examples, Splits, Task
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there
from ttcjax.text import prompts
from ttcjax.text import tokenizer as tokenizers

logger = logging.getLogger(__name__)

LENGTHS_FILE = "prompt_tokens.npz"
"""Tokens of every question's prompt, the begin mark included, by split; written by the data stage."""


def prepare(config: DataConfig, folder: epath.PathLike) -> list[Fault]:
    """Build on disk, under `folder`, what `load` will read; what is complete there is kept.

    Returns:
        Why examples cannot be used; these are left out.

    Raises:
        UserError: As for `DataSet.prepare`; or files that the data set is read from are missing.
    """
    found = data_set(config)
    return found.prepare(config, epath.Path(folder), found.read_files(config))


def files(config: DataConfig) -> list[str]:
    """Return the names of the files and folders that `prepare` leaves."""
    return data_set(config).files(config)


def task(config: DataConfig) -> Task:
    """Return how the data set's questions are put, answered and checked, without opening its files.

    Raises:
        UserError: `data.prompt` names no prompt, or one that cannot be read.
    """
    own = data_set(config).task_of(config)
    return own if config.prompt is None else _asked(own, config)


def _asked(task: Task, config: DataConfig) -> Task:
    """Return a task whose questions are put by a prompt file, with the steps and the end of answers that it has."""
    assert config.prompt is not None
    file = prompts.read(config.prompt)
    if config.prompt_content is not None and file.content != config.prompt_content:
        raise UserError(f"the prompt {config.prompt} has changed while it was in use: run the same command again")
    return dataclasses.replace(
        task, prompt=file.prompt, steps=file.steps, extract=lambda text: task.extract(file.cut(text))
    )


def load(config: DataConfig, folder: epath.PathLike) -> tuple[Task, Splits]:
    """Open a data set.

    Args:
        config: Which data set, and how much of it.
        folder: The folder given to `prepare`.

    Raises:
        UserError: Files are missing, corrupt or cut short; the message names the file and the fix.
    """
    return task(config), data_set(config).load(config, epath.Path(folder))


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
    """Open the data set of an experiment, without the questions whose prompts leave no room for a solution, and without
    the test questions after the first ones that are asked.

    Args:
        questions: Which there are, and what can be asked.
        folder: Of the data stage.

    Raises:
        UserError: As for `load`; or there are questions that cannot be asked, and `data.faults` refuses them.
    """
    folder = epath.Path(folder)
    task, splits = load(questions.data, folder)
    if records.hash_of(folder / LENGTHS_FILE) is None and not is_there(
        folder / LENGTHS_FILE
    ):  # no tokenizer of its own
        return task, _first(splits, questions.first)
    with np.load(io.BytesIO(records.read_own(folder / LENGTHS_FILE))) as lengths:
        fits = {name: lengths[name] <= questions.longest_prompt for name in SPLITS}
    if not all(kept.all() for kept in fits.values()):
        faults = too_long(questions, splits, fits)
        if questions.data.faults == "refuse":
            raise too_long_refusal(faults)
        logger.warning("%d questions are left out: they leave no room for a solution", len(faults))
        splits = Splits(*(_Some(getattr(splits, name), np.flatnonzero(fits[name])) for name in SPLITS))
    return task, _first(splits, questions.first)


def _first(splits: Splits, count: int | None) -> Splits:
    if count is None:
        return splits
    return dataclasses.replace(splits, test=_Some(splits.test, np.arange(min(count, len(splits.test)))))


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
