"""Procedural maths: seeded questions with checkable steps, in the manner of MATH, in five levels.

There are derivations, in seven subjects, where one way leads to the answer, and search families, where a guess is
checked and an attempt that failed tells something. Every question comes with a step-by-step solution, one step a line
and the answer on the last, and the answer can be found again without the steps. `check_steps` says of any candidate
step whether it is true.
"""

from ttcjax.config import procmath_subjects
from ttcjax.data.procmath.checker import check_steps
from ttcjax.data.procmath.generate import generate
from ttcjax.data.procmath.search import attempts_inform
from ttcjax.data.procmath.slips import failing
from ttcjax.data.procmath.templates import Problem
from ttcjax.data.task import Task
from ttcjax.text.grading import extract_answer_line, grade_exact
from ttcjax.text.prompt import question_prompt

SUBJECTS = procmath_subjects(("derivations", "search"))
"""All of them."""

TASK = Task(
    name="procmath",
    prompt=question_prompt,
    extract=extract_answer_line,
    grade=grade_exact,
    check_steps=check_steps,
    failing=failing,
    attempts_inform=attempts_inform,
)

__all__ = ["SUBJECTS", "TASK", "Problem", "attempts_inform", "check_steps", "failing", "generate"]
