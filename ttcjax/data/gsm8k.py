"""GSM8K (Cobbe et al. 2021): grade-school word problems read from `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import re

from ttcjax.data.file_set import FileSet
from ttcjax.data.reading.json_rows import decode
from ttcjax.data.reading.tfds_records import Records
from ttcjax.data.task import Example, Task
from ttcjax.text.grading import extract_hash_number, grade_exact
from ttcjax.text.prompt import question_prompt

TASK = Task(name="gsm8k", prompt=question_prompt, extract=extract_hash_number, grade=grade_exact)

_FINAL = re.compile("^####", re.MULTILINE)


def _parse(name: str, line: bytes) -> Example | str:
    """Return the example of a line, or what is wrong with it; calculator marks (`<<2+3=5>>`) stay in the solution."""
    row = decode(line)
    if isinstance(row, str):
        return row
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str):
            return f'no text field "{field}"; each line needs "question" and "answer"'
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


DATA_SET = FileSet(
    "GSM8K",
    TASK,
    _parse,
    records=Records(
        "tensorflow_datasets.text.gsm8k.gsm8k:Gsm8k", ("question", "answer"), host="raw.githubusercontent.com"
    ),
)
