"""Answers cut into numbers, words, commands and signs."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

from ttcjax.text.grading.quantities import MAX_EXPONENT
from ttcjax.text.grading.spelling import closing

Node = tuple[Any, ...]
"""A tree of an answer; `answer_parser` lists its kinds."""

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<num>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4}(?![\w.]))?)"
    r"|(?P<text>\\text\s*(?=\{))|(?P<begin>\\begin\s*\{(\w+)\*?\}(?:\s*\{[lcr|\s]*\})?)|(?P<end>\\end\s*\{(\w+)\*?\})"
    r"|(?P<cmd>\\(?:[a-zA-Z]+|[^a-zA-Z]))|(?P<word>[A-Za-z]+)|(?P<op><=|>=|!=|==|:=|\*\*|\.\.+|.)",
    re.DOTALL,
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*\\overline\s*\{\s*(\d+)\s*\}")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,]*\d)(?:\.\d+)?|[1-9]\d{0,2}(?: \d{3})+(?!\d)(?:\.\d+)?")
_COMMA = re.compile(r"\d+,\d+(?![\d,])")


class Unreadable(Exception):
    """Text that is no mathematics of this grammar."""


class Token(NamedTuple):
    """A piece of an answer: `num`, `text`, `begin`, `end`, `cmd` (without its backslash), `word` or `op`."""

    kind: str
    value: Any
    spaced: bool
    """Whether a space stands before it."""


def _repeating(match: re.Match[str]) -> str:
    whole, begin, period = match.groups()
    value = Fraction(f"{whole or 0}.{begin or 0}") + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(begin))
    return f"({value})"


def tokens(text: str, grouped: bool, comma: bool) -> list[Token]:
    """Return the tokens of a text; `answer_parser.read` tells the arguments.

    Raises:
        Unreadable: Braces do not close, or an exponent is out of bounds.
    """
    text = _REPEATING.sub(_repeating, text)
    found: list[Token] = []
    at, spaced, depth = 0, False, 0
    while at < len(text):
        if text[at].isdigit() and (at == 0 or text[at - 1] not in ".0123456789"):
            special = (grouped and not depth and _GROUPED.match(text, at)) or (comma and _COMMA.match(text, at))
            if special:
                digits = special[0].replace(" ", "")
                digits = (
                    digits.replace(",", ".") if comma and not _GROUPED.fullmatch(digits) else digits.replace(",", "")
                )
                found.append(Token("num", number(digits), spaced))
                at, spaced = special.end(), False
                continue
        match = _TOKEN.match(text, at)
        assert match is not None
        assert match.lastgroup is not None
        kind, at = match.lastgroup, match.end()
        if kind == "space":
            spaced = True
            continue
        value: Any = match[0]
        if kind == "num":
            value = number(value)
        elif kind == "text":
            end = closing(text, at)
            if end is None:
                raise Unreadable(text)
            value, at = text[at + 1 : end - 1], end
        elif kind in ("begin", "end"):
            value = re.findall(r"\{(\w+)", value)[0]
        elif kind == "cmd":
            value = value[1:]
        elif value in ("(", "["):
            depth += 1
        elif value in (")", "]"):
            depth -= 1
        found.append(Token(kind, value, spaced))
        spaced = False
    return found


def number(digits: str) -> Node:
    """Return the tree of a numeral.

    Raises:
        Unreadable: Its exponent is out of bounds.
    """
    mantissa, _, exponent = digits.lower().partition("e")
    if exponent:
        if abs(int(exponent)) > MAX_EXPONENT:
            raise Unreadable(digits)
        return ("num", Fraction(mantissa) * Fraction(10) ** int(exponent), None)
    places = len(mantissa.partition(".")[2]) or None
    return ("num", Fraction(mantissa), places)
