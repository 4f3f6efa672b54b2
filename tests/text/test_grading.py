import json
import pathlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.text import grading
from ttcjax.text.grading import worker as grading_worker

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
MATH = SHARED / "math_test_500.jsonl"
GSM8K = SHARED / "gsm8k"


@pytest.fixture
def worker():
    worker = grading.SymbolicWorker(timeout=2.0)
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 3\nAnswer: 42", "42"),
        ("Answer: 1\nno\nAnswer:   3/6  ", "1/2"),
        ("Answer: -7.50", "-15/2"),
        ("Answer: 5 remainder 2", "5 remainder 2"),
        ("Answer:", None),
        ("Answer: \nx", None),
        ("the Answer: 3", None),
        ("", None),
    ],
)
def test_answer_line(text, answer):
    assert grading.extract_answer_line(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 5\n#### 18", "18"),
        ("#### 1\n#### 2", "2"),
        ("#### $1,250", "1250"),
        ("#### -3", "-3"),
        ("#### \u22123", "-3"),
        ("#### -$3.50", "-7/2"),
        ("####7 dollars", "7"),
        ("#### 12.", "12"),
        ("#### .5", "1/2"),
        ("#### none", None),
        ("18", None),
        ("#### ", None),
        ("#### 5\n#### none", None),
        ("#### 5\n####\n", "5"),
        ("**#### 18**", "18"),
        ("**A:** 18", "18"),
        ("**A: 18**", "18"),
        ("#### 18\r\n", "18"),
        ("so 5\nA: $18", "18"),
        ("in the USA: 18", None),
    ],
)
def test_hash_number(text, answer):
    assert grading.extract_hash_number(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"$\boxed{\frac{3}{\sqrt{2}}}$", r"\frac{3}{\sqrt{2}}"),
        (r"\boxed{\frac{2}{4}}", "1/2"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 9$ it is", "9"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x }", r"\left\{ x"),
        (r"\boxed{1", None),
        (r"\boxed{}", None),
        (r"\boxed", None),
        ("5", None),
        (r"\boxed{73}, in \boxed form", "73"),
        (r"\boxed{73} is what I \boxed", "73"),
        (r"\boxed{73}. The \boxed, as asked", "73"),
        (r"\boxed{73}. I used `\boxed{}`", "73"),
        (r"\boxed{73} \fbox{ }", "73"),
        (r"\boxed{73}: it goes into \boxed{...}", "73"),
        (r"\boxed{73} \boxed{\ldots}", "73"),
        (r"\boxed{73} \boxed{\text{}}", "73"),
        (r"\boxed{73}, no, \boxed{7", None),
        (r"\boxed{73}, no, \boxed{\text{7}", None),
        (r"\boxedanswer{5}", None),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{3 + \fbox{5}}", r"3 + \fbox{5}"),
        (r"(\boxed 3)", "3"),
        (r"\(\boxed 3\)", "3"),
        (r"$\boxed x$", "x"),
        (r"\boxed \frac12$", "1/2"),
    ],
)
def test_boxed(text, answer):
    assert grading.extract_boxed(text) == answer


