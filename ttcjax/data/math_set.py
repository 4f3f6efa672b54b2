"""MATH (Hendrycks et al. 2021): competition problems, in the files of Lightman et al. 2023 or the original folders."""

from __future__ import annotations

from ttcjax.data.file_set import FileSet
from ttcjax.data.reading import gradings
from ttcjax.data.reading.json_rows import decode, level_of
from ttcjax.data.task import Example, Task
from ttcjax.text.grading import canonical, extract_boxed
from ttcjax.text.prompt import question_prompt

TASK = Task(name="math", prompt=question_prompt, extract=gradings.MATH.extract, grade=gradings.MATH.grade)


def _parse(name: str, line: bytes) -> Example | str:
    """Return the example of a line, or what is wrong with it; the answer is the last box's where no field has it."""
    row = decode(line)
    if isinstance(row, str):
        return row
    for field in ("problem", "solution"):
        if not isinstance(row.get(field), str):
            return f'no text field "{field}"; each line needs "problem" and "solution"'
    given = row.get("answer")
    answer = canonical(given) if isinstance(given, str) else ""
    answer = answer or extract_boxed(row["solution"])
    if answer is None:
        return r'there is no answer: no text field "answer", and no \boxed{...} with something in it in the solution'
    subject = row.get("subject") or row.get("type")
    id_ = row.get("unique_id")
    return Example(
        id=id_ if isinstance(id_, str) and id_.strip() else name,
        question=row["problem"].strip(),
        solution=row["solution"].strip(),
        answer=answer,
        level=level_of(row.get("level")) or 0,
        subject=subject if isinstance(subject, str) else "",
    )


DATA_SET = FileSet(
    "MATH",
    TASK,
    _parse,
    ("train.jsonl", "test.jsonl"),
    others=(("math_train_12k.jsonl", "train"), ("math_test_500.jsonl", "test500.jsonl", "test")),
)
