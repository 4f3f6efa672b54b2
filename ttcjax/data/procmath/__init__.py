"""Procedural maths: seeded questions with checkable steps, in seven subjects and five levels, like MATH.

Every question comes with a step-by-step solution, one step a line and the answer on the last, and with a
formula from which the answer is found again without the steps. `check_steps` says of any candidate step
whether it is true.
"""

from ttcjax.data.procmath.checker import check_steps
from ttcjax.data.procmath.generate import SUBJECTS, generate
from ttcjax.data.procmath.templates import Problem
from ttcjax.data.task import Task
from ttcjax.text.grading import extract_answer_line, grade_exact
from ttcjax.text.prompt import question_prompt

TASK = Task(
    name="procmath",
    prompt=question_prompt,
    extract=extract_answer_line,
    grade=grade_exact,
    check_steps=check_steps,
)

__all__ = ["SUBJECTS", "TASK", "Problem", "check_steps", "generate"]
