"""GSM8K (Cobbe et al. 2021): grade-school word problems read from `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Mapping

import numpy as np
from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data.screen import Fault, refusal, screened
from ttcjax.data.task import Example, Splits, Task
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve
from ttcjax.text.grading import extract_hash_number, grade_exact
from ttcjax.text.prompt import question_prompt

TASK = Task(name="gsm8k", prompt=question_prompt, extract=extract_hash_number, grade=grade_exact)

_FINAL = re.compile("^####", re.MULTILINE)

FILES = ("train.jsonl", "test.jsonl")


def read(config: DataConfig, files: Mapping[str, bytes] | None = None) -> tuple[Splits, list[Fault]]:
    """Return the examples of the files in `config.dir`; calculator marks (`<<2+3=5>>`) stay in the solutions.

    The training file is shuffled by `config.seed`; its last `num_valid` questions are the validation split and
    at most `num_train` of the others the training split. The test split is the head of the test file. Questions
    that recur in a later split are left out of the earlier one.

    Args:
        config: How many of them, and where they lie.
        files: Their content, where it was read before; see `read_files`.

    Returns:
        The splits, and why other lines cannot be used: no JSON, a field that is missing, no `#### n` answer, and what
        `screen.screened` finds.

    Raises:
        UserError: A file is missing, or the training file is not larger than `num_valid`.
    """
    folder, files = source(config), read_files(config) if files is None else files
    require_files(config, files)
    faults: list[Fault] = []
    read = {name: _read(folder / name, files[name], faults) for name in FILES}
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
            else f"{folder / FILES[0]} holds no question"
        )
    if not test:
        raise UserError(f"{folder / FILES[1]} holds no question")
    order = np.random.default_rng(config.seed).permutation(len(train_rows))
    shuffled = [train_rows[i] for i in order]
    valid = _without(shuffled[-config.num_valid :], test)
    train = _without(shuffled[: -config.num_valid], [*valid, *test])[: config.num_train]
    return Splits(train, valid, test), faults


def read_files(config: DataConfig) -> dict[str, bytes]:
    """Return the content of the files in `config.dir`, by name; one that is not there is left out.

    Raises:
        UserError: The folder is not given, or not there.
    """
    folder, found = source(config), {}
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes()
    return found


def require_files(config: DataConfig, files: Mapping[str, bytes]) -> None:
    """Require every file of the data set to be there.

    Raises:
        UserError: One is not.
    """
    for name in FILES:
        if name not in files:
            raise UserError(f"no file {source(config) / name}; --data.dir needs GSM8K's {' and '.join(FILES)}")


def source(config: DataConfig) -> epath.Path:
    """Return the folder of the files.

    Raises:
        UserError: It is not given, or not there.
    """
    if config.dir is None:
        raise UserError("gsm8k is read from files: give their folder with --data.dir")
    folder = resolve(config.dir, "--data.dir", kind="folder")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give the one with GSM8K's train.jsonl and test.jsonl as --data.dir")
    return folder


def _without(examples: list[Example], others: list[Example]) -> list[Example]:
    questions = {other.question for other in others}
    return [example for example in examples if example.question not in questions]


def _read(path: epath.Path, content: bytes, faults: list[Fault]) -> list[tuple[str, Example]]:
    found = []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            parsed = _parse(f"gsm8k-{path.stem}-{number:05d}", line)
            if isinstance(parsed, str):
                faults.append(Fault(where, parsed))
            else:
                found.append((where, parsed))
    return found


def _parse(name: str, line: bytes) -> Example | str:
    """Return the example of a line, or what is wrong with it."""
    twice: list[str] = []

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        twice.extend(key for key in found if [k for k, _ in pairs].count(key) > 1)
        return found

    try:
        row = json.loads(line.decode(), object_pairs_hook=table)
    except UnicodeDecodeError:
        return "not UTF-8 text"
    except (ValueError, RecursionError):
        return "not valid JSON"
    for field in ("question", "answer"):
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            return f'no text field "{field}"; each line needs "question" and "answer"'
    if twice:
        return f"the field {twice[0]!r} stands twice"
    if len(_FINAL.findall(row["answer"])) > 1:
        return 'the answer has more than one line with "####"'
    answer = extract_hash_number(row["answer"])
    if answer is None:
        return 'the answer does not end in "#### number"'
    return Example(
        id=name,
        question=row["question"].strip(),
        solution=row["answer"].strip(),
        answer=answer,
        level=0,
        subject="gsm8k",
    )
