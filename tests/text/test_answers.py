"""Answers compared: a table of cases, the choices of a convention, and independent references."""

import itertools
import pathlib
import random
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.config import Convention, from_dict
from ttcjax.text import grading
from ttcjax.text.grading import worker
from ttcjax.text.grading.algebra.answer_parser import read
from ttcjax.text.grading.algebra.exact import form

TABLE = pathlib.Path(__file__).with_name("answer_cases.txt")


def sections():
    """Return the table's cases (answer, reference, same) by the heading they stand under, in both directions."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            cases = found.setdefault(line[2:], [])
            continue
        sign = " ~~ " if " ~~ " in line else " !~ "
        answer, gold = line.removeprefix("> ").split(sign)
        cases.append((answer, gold, sign == " ~~ "))
        if not line.startswith("> "):
            cases.append((gold, answer, sign == " ~~ "))
    return {name: cases for name, cases in found.items() if cases}


CASES = sections()


@pytest.fixture
def no_algebra(monkeypatch):
    """Make a question to the computer algebra system an error: exact arithmetic is to decide."""

    def ask(self, answer, gold):
        raise AssertionError(f"exact arithmetic did not decide {answer!r} against {gold!r}")

    monkeypatch.setattr(grading.SymbolicWorker, "grade", ask)
    worker._grade.cache_clear()
    yield
    worker._grade.cache_clear()


@pytest.mark.parametrize("section", CASES)
def test_the_table(section, no_algebra):
    wrong = [case for case in CASES[section] if grading.grade(*case[:2]) is not case[2]]
    assert not wrong


def test_the_table_is_large():
    assert sum(map(len, CASES.values())) > 700


def test_an_answer_is_the_same_as_itself_and_as_its_key():
    """A vote counts keys: a key must be an answer of the same value."""
    for answer in {text for cases in CASES.values() for case in cases for text in case[:2] if len(text) < 60}:
        key = grading.answer_key(answer)
        assert grading.answer_key(key) == key, answer
        assert grading.grade(key, answer), (key, answer)


@pytest.mark.parametrize(
    "answers",
    [
        ["0.5", r"\frac{1}{2}", "1/2", "x = 0.5", r"\dfrac12", "0.50", "2/4"],
        [r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt2}", "sqrt(2)/2", r"\sqrt{\frac12}"],
        ["(x+1)^2", "x^2+2x+1", "x^2 + 2*x + 1"],
        ["1, 2", "2,1", r"2 \text{ and } 1"],
        ["20", r"20\%", r"20^\circ", r"\$20", r"20\text{ cm}"],
        [r"\text{Evelyn}", "Evelyn", "evelyn"],
        ["x-y=1", "2x-2y=2", "y-x=-1", "y = x-1"],
    ],
)
def test_spellings_of_one_answer_are_one_vote(answers):
    assert len({grading.answer_key(answer) for answer in answers}) == 1


def test_answers_that_differ_are_two_votes():
    answers = [
        "1/2",
        "0.51",
        "-1/2",
        r"\sqrt2",
        "1.41421356",
        "(1,2)",
        "[1,2]",
        r"\{1,2\}",
        "x",
        "x^2",
        "Evelyn",
        "1011_2",
    ]
    assert len({grading.answer_key(answer) for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("setting", "value", "answer", "gold"),
    [
        ("percent", "share", "20%", "20"),
        ("percent", "number", "20%", "0.2"),
        ("ordered_lists", True, "1, 2", "2, 1"),
        ("decimals", 0, "0.333333", "1/3"),
        ("ignore_units", False, r"5\text{ cm}", "5"),
        ("ignore_case", False, "evelyn", r"\text{Evelyn}"),
        ("ignore_labels", False, "x = 5", "5"),
        ("decimal_comma", False, "1,5", "1.5"),
        ("scaled_equations", False, "2x = 2y", "x = y"),
        ("bare_tuples", False, "1, 2", "(1, 2)"),
    ],
)
def test_each_choice_of_a_convention_can_be_refused(setting, value, answer, gold):
    assert grading.grade(answer, gold), "the default is MATH's usage"
    assert not grading.grade(answer, gold, from_dict(Convention, {setting: value})), "the setting changes nothing"


@pytest.mark.parametrize(
    ("setting", "answer", "gold"), [("relations_as_sets", "0 < x < 1", "(0, 1)"), ("bare_base", "101", "101_2")]
)
def test_each_further_choice_can_be_allowed(setting, answer, gold):
    assert not grading.grade(answer, gold)
    assert grading.grade(answer, gold, from_dict(Convention, {setting: True}))


def test_fewer_decimals_can_be_asked_for():
    assert grading.grade("3.1416", r"\pi", Convention(decimals=4))
    assert not grading.grade("3.1415", r"\pi", Convention(decimals=4))
    assert not grading.grade("3.14", "3.1416", Convention(decimals=4)), "a decimal of few places is exact"


# Independent references.


def random_expression(rng, depth=3):
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(["x", "y", "2", "3", "5", "(1/2)", "(-1)", "sqrt(2)", "sqrt(3)"])
    left, right = random_expression(rng, depth - 1), random_expression(rng, depth - 1)
    return rng.choice([f"({left}+{right})", f"({left}-{right})", f"{left}*{right}", f"({left})^2"])


def test_exact_forms_agree_with_sympy():
    rng = random.Random(3)
    for _ in range(60):
        text = random_expression(rng)
        expanded = sympy.expand(sympy.sympify(text.replace("^", "**")))
        other = expanded + rng.choice([1, -1, sympy.Rational(1, 7), sympy.sqrt(2), sympy.Symbol("x")])
        assert form(read(text)).key() == form(read(str(expanded))).key(), text
        assert grading.grade(sympy.latex(expanded), text)
        assert not grading.grade(sympy.latex(other), text)


def test_fractions_of_polynomials_agree_with_sympy():
    rng = random.Random(4)
    x = sympy.Symbol("x")
    for _ in range(40):
        factors = [x - rng.randint(-4, 4) for _ in range(4)]
        ratio = factors[0] * factors[1] / (factors[2] * factors[3])
        apart = sympy.apart(sympy.cancel(ratio), x)
        assert grading.compare(sympy.latex(apart), sympy.latex(ratio)) is True, (apart, ratio)
        assert grading.compare(sympy.latex(apart + 1), sympy.latex(ratio)) is False


ENDS = st.integers(-3, 3)


@settings(deadline=None)  # the first example imports and compiles
@given(st.lists(st.tuples(ENDS, ENDS, st.booleans(), st.booleans()), min_size=1, max_size=3).map(tuple), st.data())
def test_unions_of_intervals_are_compared_as_sets_of_points(pieces, data):
    others = data.draw(
        st.permutations(pieces) | st.lists(st.tuples(ENDS, ENDS, st.booleans(), st.booleans()), min_size=1, max_size=3)
    )

    def clean(found):
        return [piece for piece in found if piece[0] < piece[1]] or [(0, 1, True, True)]

    def shown(found):
        return r" \cup ".join(f"{'[' if a else '('}{low},{high}{']' if b else ')'}" for low, high, a, b in found)

    def members(found):
        points = [Fraction(n, 2) for n in range(-7, 8)]
        inside = [
            any(low < p < high or (p == low and a) or (p == high and b) for low, high, a, b in found) for p in points
        ]
        return tuple(inside)

    left, right = clean(pieces), clean(others)
    assert grading.grade(shown(left), shown(right)) is (members(left) == members(right))


@settings(deadline=None)  # the first example imports and compiles
@given(
    st.fractions(),
    st.sampled_from([r"\frac{{{n}}}{{{d}}}", "{n}/{d}", r"\dfrac{{{n}}}{{{d}}}\text{{ m}}", r"\frac{{{m}}}{{{e}}}"]),
)
def test_every_spelling_of_a_fraction_is_the_fraction(value, spelling):
    text = spelling.format(n=value.numerator, d=value.denominator, m=value.numerator * 6, e=value.denominator * 6)
    assert grading.grade(text, str(value))
    assert not grading.grade(text, str(value + Fraction(1, 10**9)))


def test_lists_are_matched_item_by_item_in_any_order():
    items = ["1", r"\frac12", "x+1", r"\sqrt2"]
    for order in itertools.permutations(items):
        assert grading.grade(", ".join(order), ", ".join(items))
    assert not grading.grade(", ".join([*items[:3], items[0]]), ", ".join(items))


def test_graders_beside_one_another():
    pairs = [("1/2", "0.5"), ("2", "3"), ("8 cm", "8"), (None, "1"), (r"10^{-20}", r"10^{-21}")]
    found = grading.agreement(pairs, second=lambda answer, gold: answer == "2")
    assert (found.pairs, found.both_right, found.both_wrong) == (5, 0, 2)
    assert [(d.place, d.first) for d in found.disagreements] == [(0, True), (1, False), (2, True)]
    assert found.share == pytest.approx(2 / 5)


def test_math_verify_alone_takes_small_numbers_for_equal():
    """Its own tolerances, which our use of it replaces."""
    assert grading.math_verify(r"10^{-20}", r"10^{-21}")
    assert not grading.grade(r"10^{-20}", r"10^{-21}")
    assert not grading.math_verify(None, "1")


def test_sums_and_integrals_are_left_to_computer_algebra():
    assert grading.compare(r"\sum_{k=1}^{10} k", "55") is None
    assert grading.grade(r"\sum_{k=1}^{10} k", "55")
    assert not grading.grade(r"\sum_{k=1}^{10} k", "56")
