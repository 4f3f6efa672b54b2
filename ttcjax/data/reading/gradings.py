"""Ways to read and compare answers, by the name that `data.grading` gives."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ttcjax.config import ConfigError, Convention
from ttcjax.text.grading import (
    answer_key,
    canonical,
    extract_answer,
    extract_hash_number,
    grade,
    grade_exact,
    parse_quantity,
)


@dataclass(frozen=True)
class Grading:
    """One way to read and compare answers."""

    extract: Callable[[str], str | None]
    """Solution text to final answer; `None` where no answer can be read."""
    grade: Callable[[str | None, str], bool]
    """(answer, reference answer) to whether they agree; `None` never does."""
    reference: Callable[[str], str | None]
    """Text of a reference to the answer that is kept; `None` where it is none of this kind."""


def _number(text: str) -> str | None:
    value = parse_quantity(canonical(text), words=True)
    return None if value is None else str(value)


def _extract_number(text: str) -> str | None:
    found = extract_hash_number(text)
    if found is None and (stated := extract_answer(text)) is not None:
        found = _number(stated)
    return found


_CHOICE = re.compile(r"(?:\\[a-z]+\s*\{)?\s*\(?\s*([A-Za-z])\s*\)?\s*\}?(?:[.:,)\\\s].*)?", re.DOTALL)


def _letter(text: str) -> str | None:
    found = _CHOICE.fullmatch(canonical(text))
    return found[1].upper() if found else None


def _grade_choice(answer: str | None, gold: str) -> bool:
    """Return whether the letters are the same where the reference is one, and the answers otherwise."""
    if answer is None:
        return False
    if re.fullmatch("[A-Z]", gold):
        return _letter(answer) == gold
    return grade(answer, gold)


def _choice(text: str) -> str | None:
    return _letter(text) or canonical(text) or None


def _text(text: str) -> str | None:
    return canonical(text) or None


def _math(convention: Convention) -> Grading:
    def extract(text: str) -> str | None:
        found = extract_answer(text)
        # All spellings of an answer are one vote. The key of a percentage that may be two numbers is one of them.
        if found is None or ("%" in found and convention.percent == "either"):
            return found
        return answer_key(found, convention)

    return Grading(extract, functools.partial(grade, convention=convention), _text)


NUMBER = Grading(_extract_number, grade_exact, _number)
EXACT = Grading(extract_answer, grade_exact, _text)
CHOICE = Grading(extract_answer, _grade_choice, _choice)
MATH = _math(Convention())
_NAMED = {"math": MATH, "number": NUMBER, "exact": EXACT, "choice": CHOICE}


@functools.cache
def named(name: str) -> Grading:
    """Return the grading of a name such as `number` or `math:percent=number,decimals=3`.

    `math` compares values (`ttcjax.text.grading.grade`), `number` reads every answer as one number, `exact` compares
    texts in canonical form, `choice` the letters where the reference is a letter.

    Raises:
        ConfigError: There is none of that name, or a setting of `Convention` is unknown or has no such value.
    """
    kind, _, settings = name.partition(":")
    if kind not in _NAMED:
        raise ConfigError(f"data.grading must be one of {', '.join(_NAMED)}, not {name!r}")
    if not settings:
        return _NAMED[kind]
    if kind != "math":
        raise ConfigError(f"data.grading {kind} has no settings, and {name!r} gives it some; math has")
    hints, values = typing.get_type_hints(Convention), {}
    for setting in settings.split(","):
        key, _, text = (part.strip() for part in setting.partition("="))
        if key not in hints:
            raise ConfigError(f"data.grading has no setting {key!r}; those of math are {', '.join(hints)}")
        values[key] = _value(key, text, hints[key])
    convention = Convention(**values)
    if not convention.ignore_units:
        raise ConfigError("data.grading: ignore_units must be True, since references are kept without their units")
    return _math(convention)


def _value(key: str, text: str, hint: Any) -> Any:
    allowed = typing.get_args(hint) or ("True", "False")
    if hint is int and re.fullmatch(r"\d{1,4}", text):
        return int(text)
    if hint is int or text not in allowed:
        due = "a whole number" if hint is int else f"one of {', '.join(allowed)}"
        raise ConfigError(f"data.grading: {key} must be {due}, not {text!r}")
    return text == "True" if hint is bool else text
