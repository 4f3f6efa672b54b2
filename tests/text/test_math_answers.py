"""The answers of MATH (Hendrycks et al. 2021): equal to themselves however they are written, and to no other."""

import json
import pathlib
import random
import re

import pytest

from ttcjax.text import grading

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
FILES = [SHARED / f"{name}.jsonl" for name in ("math_test_500", "math_train_12k")]

pytestmark = pytest.mark.skipif(not FILES[0].exists(), reason="needs ../shared/data/math_*.jsonl beside the repository")


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def golds(rows):
    return sorted({row["answer"] for row in rows if row["answer"]})


def test_every_reference_is_the_same_as_itself(rows):
    empty = [row for row in rows if not row["answer"]]  # solutions that end in an empty box
    assert len(empty) <= 2
    wrong = [row["answer"] for row in rows if row["answer"] and not grading.grade(row["answer"], row["answer"])]
    assert not wrong


def test_references_agree_with_their_own_solutions(rows):
    for extract in (grading.extract_answer, grading.extract_key):
        wrong = [row["answer"] for row in rows if not grading.grade(extract(row["solution"]), row["answer"])]
        assert len(wrong) <= len(rows) / 1000, wrong


def mixed(gold):
    """Whether a fraction stands right after a digit, so that it belongs to a mixed number."""
    return bool(re.search(r"\d\s*\\[dt]?frac", gold))


def fractions(gold, form):
    pattern = r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}"
    return gold if mixed(gold) or "triangle" in gold or "sec" in gold else re.sub(pattern, form, gold)


REWRITINGS = {
    "dfrac": lambda gold: gold.replace("\\frac", "\\dfrac"),
    "short fractions": lambda gold: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", gold),
    "slashes": lambda gold: fractions(gold, r"(\1/\2)"),
    "not reduced": lambda gold: fractions(gold, lambda m: f"\\frac{{{int(m[1]) * 3}}}{{{int(m[2]) * 3}}}"),
    "no left": lambda gold: gold.replace("\\left", "").replace("\\right", ""),
    "dollars": lambda gold: f"${gold}$",
    "display": lambda gold: f"\\[ {gold} \\]",
    "box": lambda gold: f"Hence the result is $\\boxed{{{gold}}}$.",
    "sentence": lambda gold: f"Final Answer: The final answer is ${gold}$. I hope it is correct.".replace("\n", " "),
    "short roots": lambda gold: re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", gold),
    "powers for roots": lambda gold: re.sub(r"\\sqrt\{(\d+)\}", r"{\1}^{1/2}", gold),
    "Unicode": lambda gold: (
        gold.replace("\\pi", "\u03c0").replace("\\cup", "\u222a").replace("\\infty", "\u221e").replace("-", "\u2212")
    ),
    "escaped twice": lambda gold: gold.replace("\\", "\\\\"),
    "square brackets of matrices": lambda gold: gold.replace("pmatrix", "bmatrix"),
    "decimals": lambda gold: f"{gold}.0" if re.fullmatch(r"-?\d{1,15}", gold) else gold,
    "thousands": lambda gold: f"{int(gold):,}" if re.fullmatch(r"-?\d{1,15}", gold) else gold,
    "name": lambda gold: f"w = {gold}" if re.fullmatch(r"[-\d\\a-z{}.]+", gold) and "box" not in gold else gold,
    "degrees": lambda gold: re.sub(r"^(-?[\d.]+)\^\\circ$", r"\1 degrees", gold),
}


@pytest.mark.parametrize("name", REWRITINGS)
def test_references_that_are_written_otherwise_are_the_same(golds, name):
    pairs = [(written, gold) for gold in golds[::4] if (written := REWRITINGS[name](gold)) != gold]
    assert len(pairs) > 10, "nothing was rewritten"
    wrong = [pair for pair in pairs if not grading.grade(*pair)]
    assert not wrong


def test_another_questions_answer_is_wrong(golds):
    """The exceptions are the same answers, written in two ways."""
    rng = random.Random(0)
    hard = [gold for gold in golds if grading.parse_number(grading.canonical(gold)) is None]
    pairs = [(other, gold) for gold in hard[::3] for other in rng.sample(hard, 2) if other != gold]
    same = [(other, gold) for other, gold in pairs if grading.grade(other, gold)]
    assert len(pairs) > 1000
    keys = [(grading.answer_key(other), grading.answer_key(gold)) for other, gold in same]
    assert all(left == right for left, right in keys), same
    assert len(same) < 10
