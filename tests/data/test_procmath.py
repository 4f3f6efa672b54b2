"""The embedded domain: every solution true, every answer confirmed apart from its steps, splits disjoint."""

import dataclasses
import functools
import itertools
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
import sympy

from ttcjax.config import ConfigError, DataConfig
from ttcjax.data.procmath import SUBJECTS, TASK, attempts_inform, check_steps, failing, generate
from ttcjax.data.procmath.checker import parse_step
from ttcjax.data.procmath.generate import LEVELS
from ttcjax.data.procmath.search import FAMILIES
from ttcjax.data.procmath.templates import MAX_VALUE, TEMPLATES, draw


@pytest.fixture(scope="module")
def examples():
    return list(generate("train", 1300, seed=11))


@pytest.fixture(scope="module")
def searches(examples):
    return [example for example in examples if example.subject in FAMILIES]


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def test_every_reference_solution_passes_its_own_checker(examples):
    for example in examples:
        steps = example.solution.split("\n")
        assert all(check_steps(example, steps)), f"a reference step is called false: {example}"


def _sympy_value(formula: str) -> sympy.Expr:
    text = re.sub(r"(\d+) mod (\d+)", r"Mod(\1, \2)", formula)
    return sympy.sympify(text, locals={"det": sympy.det})  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("subject", TEMPLATES)
def test_answers_of_derivations_are_confirmed_by_sympy(subject):
    """The formula comes from the question's numbers alone; a wrong derivation would differ from it."""
    for level in range(1, LEVELS + 1):
        for i in range(16):  # both templates of the subject come up, each at least once, but for 1 seed in 30,000
            problem = draw(subject, level, random.Random(f"{subject}/{level}/{i}"))
            assert _sympy_value(problem.formula) == problem.results[-1], problem


@pytest.mark.parametrize("subject", TEMPLATES)
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


def test_an_answer_of_a_derivation_names_every_result(examples):
    """So that none is right by luck where a step has a wrong result: with one small number 22.9% of right ones had."""
    derived = [example for example in examples if example.subject in TEMPLATES]
    for example in derived:
        *lines, last = example.solution.split("\n")
        results = [int(line.rpartition("=")[2]) for line in lines]
        assert numbers(last)[: len(results)] == results, example
        # Where something is left to say, it is the divisor of Euclid's last division.
        assert len(numbers(last)) == len(results) + (results[-1] == 0 and "shared out" in example.question), example
    assert len(derived) == 700


def brute_force(subject, question):
    """Every answer that the question has, as text: by its words alone, with nothing of the generator."""
    n = numbers(question)
    if subject == "pair":
        total, more, made = n
        found = [(a, total - a) for a in range(1, total) if a <= total - a and a * (total - a) + more == made]
    elif subject == "residue":
        *listed, rest, divisor = n
        found = [(x,) for x in listed if x % divisor == rest]
    elif subject == "coins":
        count, a, b, worth = n[:4]
        assert n[4:] == [a, b]
        found = [
            (x, y) for x in range(count + 1) for y in range(count + 1) if x + y == count and a * x + b * y == worth
        ]
    elif subject == "doors":
        *rooms, start, goal = n
        doors = list(zip(rooms[::2], rooms[1::2], strict=True))
        found, ways = [], [(start,)]
        while ways:
            ways = [(*way, b) for way in ways for a, b in doors if a == way[-1] and b not in way]
            found += [way[1:] for way in ways if way[-1] == goal]
    elif subject == "reach":
        start, goal, moves, plus, times = n
        ways = [(start,)]
        for _ in range(moves):
            ways = [(*way, value) for way in ways for value in (way[-1] + plus, way[-1] * times)]
        found = {way[1:] for way in ways if way[-1] == goal}
    else:
        few, *listed, total = n
        found = [chosen for chosen in itertools.product(listed, repeat=few) if sum(chosen) == total]
        found = [c for c in found if [listed.index(x) for x in c] == sorted({listed.index(x) for x in c})]
    return [", ".join(map(str, answer)) for answer in found]


