"""Final answers: found in a solution, brought to one spelling, and compared with the reference.

Comparison goes from cheap to dear: equal text, exact arithmetic (`exact`), values to many digits (`numeric`), and only
then computer algebra, done by math-verify in a process of its own that is killed when it takes too long (`worker`).
Model text is never evaluated as code. What counts as the same is a `Convention`.
"""

from ttcjax.config.convention import MATH, Convention
from ttcjax.text.grading.comparison import compare
from ttcjax.text.grading.extraction import (
    canonical,
    extract_answer_line,
    extract_boxed,
    extract_hash_number,
    grade_exact,
)
from ttcjax.text.grading.quantities import parse_number, parse_quantity
from ttcjax.text.grading.second import Agreement, Disagreement, agreement, math_verify
from ttcjax.text.grading.sentences import extract_answer, final_answer
from ttcjax.text.grading.worker import SymbolicWorker, answer_key, extract_key, grade

__all__ = [
    "MATH",
    "Agreement",
    "Convention",
    "Disagreement",
    "SymbolicWorker",
    "agreement",
    "answer_key",
    "canonical",
    "compare",
    "extract_answer",
    "extract_answer_line",
    "extract_boxed",
    "extract_hash_number",
    "extract_key",
    "final_answer",
    "grade",
    "grade_exact",
    "math_verify",
    "parse_number",
    "parse_quantity",
]
