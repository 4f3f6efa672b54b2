"""The embedded domain: every solution true, every answer confirmed apart from its steps, splits disjoint."""

import dataclasses
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
import sympy

from ttcjax.data.procmath import SUBJECTS, TASK, check_steps, generate
from ttcjax.data.procmath.checker import parse_step
from ttcjax.data.procmath.generate import LEVELS, split_of
from ttcjax.data.procmath.templates import MAX_VALUE, draw


@pytest.fixture(scope="module")
def examples():
    return list(generate("train", 1400, seed=11))


def test_every_reference_solution_passes_its_own_checker(examples):
    for example in examples:
        steps = example.solution.split("\n")
        assert all(check_steps(example, steps)), f"a reference step is called false: {example}"


def _sympy_value(formula: str) -> sympy.Expr:
    text = re.sub(r"(\d+) mod (\d+)", r"Mod(\1, \2)", formula)
    return sympy.sympify(text, locals={"det": sympy.det})  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_answers_are_confirmed_by_sympy(subject):
    """The formula comes from the question's numbers alone; a wrong derivation would differ from it."""
    for level in range(1, LEVELS + 1):
        for i in range(16):  # both templates of the subject come up, each at least once, but for 1 seed in 30,000
            problem = draw(subject, level, random.Random(f"{subject}/{level}/{i}"))
            assert _sympy_value(problem.formula) == problem.answer, problem


@pytest.mark.parametrize("subject", SUBJECTS)
def test_formulas_use_only_numbers_of_the_question(subject):
    """Otherwise the confirmation would not be independent of the derivation."""
    allowed = {
        "0",
        "1",
        "2",
    }  # indices, and factors that formulas such as 2*(a + b) or binomial(n, 2) have by themselves
    for level in range(1, LEVELS + 1):
        for i in range(20):
            problem = draw(subject, level, random.Random(i))
            numbers = set(re.findall(r"\d+", problem.question)) | allowed
            assert set(re.findall(r"\d+", problem.formula)) <= numbers, problem


def test_splits_are_disjoint_by_text_whatever_the_seed():
    train = {e.question for e in generate("train", 3000, seed=0)}
    for seed in (0, 5):
        test = [e.question for e in generate("test", 300, seed=seed)]
        valid = [e.question for e in generate("valid", 300, seed=seed)]
        assert not train & set(test)
        assert not train & set(valid)
        assert not set(test) & set(valid)
        assert len(set(test)) == len(test), "a test question comes twice"
    assert all(split_of(q) == "train" for q in train)


def test_subjects_and_levels_come_in_equal_shares(examples):
    assert len(SUBJECTS) >= 7
    counts = Counter((e.subject, e.level) for e in examples)
    assert set(counts.values()) == {len(examples) // (len(SUBJECTS) * LEVELS)}


def test_same_seed_same_examples_and_longer_streams_begin_alike():
    assert list(generate("test", 50, seed=3)) == list(generate("test", 120, seed=3))[:50]
    assert list(generate("test", 50, seed=3)) != list(generate("test", 50, seed=4))


def test_ids_are_unique_and_answers_are_read_back(examples):
    assert len({e.id for e in examples}) == len(examples)
    for e in examples:
        assert TASK.extract(e.solution) == e.answer
        assert TASK.grade(e.answer, e.answer)


@pytest.fixture
def example():
    found = next(e for e in generate("train", 200, seed=1) if "dot product" in e.question and e.level == 2)
    return dataclasses.replace(
        found,
        question="Find the dot product of (2, 5) and (4, 3).",
        solution="2*4=8\n5*3=15\n8+15=23\nAnswer: 23",
        answer="23",
    )


@pytest.mark.parametrize(
    ("step", "truth"),
    [
        ("2*4=8", True),
        ("4*2=8", True),
        ("4 * 2 = 8", True),
        ("sum: 8+15=23", True),
        ("2*4+5*3=23", True),
        ("2*4=9", False),
        ("2*5=10", False),  # true arithmetic, but nothing this question needs
        ("7+16=23", False),  # right value from numbers that are not there
        ("8+15=23=23", False),
        ("Answer: 23", True),
        ("Answer: 24", False),
        ("Answer: 23 ", True),
        ("", False),
        ("2*4", False),
        ("=8", False),
        ("__import__('os').system('true')=8", False),
        ("9**9**9=8", False),
        ("8/0=8", False),
        ("8 mod 0=8", False),
        ("(" * 5000 + "8" + ")" * 5000 + "=8", False),
        ("-" * 150 + "8=8", False),
        ("9" * 180 + "=8", False),
    ],
)
def test_truth_of_candidate_steps(example, step, truth):
    assert check_steps(example, [step]) == [truth]


def test_wrong_steps_of_other_questions_are_false(examples):
    """Changing the stated result of any step makes it false."""
    for example in examples[:200]:
        for line in example.solution.split("\n")[:-1]:
            head, _, value = line.rpartition("=")
            assert check_steps(example, [f"{head}={int(value) + 1}"]) == [False], line


def test_step_arithmetic_is_exact_and_has_usual_precedence():
    assert parse_step("2+3*4-10/4=1") == (Fraction(23, 2), Fraction(1), [2, 3, 4, 10, 4])
    assert parse_step("-(2-5)*3=9") == (Fraction(9), Fraction(9), [2, 5, 3])
    assert parse_step("17 mod 5=2") == (Fraction(2), Fraction(2), [17, 5])


def test_no_step_leaves_the_range_of_small_numbers(examples):
    for example in examples:
        for line in example.solution.split("\n")[:-1]:
            assert 0 <= int(line.rpartition("=")[2]) <= MAX_VALUE, line