def test_answers_of_searches_are_the_only_ones_by_brute_force(searches):
    for example in searches:
        assert brute_force(example.subject, example.question) == [example.answer], example


def test_questions_of_searches_are_read_back(searches):
    for example in searches:
        family = FAMILIES[example.subject]
        assert family.pattern.fullmatch(example.question), example.question
        assert family.ask(family.read(example.question)) == example.question


def test_a_level_has_a_wider_or_deeper_search(searches):
    """By the guesses that a question of it has, each of so many steps."""
    for name, family in FAMILIES.items():
        widths = [
            sum(len(family.guesses(family.read(e.question))) for e in searches if (e.subject, e.level) == (name, level))
            for level in range(1, LEVELS + 1)
        ]
        assert widths == sorted(widths), (name, widths)
        assert widths[-1] > 2 * widths[0], (name, widths)


def test_attempts_that_fail_are_true_in_every_line_but_the_last(searches):
    for example in searches:
        drafts = failing(example, 3, random.Random(example.id))
        assert drafts
        for draft in drafts:
            *truths, last = check_steps(example, list(draft.lines))
            assert all(truths), (example.question, draft)
            assert not last
            assert draft.lines[-2].endswith(" no")
            assert 0 < draft.commits < len(draft.lines)
            answer = draft.lines[-1].removeprefix("Answer: ")
            assert answer not in brute_force(example.subject, example.question)
        assert len({draft.lines for draft in drafts}) == len(drafts), "the same attempt twice"


def test_attempts_at_a_pair_go_where_those_before_point(searches):
    for example in (e for e in searches if e.subject == "pair"):
        low, high = 0, 99
        for draft in failing(example, 4, random.Random(0)):
            guess = numbers(draft.lines[0])[0]
            assert low < guess < high, "an attempt that the ones before ruled out"
            reached, wanted = numbers(draft.lines[-2])
            low, high = (guess, high) if reached < wanted else (low, guess)


def test_attempts_at_coins_go_where_those_before_point(searches):
    for example in (e for e in searches if e.subject == "coins"):
        _, first, second, *_ = numbers(example.question)
        low, high = -1, 99
        for draft in failing(example, 4, random.Random(0)):
            guess = numbers(draft.lines[0])[0]
            assert low < guess < high, "an attempt that the ones before ruled out"
            reached, wanted = numbers(draft.lines[-2])
            low, high = (guess, high) if (reached < wanted) == (first > second) else (low, guess)


def test_attempts_at_a_residue_go_through_the_list_up_to_the_one_that_fits(searches):
    for example in (e for e in searches if e.subject == "residue"):
        *listed, _, _ = numbers(example.question)
        tried = [numbers(draft.lines[0])[0] for draft in failing(example, 3, random.Random(0))]
        at = listed.index(int(example.answer))
        before = [listed[(at - k) % len(listed)] for k in range(min(3, len(listed) - 1), 0, -1)]
        assert tried == before, example


def test_attempts_at_a_derivation_have_one_slip_and_what_follows_from_it(examples):
    assert [name for name in SUBJECTS if attempts_inform(name)] == list(FAMILIES)
    derived = [example for example in examples if example.subject in TEMPLATES]
    for example in derived:
        for draft in failing(example, 2, random.Random(example.id)):
            assert draft.commits == len(draft.lines), "lines to learn from"
            *steps, last = draft.lines
            assert last != f"Answer: {example.answer}"
            assert check_steps(example, list(draft.lines))[-1] is False
            parsed = [found for step in steps if (found := parse_step(step)) is not None]
            assert len(parsed) == len(steps)
            assert sum(computed != stated for computed, stated, _ in parsed) == 1, draft
            assert numbers(last)[: len(steps)] == [stated for _, stated, _ in parsed]
    assert sum(len(failing(example, 2, random.Random(0))) for example in derived) > 1.9 * len(derived)


