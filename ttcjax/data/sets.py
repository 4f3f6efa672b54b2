"""The data sets, by the name that `data.name` gives, and what one has to do."""

from __future__ import annotations

import abc
import dataclasses
import difflib
import tempfile
from collections.abc import Mapping

from etils import epath

from ttcjax.config import ConfigError, DataConfig
from ttcjax.config.plugins import Registry
from ttcjax.data.screen import Fault
from ttcjax.data.task import Example, Examples, Splits, Task


class DataSet(abc.ABC):
    """A data set: where its examples come from, and how they are kept in the folder of the data stage."""

    task: Task
    exact: bool = False
    """Whether it has exactly as many questions as are asked for."""
    from_files: bool = False
    """True for a data set read from files in the folder `data.dir`."""
    unlike: tuple[str, ...] = ()
    """Files and folders left by `prepare` whose bytes may differ though they say the same."""

    def read_files(self, config: DataConfig) -> dict[str, bytes]:
        """Return the content of the files that it is read from, by name; nothing for one that is generated.

        A file that is not there is left out.

        Raises:
            UserError: Their folder is not given, or not there.
        """
        del config
        return {}

    def require_files(self, config: DataConfig, files: Mapping[str, bytes]) -> None:  # noqa: B027
        """Require every file that it is read from to be there.

        Raises:
            UserError: One is not.
        """

    def task_of(self, config: DataConfig) -> Task:
        """Return how questions are put, answered and checked under a config."""
        del config
        return self.task

    def check(self, config: DataConfig) -> None:
        """Say no to settings that do not go with it; files are not looked at.

        Raises:
            ConfigError: There are such.
        """
        if config.source != "files":
            raise ConfigError(f"data.source={config.source} is not for data.name={config.name}: leave it out")
        if config.grading is not None and not self.from_files:
            raise ConfigError(f"data.grading is for data sets read from files, and {config.name} has its own")

    def form(self, example: Example) -> str | None:
        """Return what is the same in questions that a model which knows one of them can answer alike; `None` where the
        data set has no rule of its own."""
        del example
        return None

    def pools(self, config: DataConfig) -> tuple[Examples, Examples]:
        """Return all examples that could be trained on and all test questions, before any are held apart.

        Raises:
            UserError: They cannot be read.
        """
        with tempfile.TemporaryDirectory() as scratch:
            self.prepare(dataclasses.replace(config, faults="leave_out"), epath.Path(scratch), self.read_files(config))
            splits = self.load(config, epath.Path(scratch))
            return [*splits.train, *splits.valid], list(splits.test)

    @abc.abstractmethod
    def prepare(self, config: DataConfig, folder: epath.Path, files: Mapping[str, bytes]) -> list[Fault]:
        """Build on disk, under a folder, what `load` will read; what is complete there is kept.

        Args:
            config: How much of it.
            folder: Of the data stage.
            files: What `read_files` returned.

        Returns:
            Why examples cannot be used; these are left out.

        Raises:
            UserError: It cannot be written, or examples cannot be used and `data.faults` refuses them.
        """

    @abc.abstractmethod
    def load(self, config: DataConfig, folder: epath.Path) -> Splits:
        """Open what `prepare` has built.

        Raises:
            UserError: Files are missing, corrupt or cut short; the message names the file and the fix.
        """

    @abc.abstractmethod
    def files(self, config: DataConfig) -> list[str]:
        """Return the names of the files and folders that `prepare` leaves."""


DATA_SETS: Registry[DataSet] = Registry(
    "ttcjax.data_sets",
    {
        "procmath": "ttcjax.data.procmath.data_set:DATA_SET",
        "gsm8k": "ttcjax.data.gsm8k:DATA_SET",
        "math": "ttcjax.data.math_set:DATA_SET",
        "aime": "ttcjax.data.jsonl:AIME",
        "amc": "ttcjax.data.jsonl:AMC",
        "jsonl": "ttcjax.data.jsonl:DATA_SET",
    },
)
"""A new data set has a file in `ttcjax/data` and a line here, or an entry point of this group."""


def data_set(config: DataConfig) -> DataSet:
    """Return the data set that a config names.

    Raises:
        ConfigError: There is none of that name.
    """
    if config.name not in DATA_SETS:
        close = difflib.get_close_matches(config.name, list(DATA_SETS), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"data.name must be one of {', '.join(DATA_SETS)}, not {config.name!r}{hint}")
    return DATA_SETS[config.name]


def check(config: DataConfig) -> None:
    """Say no to settings that name no data set, one whose files are nowhere, or that do not go with it.

    Raises:
        ConfigError: They do.
    """
    found = data_set(config)
    found.check(config)
    if found.from_files and config.dir is None and config.source == "files":
        raise ConfigError(f"data.name={config.name} is read from files: give their folder with --data.dir")
