"""Data sets of two files, one of training and one of test questions, a line each."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data import sources
from ttcjax.data.screen import Fault, refusal, screened
from ttcjax.data.sets import DataSet
from ttcjax.data.task import Example, Splits, Task
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve
from ttcjax.runtime.parquet import read_shard, write_shard

SPLITS = ("train", "valid", "test")
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


class FileSet(DataSet):
    """A data set read from `data.dir`, once: what the files hold later changes nothing."""

    from_files = True

    def __init__(
        self,
        title: str,
        task: Task,
        parse: Callable[[str, bytes], Example | str],
        names: tuple[str, str] = ("train.jsonl", "test.jsonl"),
    ):
        """Describe it.

        Args:
            title: As messages name it.
            task: How its questions are put, answered and checked.
            parse: Returns the example of a line, given its id, or what is wrong with it.
            names: Of the files with training and with test questions.
        """
        self.title, self.task, self.names = title, task, names
        self._parse = parse

    def source(self, config: DataConfig) -> epath.Path:
        """Return the folder of the files.

        Raises:
            UserError: It is not given, or not there.
        """
        if config.dir is None:
            raise UserError(f"{self.task.name} is read from files: give their folder with --data.dir")
        folder = resolve(config.dir, "--data.dir", kind="folder")
        if not folder.is_dir():
            wanted = " and ".join(self.names)
            raise UserError(f"no folder {folder}; give the one with {self.title}'s {wanted} as --data.dir")
        return folder

    def read_files(self, config: DataConfig) -> dict[str, bytes]:
        folder, found = self.source(config), {}
        for name in self.names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (folder / name).read_bytes()
        return found

    def require_files(self, config: DataConfig, files: Mapping[str, bytes]) -> None:
        for name in self.names:
            if name not in files:
                wanted = " and ".join(self.names)
                raise UserError(f"no file {self.source(config) / name}; --data.dir needs {self.title}'s {wanted}")

    def read(self, config: DataConfig, files: Mapping[str, bytes] | None = None) -> tuple[Splits, list[Fault]]:
        """Return the examples of the files.

        The training file is shuffled by `config.seed`; its last `num_valid` questions are the validation split and
        at most `num_train` of the others the training split. The test split is the head of the test file. Questions
        that recur in a later split are left out of the earlier one.

        Args:
            config: How many of them, and where they lie.
            files: Their content, where it was read before.

        Returns:
            The splits, and why other lines cannot be used: what `parse` says, and what `screen.screened` finds.

        Raises:
            UserError: A file is missing, or the training file is not larger than `num_valid`.
        """
        folder, files = self.source(config), self.read_files(config) if files is None else files
        self.require_files(config, files)
        faults: list[Fault] = []
        read = {name: self._lines(folder / name, files[name], faults) for name in self.names}
        usable, more = screened([pair for pairs in read.values() for pair in pairs])
        faults += more
        ids = {example.id for example in usable}
        train_rows, test_rows = ([example for _, example in pairs if example.id in ids] for pairs in read.values())
        test = test_rows[: config.num_test]
        if faults and (len(train_rows) <= config.num_valid or not test):
            raise refusal(faults)
        if len(train_rows) <= config.num_valid:
            raise UserError(
                f"data.num_valid={config.num_valid} leaves none of {len(train_rows)} questions to train on; lower it"
                if train_rows
                else f"{folder / self.names[0]} holds no question"
            )
        if not test:
            raise UserError(f"{folder / self.names[1]} holds no question")
        order = np.random.default_rng(config.seed).permutation(len(train_rows))
        shuffled = [train_rows[i] for i in order]
        valid = _without(shuffled[-config.num_valid :], test)
        train = _without(shuffled[: -config.num_valid], [*valid, *test])[: config.num_train]
        return Splits(train, valid, test), faults

    def prepare(self, config: DataConfig, folder: epath.Path, files: Mapping[str, bytes]) -> list[Fault]:
        digests = sources.digests(files)
        if config.content is not None and sources.content(digests) != config.content:
            raise sources.lost(config)
        splits, faults = self.read(config, files)
        if faults and config.faults == "refuse":
            raise refusal(faults)
        for name in SPLITS:
            write_shard(folder / f"{name}.parquet", [vars(example) for example in getattr(splits, name)], _SCHEMA)
        sources.write(folder, digests)
        return faults

    def load(self, config: DataConfig, folder: epath.Path) -> Splits:
        del config
        splits = []
        for path in (folder / f"{split}.parquet" for split in SPLITS):
            table = read_shard(path, _SCHEMA, sha256=records.hash_of(path))
            splits.append([Example(**row) for row in table.to_pylist()])
        return Splits(*splits)

    def files(self, config: DataConfig) -> list[str]:
        del config
        return [*(f"{name}.parquet" for name in SPLITS), sources.FILE]

    def _lines(self, path: epath.Path, content: bytes, faults: list[Fault]) -> list[tuple[str, Example]]:
        found = []
        for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
            if line.strip():
                where = f"{path}, line {number}"
                parsed = self._parse(f"{self.task.name}-{path.stem}-{number:05d}", line)
                if isinstance(parsed, str):
                    faults.append(Fault(where, parsed))
                else:
                    found.append((where, parsed))
        return found


def _without(examples: list[Example], others: list[Example]) -> list[Example]:
    questions = {other.question for other in others}
    return [example for example in examples if example.question not in questions]
