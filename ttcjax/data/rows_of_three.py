"""Sums of three numbers read from `train.jsonl` and `test.jsonl`: a data set that stands for any new one."""

from __future__ import annotations

import json

from ttcjax.data.file_set import FileSet
from ttcjax.data.task import Example, Task
from ttcjax.text.grading import extract_answer_line, grade_exact
from ttcjax.text.prompt import question_prompt


def _parse(name: str, line: bytes) -> Example | str:
    """Return the example of a line, or what is wrong with it."""
    try:
        a, b, c = map(int, json.loads(line))
    except (ValueError, TypeError):
        return "not a list of three numbers"
    solution = f"{a}+{b}={a + b}\n{a + b}+{c}={a + b + c}\nanswer: {a + b + c}"
    return Example(name, f"{a}+{b}+{c}?", solution, str(a + b + c), 0, "sums")


DATA_SET = FileSet("sums", Task("sums", question_prompt, extract_answer_line, grade_exact), _parse)
