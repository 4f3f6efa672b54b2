r"""Answers read as mathematics: a small grammar of LaTeX and of plain typing, from text to a tree.

Nothing here computes, and nothing is evaluated. A tree is a tuple of a kind and its parts, one of

* `("num", Fraction, places)`: places of a decimal, `None` where it is written as an integer;
* `("var", name)`, `("const", "pi" | "e" | "i" | "inf")`, `("call", name, *arguments)`, `("text", words)`;
* `("add", *terms)`, `("neg", x)`, `("mul", *factors)`, `("div", a, b)`, `("pow", a, b)`, `("fact", x)`;
* `("pct", x)`, `("deg", x)`, `("unit", x, words)`, `("base", digits, base)`, `("ratio", *parts)`, `("time", *parts)`;
* `("seq", open, close, *items)`, `("set", *items)`, `("list", *items)`, `("union", *sets)`, `("minus", a, b)`;
* `("matrix", rows)`, `("rel", sides, signs)`, `("in", x, set)`.
"""

from __future__ import annotations

import re

from ttcjax.text.grading.algebra.expression_parser import AND, ExpressionReader
from ttcjax.text.grading.algebra.latex_tokens import Node, Token, Unreadable, tokens
from ttcjax.text.grading.quantities import MAX_ANSWER_CHARS, SHORT_UNITS, is_prose

_RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "le": "<=", "ge": ">=", "ne": "!=",
    "!=": "!=", "approx": "~", "equiv": "=", "cong": "=", "doteq": "~", "simeq": "~",
}  # fmt: skip
_OPENERS = {"(": ")", "[": "]", "langle": "rangle", "{": "}"}
_NUMBER_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip

_TIME = re.compile(r"(\d{1,2})(?:\s*:\s*(\d\d))?(?:\s*:\s*(\d\d))?\s*(?:\\text\s*\{)?\s*([AaPp])\.?\s?[Mm]\.?\s*\}?\.?")
_TIME_TEXT = re.compile(r"\\text\s*\{\s*(\d{1,2}\s*:\s*\d\d[^{}]*)\}")
_BASE = re.compile(
    r"(?:\\(?:text|mathrm)\s*\{)?\(?([0-9][0-9A-Fa-f]*|[A-Fa-f][0-9A-Fa-f]*[0-9][0-9A-Fa-f]*)\)?\}?\s*"
    r"_\s*\{?\s*(?:\\(?:text|mathrm)\s*\{)?\s*(\d{1,2}|[a-z]+)\s*\}?\s*\}?"
)


_UNIT_WORDS = SHORT_UNITS | {"g", "m", "s", "h", "L", "l", "C", "F", "N", "J", "W", "V", "A", "K", "Hz"}


