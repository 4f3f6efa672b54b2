"""A user's own questions: JSON lines or one JSON list, whose fields have any names; and files of AIME and AMC."""

from __future__ import annotations

import re
from collections.abc import Callable

from ttcjax.config import DataConfig
from ttcjax.data.file_set import FileSet
from ttcjax.data.reading import gradings, json_rows
from ttcjax.data.task import Example, Task
from ttcjax.text.prompt import question_prompt

_HOLDS_BOTH = re.compile(r"^####|\\boxed", re.MULTILINE)


class Jsonl(FileSet):
    """A data set of lines with a question and an answer, and where there are some, a solution, id, level and subject.

    Where the folder has no file of a usual name and one file alone, that file has the test questions.
    """

    answers_alone = True

    def __init__(self, title: str, name: str, grading: str, wrong: Callable[[str], str | None] = lambda answer: None):
        """Describe it.

        Args:
            title: As messages name it.
            name: Its `data.name`.
            grading: How answers are read and compared where `data.grading` does not say.
            wrong: Returns what is wrong with a reference answer.
        """
        own = gradings.named(grading)
        task = Task(name=name, prompt=question_prompt, extract=own.extract, grade=own.grade)
        json_names = ("train.json",), ("test.json",)
        super().__init__(
            title, task, lambda id_, line: self.example(DataConfig(), id_, line), others=json_names, lone=True
        )
        self._grading, self._wrong = grading, wrong

    def example(self, config: DataConfig, name: str, line: bytes) -> Example | str:
        row = json_rows.decode(line)
        if isinstance(row, str):
            return row
        found = {key: json_rows.field(row, config.fields, key) for key in json_rows.USUAL}
        for key in ("question", "answer"):
            if not _is_text(found[key], key):
                looked = getattr(config.fields, key) or " or ".join(json_rows.USUAL[key])
                return f"no field {looked} with the {key}: name another with --data.fields.{key}"
        for key in ("solution", "subject", "id", "level"):
            given = getattr(config.fields, key)
            if given is not None and found[key] is None:
                return f"no field {given} with the {key}"
        grading = gradings.named(config.grading or self._grading)
        text, solution = _as_text(found["answer"]), found["solution"]
        if solution is None and _HOLDS_BOTH.search(text):
            solution, text = text, grading.extract(text) or ""
        answer = grading.reference(text) if text.strip() else ""
        if answer is None:
            return f"the answer {text[:60]!r} is none of data.grading={config.grading or self._grading}"
        if answer and (wrong := self._wrong(answer)):
            return wrong
        level = json_rows.level_of(found["level"])
        if level is None and config.fields.level is not None:
            return f"the level {found['level']!r} is none from 1 to 5"
        return Example(
            id=_as_text(found["id"]).strip() if isinstance(found["id"], (str, int)) and found["id"] != "" else name,
            question=found["question"].strip(),
            solution=solution.strip() if isinstance(solution, str) else "",
            answer=answer,
            level=level or 0,
            subject=found["subject"].strip() if isinstance(found["subject"], str) else "",
        )


def _is_text(value: object, key: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str) or (key == "answer" and number)


def _as_text(value: object) -> str:
    """Return text or a number as text; 142.0, as tables keep whole numbers, is 142."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _no_aime_answer(answer: str) -> str | None:
    if re.fullmatch(r"\d{1,3}", answer):
        return None
    return f"an answer of AIME is a whole number from 0 to 999, not {answer[:60]!r}"


DATA_SET = Jsonl("the questions'", "jsonl", "math")
AIME = Jsonl("AIME", "aime", "number", _no_aime_answer)
AMC = Jsonl("AMC", "amc", "choice")
