"""The one door to every data set: a `DataConfig` in, a `Task` and its `Splits` out."""

from __future__ import annotations

from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data import gsm8k
from ttcjax.data.task import Splits, Task

_RECORDS = "records"


def prepare(config: DataConfig, folder: epath.PathLike) -> None:
    """Build on disk, under `folder`, what `load` will read; what is complete there is kept.

    Data sets read from their own files need nothing built.

    Raises:
        UserError: The records cannot be written, or more questions are asked for than there are.
    """
    if config.name == "procmath":
        from ttcjax.data import builder  # imports tfds, which is slow

        builder.prepare(config, epath.Path(folder) / _RECORDS)


def task(config: DataConfig) -> Task:
    """Return how the data set's questions are put, answered and checked, without opening its files."""
    from ttcjax.data import procmath

    return {"procmath": procmath.TASK, "gsm8k": gsm8k.TASK}[config.name]


def load(config: DataConfig, folder: epath.PathLike) -> tuple[Task, Splits]:
    """Open a data set.

    Args:
        config: Which data set, and how much of it.
        folder: The folder given to `prepare`; a data set read from its own files does not use it.

    Raises:
        UserError: Files are missing, corrupt or cut short; the message names the file and the fix.
    """
    if config.name == "gsm8k":
        return task(config), gsm8k.load(config)
    from ttcjax.data import builder

    return task(config), builder.load(config, epath.Path(folder) / _RECORDS)