def test_without_check_lines_a_solution_is_its_guess():
    for example in generate("train", 60, 0, ["search"], check_lines=False):
        family = FAMILIES[example.subject]
        guess = family.attempt(family.read(example.question), family.right(family.read(example.question)))
        assert example.solution.split("\n") == [*guess.commits, guess.answer_line]
        assert all(check_steps(example, example.solution.split("\n")))
        for draft in failing(example, 2, random.Random(0)):
            assert draft.commits == len(draft.lines) - 1
            assert check_steps(example, list(draft.lines)) == [True] * draft.commits + [False]


def stripped(example):
    """A question without its letters: what is left are its subject, numbers and signs."""
    return example.subject, " ".join(re.findall(r"\d+|[^\sA-Za-z]", example.question))


@functools.cache
def stripped_training():
    return {stripped(e) for e in generate("train", 6000, seed=0)}


@pytest.mark.parametrize("seed", [0, 5])
def test_no_test_question_is_one_of_training_but_for_names(seed):
    """By text alone 54.5% of the first edition's were."""
    held = [*generate("test", 260, seed=seed), *generate("valid", 260, seed=seed)]
    forms = [stripped(e) for e in held]
    assert not stripped_training() & set(forms)
    assert len(set(forms)) == len(forms), "a question comes twice but for names"
    # The measure sees what there is to see: other seeds of the training split have the same questions.
    again = [stripped(e) for e in generate("train", 1300, seed=seed + 1)]
    assert sum(form in stripped_training() for form in again) > 65


def test_there_are_a_thousand_test_questions_of_equal_shares():
    found = list(generate("test", 1040, seed=3))
    assert set(Counter((e.subject, e.level) for e in found).values()) == {16}


