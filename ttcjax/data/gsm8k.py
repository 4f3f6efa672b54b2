"""GSM8K (Cobbe et al. 2021): grade-school word problems read from `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import json

import numpy as np
from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data.task import Example, Splits, Task
from ttcjax.errors import UserError
from ttcjax.text.grading import extract_hash_number, grade_exact
from ttcjax.text.prompt import question_prompt

TASK = Task(name="gsm8k", prompt=question_prompt, extract=extract_hash_number, grade=grade_exact)


def load(config: DataConfig) -> Splits:
    """Read the files in `config.dir`; calculator marks (`<<2+3=5>>`) stay in the solutions.

    The training file is shuffled by `config.seed`; its last `num_valid` questions are the validation split and
    at most `num_train` of the others the training split. The test split is the head of the test file. Questions
    that recur in a later split are left out of the earlier one.

    Raises:
        UserError: A folder, file or field is missing, a line is no JSON or has no `#### n` answer, or the
            training file is not larger than `num_valid`.
    """
    if config.dir is None:
        raise UserError("gsm8k is read from files: give their folder with --data.dir")
    folder = epath.Path(config.dir)
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give the one with GSM8K's train.jsonl and test.jsonl as --data.dir")
    rows, test = _read(folder, "train"), _read(folder, "test")[: config.num_test]
    if len(rows) <= config.num_valid:
        raise UserError(f"data.num_valid={config.num_valid} leaves none of {len(rows)} questions to train on; lower it")
    order = np.random.default_rng(config.seed).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    valid = _without(shuffled[-config.num_valid :], test)
    train = _without(shuffled[: -config.num_valid], [*valid, *test])[: config.num_train]
    return Splits(train, valid, test)


def _without(examples: list[Example], others: list[Example]) -> list[Example]:
    questions = {other.question for other in others}
    return [example for example in examples if example.question not in questions]


def _read(folder: epath.Path, split: str) -> list[Example]:
    path = folder / f"{split}.jsonl"
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError as error:
        raise UserError(f"no file {path}; --data.dir needs GSM8K's train.jsonl and test.jsonl") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; fetch the file again") from error
    return [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _parse(path: epath.Path, number: int, line: str) -> Example:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON; mend or delete the line") from error
    for name in ("question", "answer"):
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            raise UserError(f'{where}: no text field "{name}"; each line needs "question" and "answer"')
    answer = extract_hash_number(row["answer"])
    if answer is None:
        raise UserError(f'{where}: the answer does not end in "#### number"; mend or delete the line')
    return Example(
        id=f"gsm8k-{path.stem}-{number:05d}",
        question=row["question"].strip(),
        solution=row["answer"].strip(),
        answer=answer,
        level=0,
        subject="gsm8k",
    )