def read(text: str, *, grouped: bool = True, comma: bool = False) -> Node:
    """Return the tree of an answer that `spelling.plain` has brought to one spelling.

    Args:
        text: The answer.
        grouped: Whether `1,234` and `1 234` are one number.
        comma: Whether `1,5` is a decimal.

    Raises:
        Unreadable: The text as a whole is no mathematics of this grammar.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable("too long")
    if match := _TIME_TEXT.fullmatch(text):
        text = match[1]
    if match := _TIME.fullmatch(text):
        return ("time", *(int(part) for part in match.groups()[:3] if part), match[4].lower())
    if (match := _BASE.fullmatch(text)) and (match[2].isdigit() or match[2] in _NUMBER_WORDS):
        return ("base", match[1].upper(), _NUMBER_WORDS.get(match[2]) or int(match[2]))
    reader = _AnswerReader(tokens(text, grouped, comma))
    try:
        items = reader.items(())
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    if reader.more():
        raise Unreadable(text)
    return items[0] if len(items) == 1 else ("list", *items)


def _has_number(node: Node) -> bool:
    if node[0] == "num" or node == ("const", "pi"):
        return True
    return any(_has_number(part) for part in node[1:] if isinstance(part, tuple) and part)


class _AnswerReader(ExpressionReader):
    """A parser of lists, relations and sets of expressions."""

    def items(self, ends: tuple[str, ...], spread: bool = True) -> list[Node]:
        """Return what stands between separators, up to one of `ends` or the end of the text.

        With `spread`, an item with a plus-minus sign is two items.
        """
        found: list[Node] = []
        while True:
            if not self.more() or self.is_op(*ends):
                if found or not self.more():
                    break
                return []
            start, sign, split = self.at, self.sign, self.split
            if spread:
                self.sign, self.split = 1, False
            found.append(self.relation())
            if spread and self.split:
                end, self.at, self.sign = self.at, start, -1
                found.append(self.relation())
                assert self.at == end
            if spread:
                self.sign, self.split = sign, split
            if not self.separator():
                break
        if not found:
            raise Unreadable("nothing")
        return found

    def separator(self) -> bool:
        seen = False
        while True:
            token = self.peek()
            word = token.kind in ("word", "text") and AND.fullmatch(token.value)
            if word or self.is_op(",", ";") or (seen and self.is_op("&")):
                self.take()
                seen = True
            else:
                return seen and self.more()

    def relation(self) -> Node:
        self.label()
        if self.is_op("approx"):
            self.take()
        sides, signs = [self.union()], []
        while self.more():
            token = self.peek()
            if self.is_op(*_RELATIONS):
                sign = _RELATIONS[self.take().value]
                if sign in "<>" and self.is_op("="):
                    self.take()
                    sign += "="
                signs.append(sign)
                sides.append(self.union())
            elif self.is_op("in") or (token.kind == "word" and token.value == "in" and len(sides) == 1):
                if token.kind == "word" and not self._opens(1):
                    break
                self.take()
                return ("in", sides[-1], self.union())
            elif self.is_op(":") and not signs:
                parts = sides
                while self.is_op(":"):
                    self.take()
                    parts.append(self.sum())
                return self.units(("ratio", *parts))
            elif self.is_op("Rightarrow", "implies", "to") and signs:
                self.take()
                return self.relation()
            else:
                break
        return ("rel", tuple(sides), tuple(signs)) if signs else sides[0]

    def label(self) -> None:
        """Pass over words before an equals sign, as in `Area = 5`."""
        at = self.at
        while self.peek().kind == "text" or (self.peek().kind == "word" and len(self.peek().value) > 3):
            self.take()
        if self.at == at or not self.is_op("=", ":") or (self.is_op(":") and self.peek(1).kind == ""):
            self.at = at
        else:
            self.take()

    def union(self) -> Node:
        parts = [self.units(self.sum())]
        while True:
            letter = self.peek().kind == "word" and self.peek().value in ("U", "u") and self._opens(1)
            if self.is_op("cup") or (letter and parts[-1][0] in ("seq", "set")):
                self.take()
                parts.append(self.units(self.sum()))
            elif self.is_op("setminus", "backslash") or (parts[-1][0] == "var" and self.is_op("-") and self._opens(1)):
                self.take()
                left = parts[0] if len(parts) == 1 else ("union", *parts)
                parts = [("minus", left, self.units(self.sum()))]
            else:
                return parts[0] if len(parts) == 1 else ("union", *parts)

    def units(self, node: Node) -> Node:
        """Return what was read with the unit or prose that follows it, up to a separator."""
        words: list[str] = []
        after, marked = "", False
        while self.more():
            token = self.peek()
            if token.kind in ("word", "text") and not AND.fullmatch(token.value):
                if token.kind == "word" and token.value in ("in", "U") and self._opens(1):
                    break
                self.take()
                marked |= token.kind == "text"
                words.append(("" if words and not token.spaced and after != "/" else " ") + self._words(token))
                after = ""
                if self.is_op("^", "**"):
                    self.take()
                    words.append(f"^{self.exponent()[1]}")
            elif words and self.is_op("/") and self.peek(1).kind in ("word", "text"):
                self.take()
                after = "/"
                words.append(" per")
            elif self.is_op("$") or (self.is_op("%") and words):
                self.take()
            else:
                break
        unit = " ".join("".join(words).split())
        if not unit:
            return node
        if not marked and not _has_number(node):
            raise Unreadable(unit)
        if (node[0] not in ("num", "text") or not unit.isascii()) and re.search(r"[^\w\s.,'()/^-]", unit):
            raise Unreadable(unit)
        plain = re.sub(r"\^\d|\bper\b", " ", unit).strip()
        if not is_prose(f" {plain}".rstrip(), money=False) and plain not in _UNIT_WORDS:
            raise Unreadable(unit)
        return ("unit", node, unit)

    @staticmethod
    def _words(token: Token) -> str:
        return token.value if token.kind == "word" else re.sub(r"\\[a-z]+|[{}]", " ", token.value).replace("/", " per ")

    def bracket(self, opener: str) -> Node:
        bars, self.bars = self.bars, 0
        ends = (")", "]", "rangle")
        items = self.items(ends, spread=False)
        closer = self.expect(*ends)
        self.bars = bars
        if len(items) == 1 and items[0][0] != "text":
            if _OPENERS[opener] != closer:
                raise Unreadable("a bracket that does not close")
            return items[0] if items[0][0] not in ("rel", "in") else ("seq", opener, closer, *items)
        if opener == "langle":
            opener, closer = "(", ")" if closer == "rangle" else "?"
        return ("seq", opener, closer, *items)

    def braces(self, is_set: bool) -> Node:
        bars, self.bars = self.bars, 0
        items = self.items(("}",))
        self.expect("}")
        self.bars = bars
        if is_set or len(items) != 1:
            return ("set", *items)
        return items[0]

    def arguments(self) -> list[Node]:
        self.expect("(")
        found = self.items((")",), spread=False)
        self.expect(")")
        return found
