"""GSM8K (Cobbe et al. 2021): grade-school word problems read from `train.jsonl` and `test.jsonl`."""

from __future__ import annotations

import json
import re

from ttcjax.data.file_set import FileSet
from ttcjax.data.task import Example, Task
from ttcjax.text.grading import extract_hash_number, grade_exact
from ttcjax.text.prompt import question_prompt

TASK = Task(name="gsm8k", prompt=question_prompt, extract=extract_hash_number, grade=grade_exact)

_FINAL = re.compile("^####", re.MULTILINE)


def _parse(name: str, line: bytes) -> Example | str:
    """Return the example of a line, or what is wrong with it; calculator marks (`<<2+3=5>>`) stay in the solution."""
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


DATA_SET = FileSet("GSM8K", TASK, _parse)
