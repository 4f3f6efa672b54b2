"""Data sets of two files, one of training and one of test questions, a line each or one JSON list."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ConfigError, DataConfig
from ttcjax.data import sources
from ttcjax.data.reading import gradings, json_rows, tfds_records
from ttcjax.data.screen import Fault, refusal, screened
from ttcjax.data.sets import DataSet
from ttcjax.data.task import Example, Examples, Splits, Task
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve
from ttcjax.runtime.parquet import read_shard, write_shard

SPLITS = ("train", "valid", "test")
ROLES = ("train", "test")
"""What a file is for; validation questions are some of the training file."""
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
    """A data set read from `data.dir`, once: what the files hold later changes nothing.

    The file with training questions may be missing: the data set can then be evaluated on, and not trained on.
    """

    from_files = True
    answers_alone: bool = False
    """Whether a file may have answers without solutions."""

    def __init__(
        self,
        title: str,
        task: Task,
        parse: Callable[[str, bytes], Example | str],
        names: tuple[str, str] = ("train.jsonl", "test.jsonl"),
        *,
        others: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
        lone: bool = False,
        records: tfds_records.Records | None = None,
    ):
        """Describe it.

        Args:
            title: As messages name it.
            task: How its questions are put, answered and checked.
            parse: Returns the example of a line, given its id, or what is wrong with it.
            names: Of the files with training and with test questions.
            others: Further usual names of the two. One without an ending is that of a folder of folders, with a file
                for each question.
            lone: Whether a file has the test questions that is the only one of its folder.
            records: Builder of TensorFlow Datasets that has the same questions.
        """
        self.title, self.task, self.names = title, task, names
        self._parse, self._lone, self.records = parse, lone, records
        self._usual = {role: (name, *more) for role, name, more in zip(ROLES, names, others, strict=True)}

    def example(self, config: DataConfig, name: str, line: bytes) -> Example | str:
        """Return the example of a line, or what is wrong with it.

        Args:
            config: How it is read.
            name: Its id, where the line does not have one.
            line: The JSON of it.
        """
        del config
        return self._parse(name, line)

    def task_of(self, config: DataConfig) -> Task:
        if config.grading is None:
            return self.task
        own = gradings.named(config.grading)
        return dataclasses.replace(self.task, extract=own.extract, grade=own.grade)

    def check(self, config: DataConfig) -> None:
        if config.grading is not None:
            gradings.named(config.grading)
        if config.train_file is not None and config.train_file == config.test_file:
            raise ConfigError(f"data.train_file and data.test_file are both {config.train_file}: name two files")
        if config.source == "tfds" and self.records is None:
            raise ConfigError(f"TensorFlow Datasets has no {self.title}: give its files with --data.dir")
        if config.source == "tfds" and (config.train_file or config.test_file):
            raise ConfigError("data.source=tfds reads no files: leave data.train_file and data.test_file out")

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
        if config.source == "tfds" and self.records is not None:
            splits = zip(self.names, ROLES, strict=True)
            return {name: tfds_records.lines(self.records, role, config.dir) for name, role in splits}
        folder, found = self.source(config), dict[str, bytes]()
        for role in ROLES:
            for name in _named(config, role) or self._usual[role]:
                if not name.endswith((".json", ".jsonl")) and (folder / name).is_dir():
                    found |= _tree(folder, name)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        found[name] = (folder / name).read_bytes()
        if self._lone and not found:
            single = [path for path in folder.iterdir() if path.suffix in (".json", ".jsonl")]
            if len(single) == 1:
                found[single[0].name] = single[0].read_bytes()
        return found

    def require_files(self, config: DataConfig, files: Mapping[str, bytes]) -> None:
        """Require the files with test questions, and every file that is named, to be there.

        Raises:
            UserError: One is not, or two of the usual names are.
        """
        roles = self._roles(config, files)
        for role, usual in zip(ROLES, self.names, strict=True):
            named = _named(config, role)
            if not roles[role] and (named or role == "test"):
                wanted = " and ".join(self.names)
                missing = self.source(config) / (named[0] if named else usual)
                raise UserError(
                    f"no file {missing}; --data.dir needs {self.title}'s {wanted}, or name others with "
                    "--data.train_file and --data.test_file"
                )

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
            UserError: A file is missing, or there is a training file and it is not larger than `num_valid` or has no
                questions but those of the test.
        """
        files = self.read_files(config) if files is None else files
        self.require_files(config, files)
        roles = self._roles(config, files)
        pools, faults = self._pools(config, files)
        train_rows, test = pools["train"], pools["test"][: config.num_test]
        where = self._where(config)
        places = {role: f"{where}{names[0]}" for role, names in roles.items() if names}
        few = bool(roles["train"]) and len(train_rows) <= config.num_valid
        if faults and (few or not test):
            raise refusal(faults)
        if few:
            raise UserError(
                f"data.num_valid={config.num_valid} leaves none of {len(train_rows)} questions to train on; lower it"
                if train_rows
                else f"{places['train']} holds no question"
            )
        if not test:
            raise UserError(f"{places['test']} holds no question")
        if not roles["train"]:
            return Splits([], [], test), faults
        order = np.random.default_rng(config.seed).permutation(len(train_rows))
        shuffled = [train_rows[i] for i in order]
        valid = _without(shuffled[-config.num_valid :], test)
        train = _without(shuffled[: -config.num_valid], [*valid, *test])[: config.num_train]
        for name, split in (("train", train), ("valid", valid)):
            if not split:
                raise UserError(f"no {name} question is left: each is also one of a later split")
        return Splits(train, valid, test), faults

    def pools(self, config: DataConfig) -> tuple[Examples, Examples]:
        files = self.read_files(config)
        self.require_files(config, files)
        found, faults = self._pools(config, files)
        if faults and not found["test"]:
            raise refusal(faults)
        return found["train"], found["test"][: config.num_test]

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

    def _roles(self, config: DataConfig, files: Mapping[str, bytes]) -> dict[str, list[str]]:
        """Return the names of the files with training and with test questions."""
        roles: dict[str, list[str]] = {}
        for role in ROLES:
            wanted = _named(config, role) or self._usual[role]
            found = {name: [key for key in files if key == name or key.startswith(f"{name}/")] for name in wanted}
            there = [name for name in wanted if found[name]]
            if len(there) > 1:
                raise UserError(
                    f"{self._where(config)}{there[0]} and {there[1]} are both there: say which has the {role} "
                    f"questions with --data.{role}_file"
                )
            roles[role] = found[there[0]] if there else []
        if self._lone and not any(roles.values()) and len(files) == 1 and not _named(config, "test"):
            roles["test"] = list(files)
        return roles

    def _pools(self, config: DataConfig, files: Mapping[str, bytes]) -> tuple[dict[str, list[Example]], list[Fault]]:
        """Return the examples that can be used, by role in the order of the files, and what is wrong with others."""
        faults: list[Fault] = []
        read: dict[str, list[tuple[str, Example]]] = {}
        roles, where = self._roles(config, files), self._where(config)
        stems = [name.rpartition("/")[2].partition(".")[0] for names in roles.values() for name in names[:1]]
        alone: set[str] = set()
        for role, names in roles.items():
            read[role] = pairs = []
            for name in names:
                stem = name.rpartition("/")[2].partition(".")[0]
                label = f"{self.task.name}-{stem if len(set(stems)) == len(stems) else role}"
                for row in json_rows.rows(f"{where}{name}", name, label, files[name]):
                    parsed = self.example(config, row.id, row.line)
                    if isinstance(parsed, str):
                        faults.append(Fault(row.where, parsed))
                    else:
                        pairs.append((row.where, parsed))
            # A file that has solutions has one for every question.
            if self.answers_alone and (role == "test" or not any(e.solution for _, e in pairs)):
                alone |= {example.id for _, example in pairs}
        usable, more = screened([pair for pairs in read.values() for pair in pairs], alone)
        kept = {id(example) for example in usable}
        return {role: [e for _, e in pairs if id(e) in kept] for role, pairs in read.items()}, faults + more

    def _where(self, config: DataConfig) -> str:
        """Return what stands before a file's name in messages."""
        return f"TensorFlow Datasets' {self.title}, " if config.source == "tfds" else f"{self.source(config)}{os.sep}"


def _named(config: DataConfig, role: str) -> tuple[str, ...]:
    """Return the name that the settings give a file, none where they do not."""
    name = config.train_file if role == "train" else config.test_file
    return () if name is None else (name,)


def _tree(folder: epath.Path, name: str) -> dict[str, bytes]:
    """Return the JSON files in the folders of a folder, in the order of these and of their numbers."""
    if not (folder / name).is_dir():
        return {}
    found = [path for sub in (folder / name).iterdir() if sub.is_dir() for path in sub.iterdir()]
    paths = [path for path in found if path.suffix == ".json"]
    paths.sort(key=lambda path: (path.parent.name, len(path.stem), path.stem))
    return {f"{name}/{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def _without(examples: list[Example], others: list[Example]) -> list[Example]:
    questions = {other.question for other in others}
    return [example for example in examples if example.question not in questions]