def test_subjects_and_levels_come_in_equal_shares(examples):
    assert len(SUBJECTS) == 13
    counts = Counter((e.subject, e.level) for e in examples)
    assert set(counts.values()) == {len(examples) // (len(SUBJECTS) * LEVELS)}


def test_families_are_the_subjects_that_are_drawn():
    assert {e.subject for e in generate("train", 60, 0, ["derivations"])} == set(TEMPLATES)
    assert [e.subject for e in generate("train", 4, 0, ["doors", "algebra"])] == ["doors", "algebra"] * 2
    with pytest.raises(ConfigError, match=r"data\.families holds 'calculus', which is none of algebra, coins"):
        DataConfig(families=("calculus",))
    with pytest.raises(ConfigError, match=r"data\.families"):
        DataConfig(families=())


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
    found = next(
        e
        for e in generate("train", 400, seed=1, families=["precalculus"])
        if "dot product" in e.question and e.level == 2
    )
    return dataclasses.replace(
        found,
        question="Find the dot product of (2, 5) and (4, 3).",
        solution="2*4=8\n5*3=15\n8+15=23\nAnswer: 8, 15, 23",
        answer="8, 15, 23",
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
        ("Answer: 8, 15, 23", True),
        ("Answer: 8, 15, 24", False),
        ("Answer: 23", False),
        ("Answer: 8, 15, 23 ", True),
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


def test_wrong_results_are_false(examples):
    """Changing the stated result of any step makes it false."""
    for example in examples[:400]:
        lines = example.solution.split("\n")
        for i, line in enumerate(lines[:-1]):
            head, sign, value = line.rpartition("=")
            if sign and value.isdigit():
                changed = [*lines[:i], f"{head}={int(value) + 1}"]
                assert check_steps(example, changed)[i] is False, changed


SEARCH = {
    "pair": "Two numbers add up to 23, their product and 7 make 127. Which are they, the smaller first?",
    "residue": "Which of 13, 18, 22 and 41 leaves 4 by 7?",
    "coins": "7 coins, 3s and 5s, are worth 29. How many 3s and 5s?",
    "doors": "Doors lead 3-9 9-8 3-5 5-7: from 3 to 7?",
    "reach": "From 3 reach 22 in 3 moves, +5 or *2. Which numbers are on the way?",
    "subset": "Which 3 of 2, 5, 9, 14 add up to 25, in this order?",
}


@pytest.mark.parametrize(
    ("subject", "text", "truths"),
    [
        ("pair", "try 8/23-8=15/8*15=120/120+7=127/127=127 yes/Answer: 8, 15", "TTTTTT"),
        ("pair", "try 10/23-10=13/10*13=130/130+7=137/137>127 no/Answer: 10, 13", "TTTTTF"),
        ("pair", "try 10/23-10=13/10*13=120/120+7=127/127=127 yes/Answer: 10, 13", "TTFFFF"),  # the product is 130
        ("pair", "try 8/23-8=15/8*15=120/120+7=127/127<127 no/Answer: 8, 15", "TTTTFT"),
        ("pair", "try 40/Answer: 40, 15", "FF"),  # more than both numbers
        ("pair", "23-8=15/try 8/23-8=15/try 9/23-9=14", "FTTFF"),  # no guess yet; a second one
        ("residue", "try 18/18 mod 7=4/4=4 yes/Answer: 18", "TTTT"),
        ("residue", "try 13/13 mod 7=4/4=4 yes/Answer: 13", "TFFF"),
        ("residue", "try 25/25 mod 7=4", "FF"),  # not listed
        ("coins", "try 3/7-3=4/3*3=9/4*5=20/9+20=29/29=29 yes/Answer: 3, 4", "TTTTTTT"),
        ("coins", "try 2/7-2=5/2*3=6/5*5=25/6+25=31/31>29 no/Answer: 2, 5", "TTTTTTF"),
        ("coins", "try 2/7-2=5/2*3=6/5*5=25/6+25=31/29=29 yes/Answer: 3, 4", "TTTTTFT"),  # right by luck
        ("doors", "3-5/5-7/7=7 yes/Answer: 5, 7", "TTTT"),
        ("doors", "3-9/9-8/8>7 no/Answer: 9, 8", "TTTF"),
        ("doors", "3-9/9-7/7=7 yes/Answer: 9, 7", "TFTF"),  # no such door
        ("doors", "5-7/7=7 yes", "FT"),  # not from where one stands
        ("reach", "3*2=6/6+5=11/11*2=22/22=22 yes/Answer: 6, 11, 22", "TTTTT"),
        ("reach", "3+5=8/8+5=13/13+5=18/18<22 no/Answer: 8, 13, 18", "TTTTF"),
        ("reach", "3+5=8/8=22 yes/8*3=24/3*2=6", "TFFF"),  # too early; times 3; from elsewhere
        ("reach", "3+5=8/8+5=13/13+5=18/18+5=23", "TTTF"),  # a move too many
        ("subset", "2+9=11/11+14=25/25=25 yes/Answer: 2, 9, 14", "TTTT"),
        ("subset", "2+5=7/7+9=16/16<25 no/Answer: 2, 5, 9", "TTTF"),
        ("subset", "2+2=4/4+9=13", "FT"),  # a number twice
        ("subset", "2+6=8/8+5=13/13+5=18", "FTF"),  # one that is not listed; one number twice
        ("doors", "__import__('os')/" + "3-5" * 5000 + "//=", "FFFF"),
    ],
)
def test_truth_of_steps_of_searches(examples, subject, text, truths):
    question = SEARCH[subject]
    [answer] = brute_force(subject, question)
    example = dataclasses.replace(examples[0], subject=subject, question=question, answer=answer, solution="")
    assert "".join("FT"[truth] for truth in check_steps(example, text.split("/"))) == truths


def test_step_arithmetic_is_exact_and_has_usual_precedence():
    assert parse_step("2+3*4-10/4=1") == (Fraction(23, 2), Fraction(1), [2, 3, 4, 10, 4])
    assert parse_step("-(2-5)*3=9") == (Fraction(9), Fraction(9), [2, 5, 3])
    assert parse_step("17 mod 5=2") == (Fraction(2), Fraction(2), [17, 5])


def test_no_step_leaves_the_range_of_small_numbers(examples):
    for example in (e for e in examples if e.subject in TEMPLATES):
        for line in example.solution.split("\n")[:-1]:
            assert 0 <= int(line.rpartition("=")[2]) <= MAX_VALUE, line