MARKS = [
    "**{}**",
    "__{}__",
    "*{}*",
    "_{}_",
    "***{}***",
    "`{}`",
    "${}$",
    "$${}$$",
    r"\({}\)",
    r"\[{}\]",
    "**${}$**",
    "$ {} $",
]
MARKS += [
    r"\text{{{}}}",
    r"\textbf{{{}}}",
    r"\mathbf{{{}}}",
    "{{{}}}",
    r"\,{}\,",
    r"\displaystyle {}",
    "{}.",
    "{},",
    "**{}.**",
]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("number", ["73", "-1/2", "1,000", r"\frac{3}{4}", "2.50"])
def test_marks_around_a_number_are_no_part_of_it(mark, number):
    text = mark.format(number)
    assert grading.extract_boxed(rf"so \boxed{{{text}}}.") == grading.canonical(number), text
    assert grading.extract_hash_number(f"so\n#### {text}") == grading.canonical(number), text


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (r"1\,000", "1000"),
        (r"1{,}000", "1000"),
        (r"1,\!000,\!000", "1000000"),
        (r"1\ 000", "1000"),
        ("1~000", "1000"),
        ("1\u2009000", "1000"),
        ("1\u202f000\u202f000", "1000000"),
        ("1 000", "1000"),
        (r"\dfrac{1}{29,\!322,\!216}", "1/29322216"),
        (r"1\frac{1}{2}", "3/2"),
        ("73\\text{ km}", "73"),
        (r"440\mbox{ cm}^2", "440"),
        (r"3.5\ \mathrm{kg}", "7/2"),
        (r"\$23{,}000", "23000"),
        ("\u20ac20", "20"),
        ("20 \u00a3", "20"),
        (r"-\$0.50", "-1/2"),
        (r"5\text{ million}", "5000000"),
        (r"9\text{ a.m.}", r"9\text{ a.m.}"),
        (r"5\text{ dozen}", r"5\text{ dozen}"),
        (r"\text{rat}", r"\text{rat}"),
        (r"5,\,-11", r"5,\,-11"),
        ("0.333...", "0.333..."),
        ("12:30", "12:30"),
        (r"20\%", r"20\%"),
        ("$3$ or $4$", "$3$ or $4$"),
    ],
)
def test_what_is_in_a_box_is_read_whole(content, answer):
    assert grading.extract_boxed(rf"\boxed{{{content}}}") == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", Fraction(42)),
        ("+5", Fraction(5)),
        ("\u22125", Fraction(-5)),
        ("1,234,567", Fraction(1234567)),
        ("1,23", None),
        ("0.10", Fraction(1, 10)),
        ("5.", Fraction(5)),
        ("-.5", Fraction(-1, 2)),
        ("6/4", Fraction(3, 2)),
        ("-6 / 4", Fraction(-3, 2)),
        ("1.5/0.5", Fraction(3)),
        ("1/0", None),
        (r"-\dfrac{3}{6}", Fraction(-1, 2)),
        (r"\frac{-3}{6}", Fraction(-1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac{1}{0}", None),
        ("1e9", Fraction(10**9)),
        ("1.5E-3", Fraction(3, 2000)),
        (r"6.02 \times 10^{23}", Fraction(602 * 10**21)),
        ("1e501", None),
        ("1e999999999", None),
        ("1e-999999999", None),
        ("1e" + "9" * 900, None),
        ("0,123", None),
        ("1 1/2", Fraction(3, 2)),
        (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("1 3/2", None),
        ("5 000", Fraction(5000)),
        (r"5\,000", Fraction(5000)),
        ("5 0000", None),
        ("12:30", None),
        ("2^10", None),
        ("\u0664", None),
        ("x", None),
        ("", None),
        ("-", None),
        (".", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_are_exact(text, value):
    assert grading.parse_number(text) == value


@given(st.fractions(), st.integers(1, 9))
def test_every_spelling_of_a_fraction_has_one_canonical_form(value, factor):
    n, d = value.numerator * factor, value.denominator * factor
    assert grading.canonical(f"{n}/{d}") == grading.canonical(rf"\frac{{{n}}}{{{d}}}") == str(value)
    if d == factor:
        assert grading.canonical(f"{value.numerator:,}.00") == str(value)


@given(st.text(max_size=40) | st.text(alphabet="\\boxedtrl{}()[]$*_` .,:;!-1/2e", max_size=40))
def test_canonical_is_idempotent_and_never_fails(text):
    once = grading.canonical(text)
    assert grading.canonical(once) == once


@given(st.text(alphabet="\\boxed{}#$ Answer:1,./-\n", max_size=60))
def test_extraction_never_fails_and_never_returns_empty_text(text):
    for extract in (grading.extract_answer_line, grading.extract_hash_number, grading.extract_boxed):
        answer = extract(text)
        assert answer is None or answer != ""


def test_plain_numbers_and_missing_answers_need_no_process():
    grading_worker._WORKER.close()  # other tests may have used it
    assert grading.grade("1,250.0", "1250")
    assert grading.grade(r"\frac{1}{2}", "0.5")
    assert not grading.grade("3", "4")
    assert not grading.grade("0.333", "1/3"), "numbers are compared exactly"
    assert not grading.grade(None, "4")
    assert not grading.grade("", "x")
    assert not grading.grade("x" * 5000, "x")
    assert grading.grade_exact("6/4", "1.5")
    assert not grading.grade_exact(None, "1")
    assert not grading_worker._WORKER.running, "the symbolic process must start only when needed"


@pytest.mark.skipif(not MATH.exists(), reason="needs ../shared/data/math_test_500.jsonl beside the repository")
def test_every_math_solution_is_graded_right_by_its_own_answer(worker):
    rows = [json.loads(line) for line in MATH.read_text().splitlines()]
    for row in rows:
        assert grading.grade_exact(grading.extract_boxed(row["solution"]), row["answer"]), row["answer"]
    wrong = [row["answer"] for row in rows if not worker.grade(row["answer"], row["answer"])]
    assert not wrong, "math-verify must agree that an answer equals itself"


@pytest.mark.skipif(not GSM8K.exists(), reason="needs ../shared/data/gsm8k beside the repository")
def test_every_gsm8k_gold_is_a_number_equal_to_itself():
    for name in ("train", "test"):
        for line in (GSM8K / f"{name}.jsonl").read_text().splitlines():
            solution = json.loads(line)["answer"]
            answer = grading.extract_hash_number(solution) or ""
            assert grading.parse_number(answer) is not None, solution
            assert grading.grade_exact(solution.rsplit("####", 1)[1], answer)


@pytest.mark.skipif(not GSM8K.exists(), reason="needs ../shared/data/gsm8k beside the repository")
def test_the_published_verdicts_on_real_models_solutions_are_reproduced():
    """Cobbe et al. 2021 released 1,319 solutions of each of four systems with their verdicts."""
    lines = (GSM8K / "example_model_solutions.jsonl").read_text().splitlines()
    other, count = [], 0
    for line in lines:
        row = json.loads(line)
        gold = grading.extract_hash_number(row["ground_truth"])
        assert gold is not None, row["ground_truth"]
        for system in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            found = grading.extract_hash_number(row[system]["solution"])
            count += 1
            if grading.grade_exact(found, gold) != row[system]["is_correct"]:
                other.append((system, found, gold, row[system]["solution"]))
    assert count == 4 * 1319
    assert not other
