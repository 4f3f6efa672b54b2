"""Exact truth of solution steps, by a small parser of its own: model text is never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from ttcjax.data.procmath.search import FAMILIES
from ttcjax.data.task import Example
from ttcjax.text.grading import extract_answer_line

MAX_STEP_CHARS = 200
"""A longer step is false: no true step of this domain comes near it."""
MAX_DIGITS = 12
_MAX_DEPTH = 20
_ANSWER = "Answer:"
_TOKEN = re.compile(r"\s*(\d+|mod\b|[-+*/()])")
_LABEL = re.compile(r"^[A-Za-z][A-Za-z ]*:\s*")


class _Invalid(Exception):
    """The text is no expression of this domain."""


def _tokenize(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(match.group(1)) > MAX_DIGITS:
            raise _Invalid
        tokens.append(match.group(1))
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent over `+ -`, then `* / mod`, then signs, numbers and parentheses."""

    def __init__(self, text: str):
        self.tokens = _tokenize(text)
        self.at = 0
        self.numbers: list[int] = []

    def peek(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise _Invalid
        self.at += 1
        return token

    def parse(self) -> Fraction:
        value = self.sum(0)
        if self.peek() is not None:
            raise _Invalid
        return value

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value += sign * self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.atom(depth)
        while self.peek() in ("*", "/", "mod"):
            op = self.take()
            right = self.atom(depth)
            if op == "*":
                value *= right
            elif right == 0:
                raise _Invalid
            elif op == "/":
                value /= right
            else:
                value %= right
        return value

    def atom(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise _Invalid
        token = self.take()
        if token == "-":
            return -self.atom(depth + 1)
        if token == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise _Invalid
            return value
        if not token.isdigit():
            raise _Invalid
        self.numbers.append(int(token))
        return Fraction(int(token))


def parse_step(step: str) -> tuple[Fraction, Fraction, list[int]] | None:
    """Read a step `[label:] expression = value`.

    Returns:
        The exact value of the expression, the stated value, and the numbers in the expression; `None` where
        the text is no such step.
    """
    if len(step) > MAX_STEP_CHARS:
        return None
    left, equals, right = _LABEL.sub("", step, count=1).rpartition("=")
    if not equals:
        return None
    try:
        expression, stated = _Parser(left), _Parser(right)
        computed, value = expression.parse(), stated.parse()
    except _Invalid:
        return None
    if len(stated.numbers) != 1:
        return None
    return computed, value, expression.numbers


def check_steps(example: Example, steps: Sequence[str]) -> list[bool]:
    """Say of each candidate step whether it is true for this question.

    Of a derivation, a step `expression = value` is true when its arithmetic is exact, the numbers it uses stand in the
    question or in the reference derivation, and the value is a quantity of that derivation. So steps may come in
    another order, commuted or merged, but a correct sum that the question has no use for is false.

    Of a search, where attempts differ, a step is true when the question allows it and it follows from the steps before
    it (`Family.check`): the reference decides nothing. A guess is true where it may be tried, right or not.

    The answer line is true when it states the reference answer.
    """
    family = FAMILIES.get(example.subject)
    if family is None:
        truths = _check_derivation(example, steps)
    else:
        # Answer lines take no part in an attempt.
        own = [step for step in steps if not step.startswith(_ANSWER)]
        found = iter(family.check(family.read(example.question), own))
        truths = [step.startswith(_ANSWER) or (next(found) and len(step) <= MAX_STEP_CHARS) for step in steps]
    return [
        extract_answer_line(step) == example.answer if step.startswith(_ANSWER) else truth
        for step, truth in zip(steps, truths, strict=True)
    ]


def _check_derivation(example: Example, steps: Sequence[str]) -> list[bool]:
    given = {int(n) for n in re.findall(r"\d+", example.question)}
    values: set[Fraction] = set()
    for line in example.solution.split("\n")[:-1]:
        parsed = parse_step(line)
        if parsed is None:
            raise ValueError(f"reference solution of {example.id} has a step that cannot be read: {line!r}")
        values.add(parsed[1])
        given.update(parsed[2])
    given.update(int(v) for v in values if v.denominator == 1)

    def true(step: str) -> bool:
        parsed = parse_step(step)
        if parsed is None:
            return False
        computed, value, numbers = parsed
        return computed == value and value in values and all(n in given for n in numbers)

    return [true(step) for step in steps]
