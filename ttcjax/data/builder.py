"""The embedded domain as a TensorFlow Datasets builder, written and read without TensorFlow.

Importing this module registers `procmath` with `tfds`. It takes a second, so `ttcjax.data.loader` does it
only when records are needed.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import io
import itertools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, overload

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from ttcjax.config import DataConfig, config_hash
from ttcjax.data import procmath
from ttcjax.data.task import Example, Splits
from ttcjax.runtime import faults
from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.runtime.files import is_there

_TEXTS = ("id", "question", "solution", "answer", "subject")

# What reading a damaged file raises. AttributeError and TypeError: one cut at a block boundary opens, and its
# records come out empty.
_CORRUPT = (RuntimeError, ValueError, AttributeError, TypeError, DecodeError, OSError)


@dataclasses.dataclass
class ProcmathConfig(tfds.core.BuilderConfig):
    """Numbers of questions of each split, their subjects, and the seed they come from."""

    num_train: int = 40_000
    num_valid: int = 500
    num_test: int = 250
    seed: int = 0
    families: tuple[str, ...] = DataConfig.families
    check_lines: bool = DataConfig.check_lines

    @classmethod
    def of(cls, config: DataConfig) -> ProcmathConfig:
        """Return the builder config of `config`; its name tells different contents apart."""
        counts = config.num_train, config.num_valid, config.num_test
        return cls(
            name=config_hash(counts, config.seed, config.families, config.check_lines),
            num_train=config.num_train,
            num_valid=config.num_valid,
            num_test=config.num_test,
            seed=config.seed,
            families=config.families,
            check_lines=config.check_lines,
        )


class _LocalInfo(tfds.core.DatasetInfo):
    """The facts of a dataset that nobody publishes."""

    def initialize_from_bucket(self) -> None:
        """Ask no public bucket: tfds would leave an empty folder in the system's temporary folder each time."""


class Procmath(tfds.core.GeneratorBasedBuilder):
    """Procedural maths questions with step-by-step solutions."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS: ClassVar[list[ProcmathConfig]] = [ProcmathConfig(name="default")]

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {name: tfds.features.Text() for name in _TEXTS}
        features["level"] = tfds.features.Scalar(np.int32)
        return _LocalInfo(
            builder=self,
            description="Procedural maths questions with step-by-step solutions in five levels.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("question", "solution"),
            disable_shuffling=True,  # records stay in the generator's order, so an index means the same everywhere
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        config: Any = self.builder_config
        return {
            "train": self._generate_examples("train", config.num_train),
            "valid": self._generate_examples("valid", config.num_valid),
            "test": self._generate_examples("test", config.num_test),
        }

    def _generate_examples(
        self, split: Literal["train", "valid", "test"], count: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        config: Any = self.builder_config
        examples = procmath.generate(split, count, config.seed, config.families, check_lines=config.check_lines)
        for i, example in enumerate(examples):
            yield i, vars(example)


def prepare(config: DataConfig, folder: epath.PathLike) -> None:
    """Write the records of `config` under `folder`, unless they are there already.

    Records appear under their final name only when all splits are complete.

    Raises:
        MachineError: The records cannot be written.
        UserError: There are not as many different questions as asked for.
    """
    folder = epath.Path(folder)
    builder = _builder(config, folder)
    if is_there(builder.data_path):
        return
    versions = builder.data_path.parent
    for leftover in versions.iterdir() if versions.exists() else ():
        if "incomplete" in leftover.name:  # Of a run that was killed.
            leftover.rmtree()
    tfds.disable_progress_bar()
    try:
        # tfds wants a download folder even where it has nothing to download.
        with tempfile.TemporaryDirectory() as scratch, quiet_tfds():
            builder.download_and_prepare(
                download_dir=scratch, download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except ValueError as error:  # the generator cannot give as many questions as asked
        raise UserError(" ".join(str(error).split())) from error
    except (OSError, RuntimeError) as error:
        faults.raise_explained(error)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MachineError(f"cannot write records to {folder}: {reason}; choose another folder") from error


def load(config: DataConfig, folder: epath.PathLike) -> Splits:
    """Open the records of `config` under `folder`; each is read when it is asked for.

    Raises:
        MachineError: The machine does not let them be read.
        UserError: Records are missing, or a file is corrupt or cut short: at once where its index or its first
            or last record is hit, otherwise when a damaged record is read.
    """
    folder = epath.Path(folder)
    builder = _builder(config, folder)
    if not is_there(builder.data_path):
        raise UserError(f"no records for this data config in {folder}; run the data stage first")
    return Splits(*(_Records(builder, split, folder) for split in ("train", "valid", "test")))


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Keep from the terminal what tfds prints of its work, and its warning of configs not in a class's list."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.setLevel(level)


def _builder(config: DataConfig, folder: epath.Path) -> Procmath:
    try:
        with quiet_tfds():
            return Procmath(config=ProcmathConfig.of(config), data_dir=folder, file_format="array_record")
    except (ParseError, ValueError, AssertionError) as error:  # AssertionError: tfds finds another version in it
        raise UserError(f"the description of the records in {folder} is corrupt; {_fix(folder)}") from error


def _fix(records: epath.Path) -> str:
    return f"move {records.parent} away and run the data stage again"


class _Records(Sequence[Example]):
    """One split's examples, read lazily from array_record files."""

    def __init__(self, builder: Procmath, split: str, folder: epath.Path):
        self._root = folder
        self._folder = builder.data_path
        try:
            info = builder.info.splits[split]
            self._source = builder.as_data_source(split)  # type: ignore[call-arg]
        except (KeyError, ValueError, OSError) as error:
            faults.raise_explained(error)
            raise UserError(f"split {split} of the records in {self._folder} is corrupt; {_fix(self._root)}") from error
        self._files = [path.name for path in info.filepaths]
        self._ends = list(itertools.accumulate(info.shard_lengths))
        # A file that was cut short cannot be opened; better now than in the middle of a run.
        for end, length in zip(self._ends, info.shard_lengths, strict=True):
            if length:
                _ = self[end - length], self[end - 1]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        index = range(len(self))[index]
        try:
            return _example(self._source[index])
        except _CORRUPT as error:
            faults.raise_explained(error)
            path = self._folder / self._files[bisect.bisect_right(self._ends, index)]
            raise UserError(f"corrupt or missing record file {path}; {_fix(self._root)}") from error

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Return many examples in one read; grain calls this for a batch."""
        if not len(indices):
            return []
        try:
            return [_example(row) for row in self._source.__getitems__(indices)]
        except _CORRUPT:
            return [self[i] for i in indices]  # one by one, which names the file at fault

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), 1024):
            yield from self[start : start + 1024]


def _example(row: dict[str, Any]) -> Example:
    return Example(level=int(row["level"]), **{name: row[name].decode() for name in _TEXTS})
