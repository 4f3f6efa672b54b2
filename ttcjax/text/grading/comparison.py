r"""Two answers compared: as text, by exact arithmetic, by values to many digits.

Each function says `True` or `False` where it is sure and `None` where it is not; `grade` (`grading.worker`) then asks a
computer algebra system.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from ttcjax.config.convention import MATH, Convention
from ttcjax.text.grading.algebra import numeric
from ttcjax.text.grading.algebra.answer_parser import read
from ttcjax.text.grading.algebra.exact import Form, Unsupported, form, is_zero
from ttcjax.text.grading.algebra.latex_tokens import Node, Unreadable
from ttcjax.text.grading.quantities import MAX_ANSWER_CHARS, word_set
from ttcjax.text.grading.relations import (
    Piece,
    differences,
    has_relations,
    intervals,
    merged,
    same_difference,
    solutions,
)
from ttcjax.text.grading.spelling import plain
from ttcjax.text.grading.wording import meant, same_words, squashed, words

_MOST_ITEMS = 60
"""Longer lists are not compared in every order."""
_LARGE_DIGITS = 9

_NOTATION = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|limsup|liminf|pmod|bmod|mod|cap|mid|begin|nabla|partial|det)(?![a-z])"
)
_SQUARE_METRES = re.compile(r"(-?\d[\d,.]*)\s?m\s?\^\s?\{?[23]\}?")
SCALARS = word_set("num var const add neg mul div pow fact call pct base")
_UNIT_KINDS = ("unit", "deg")


def compare(answer: str, gold: str, convention: Convention = MATH) -> bool | None:
    """Return whether two answers are the same; `None` where neither text, exact forms nor values tell."""
    answer, gold = plain(answer), plain(gold)
    if not answer or not gold:
        return False
    answer, gold = meant(answer), meant(gold)
    if squashed(answer) == squashed(gold):
        return True
    if same_words(answer, gold, convention):
        return True
    answers, golds = readings(answer, convention), readings(gold, convention)
    if not answers or not golds:
        return _unread(answer, gold, bool(answers), bool(golds))
    try:
        verdicts = [same(a, g, convention) for a, g in itertools.product(answers, golds)]
    except RecursionError:
        return False
    return True if True in verdicts else None if None in verdicts else False


def readings(text: str, convention: Convention = MATH) -> list[Node]:
    """Return the trees that an answer may mean; commas between digits may separate items, thousands or decimals."""
    if len(text) > MAX_ANSWER_CHARS:
        return []
    ways = [(True, False)]
    if re.search(r"\d[, ]\d{3}(?!\d)", text):
        ways.append((False, False))
    if (
        convention.decimal_comma
        and re.fullmatch(r"-?\d+,\d+\D*", text)
        and not re.fullmatch(r"-?[1-9]\d*,\d{3}\D*", text)
    ):
        ways.append((False, True))
    found: list[Node] = []
    if match := _SQUARE_METRES.fullmatch(text):
        found += readings(match[1], convention)
    for grouped, comma in ways:
        try:
            node = read(text, grouped=grouped, comma=comma)
        except Unreadable:
            continue
        if node not in found:
            found.append(node)
    return found


def _unread(answer: str, gold: str, answer_read: bool, gold_read: bool) -> bool | None:
    """Return the verdict where one of two texts, or both, are no mathematics that is read here."""
    unread = [text for text, was_read in ((answer, answer_read), (gold, gold_read)) if not was_read]
    return None if all(map(_NOTATION.search, unread)) else False


# Trees.


def same(answer: Node, gold: Node, convention: Convention = MATH) -> bool | None:
    """Return whether two trees are the same answer; `None` where that is not known."""
    if not convention.ignore_units:
        units = [_unit(node) for node in (answer, gold)]
        if units[0] != units[1]:
            return False
    a, g = bare(answer, convention), bare(gold, convention)
    a, g = _unlabelled(a, g, convention)
    if a[0] == g[0] == "text" or {a[0], g[0]} == {"text", "var"}:
        return words(str(a[1]), convention) == words(str(g[1]), convention)
    if "text" in (a[0], g[0]):
        return _in_text(a, g, convention)
    if "time" in (a[0], g[0]) or "ratio" in (a[0], g[0]):
        return _same_ratio(a, g, convention)
    left, right = _rows(a), _rows(g)
    if (left is None) != (right is None):
        left, right = left or _nested(a), right or _nested(g)
    if left is not None or right is not None:
        return _same_matrix(left, right, a, g, convention)
    if "rel" in (a[0], g[0]) or has_relations(a) or has_relations(g):
        return _same_relation(a, g, convention)
    if (a[0] == "list") != (g[0] == "list"):
        a, g = _alike(a, convention), _alike(g, convention)
    if a[0] in SCALARS and g[0] in SCALARS:
        return _same_number(a, g, convention)
    return _same_collection(a, g, convention)


def bare(node: Node, convention: Convention) -> Node:
    """Return a tree without the unit, degree sign or single-item brackets around it."""
    while True:
        if (
            (node[0] in _UNIT_KINDS and (convention.ignore_units or node[0] == "deg"))
            or (node[0] == "unit" and not convention.ignore_units)
            or (node[0] in ("set", "list", "union") and len(node[1:]) == 1 and node[1][0] != "rel")
        ):
            node = node[1]
        elif node[0] == "list" and len(node[1:]) > 1 and node[-1][0] == "in" and node[-2][0] != "in":
            node = node[:-1]  # `2k\\pi, k \\in \\mathbb{Z}`
        elif node[0] == "in" and convention.ignore_labels:
            node = node[2]
        elif node[0] == "neg" and node[1][0] in _UNIT_KINDS:
            node = ("neg", node[1][1])
        elif node[0] == "rel" and len(node[1]) == 2 and node[2] == ("~",) and not _is_label(node[1][0]):
            node = node[1][0]
        elif node[0] == "rel" and "~" in node[2][1:]:
            end = node[2].index("~", 1)
            node = ("rel", node[1][: end + 1], node[2][:end])
        else:
            return node


def _alike(node: Node, convention: Convention) -> Node:
    """Return the one value of a list that says it twice, `1/2 or 0.5`."""
    if node[0] == "list" and all(item[0] in SCALARS for item in node[1:]) and len(node) == 3:
        return node[1] if _same_number(node[1], node[2], convention) else node
    return node


def _unit(node: Node) -> str:
    return node[2].strip().lower().rstrip("s") if node[0] == "unit" else ""


def _in_text(a: Node, g: Node, convention: Convention) -> bool | None:
    """Return the verdict where one side is marked as text and the other is not: the text may be mathematics."""
    text, other = (a, g) if a[0] == "text" else (g, a)
    inner = readings(plain(text[1]), convention)
    if not inner or inner[0][0] == "text":
        return False
    return same(inner[0], other, convention) if text is a else same(other, inner[0], convention)


def _is_label(node: Node) -> bool:
    """Return whether a side of an equation is what the other side names: a variable, f(x), a segment AB."""
    if node[0] in ("var", "text"):
        return True
    if node[0] == "const":
        return node[1] in ("e", "i")
    if node[0] == "call":
        return node[1] not in ("max", "min", "gcd", "lcm", "binom") and all(
            _is_label(part) or part[0] == "num" for part in node[2:]
        )
    if node[0] == "mul":
        if node[1][0] == "var" and node[1][1].isupper() and node[2][0] in ("var", "num", "seq"):
            return True  # P(x), which reads as a product
        letters = [part[1] for part in node[1:] if part[0] == "var"]
        named = all(name[:1].isupper() or name.startswith("\\angle") or name == "m" for name in letters)
        return named and all(part[0] in ("var", "mul") and _is_label(part) for part in node[1:])
    if node[0] == "seq":
        return all(part[0] == "var" for part in node[3:])
    return False


def labelled(node: Node) -> tuple[Node, Node] | None:
    """Return name and value of `x = 5`; `None` for any other tree."""
    if node[0] != "rel" or set(node[2]) - {"=", "~"} or not _is_label(node[1][0]):
        return None
    return node[1][0], node[1][-1]


def _constant(node: Node) -> bool:
    try:
        return form(node).rational() is not None
    except Unsupported:
        return False


def _unlabelled(a: Node, g: Node, convention: Convention) -> tuple[Node, Node]:
    """Return both trees without labels, where one has them and the other has not, or both have the same."""
    if not convention.ignore_labels:
        return a, g
    a, g = first_label(a), first_label(g)
    left, right = labelled(a), labelled(g)
    if left and right:
        names = {left[0], right[0]}
        function = ("var", "y") in names and any(name[0] == "call" for name in names)
        return (left[1], right[1]) if len(names) == 1 or function else (a, g)
    if left and g[0] != "rel" and not has_relations(g):
        return bare(left[1], convention), g
    if right and a[0] != "rel" and not has_relations(a):
        return a, bare(right[1], convention)
    # `2 + 3 = 5` is 5.
    a, g = (
        node[1][-1] if node[0] == "rel" and set(node[2]) == {"="} and all(map(_constant, node[1])) else node
        for node in (a, g)
    )
    if has_relations(a) != has_relations(g) and a[0] in ("list", "seq", "set") and g[0] in ("list", "seq", "set"):
        a, g = _values(a), _values(g)
    return a, g


def first_label(node: Node) -> Node:
    """Return the list `n = 1, 2, 3` as the list of its values."""
    if node[0] == "list" and (first := labelled(node[1])):
        others = [labelled(item) for item in node[2:]]
        if not any(item[0] == "rel" for item in node[2:]):
            return ("list", first[1], *node[2:])
        if all(other and other[0] == first[0] for other in others):
            return ("list", first[1], *(other[1] for other in others if other))
    return node


def _values(node: Node) -> Node:
    pairs = [labelled(item) for item in node[1:] if isinstance(item, tuple)]
    if node[0] == "list" and all(pairs):
        stems = {str(pair[0][1]).partition("_")[0] if "_" in str(pair[0][1]) else None for pair in pairs if pair}
        if len(stems) == 1 and None not in stems:
            return ("list", *(pair[1] for pair in pairs if pair))  # x_1 and x_2, in any order
        return ("seq", "(", ")", *(pair[1] for pair in pairs if pair))
    return node


# Numbers and expressions.


def _same_number(a: Node, g: Node, convention: Convention) -> bool | None:
    share_a, share_g = _percent(a), _percent(g)
    if share_a is not None and share_g is not None:
        return _same_number(share_a, share_g, convention)
    if share_a is not None or share_g is not None:
        return _same_percent(a, g, convention)
    if "base" in (a[0], g[0]):
        return _same_base(a, g, convention)
    try:
        left, right = form(a), form(g)
        verdict = is_zero(left - right)
    except (Unsupported, RecursionError):
        left = right = None
        verdict = None
    if verdict is None:
        verdict = numeric.agree(a, g)
        if verdict is None and not numeric.has_variables(a, g):
            verdict = False  # one of them has no value
    if verdict or not convention.decimals or not (_has_decimal(a) or _has_decimal(g)):
        return verdict
    return _rounded(a, g, left, right, convention.decimals) or verdict


def _percent(node: Node) -> Node | None:
    if node[0] == "pct":
        return node[1]
    if node[0] == "neg" and (inner := _percent(node[1])) is not None:
        return ("neg", inner)
    return None


def _same_percent(a: Node, g: Node, convention: Convention) -> bool | None:
    share_a, share_g = _percent(a), _percent(g)
    sides = []
    for divisor in {"either": (1, 100), "number": (1,), "share": (100,)}[convention.percent]:
        scale: Callable[[Node], Node] = lambda node, d=divisor: ("div", node, ("num", Fraction(d), None))  # noqa: E731
        left = a if share_a is None else scale(share_a)
        right = g if share_g is None else scale(share_g)
        sides.append(_same_number(left, right, convention))
    return True if True in sides else None if None in sides else False


def _same_base(a: Node, g: Node, convention: Convention) -> bool:
    if a[0] == g[0]:
        return a[2] == g[2] and a[1].lstrip("0") == g[1].lstrip("0")
    based, other = (a, g) if a[0] == "base" else (g, a)
    if other[0] != "num" or other[1].denominator != 1:
        return False
    same_digits = based[1].lstrip("0") == str(other[1])
    return same_digits and (based[2] == 10 or convention.bare_base)


def _has_decimal(node: Node) -> bool:
    if node[0] == "num":
        return node[2] is not None
    return any(_has_decimal(part) for part in node[1:] if isinstance(part, tuple) and part)


def _rounded(a: Node, g: Node, left: Form | None, right: Form | None, places: int) -> bool:
    """Return whether one side is the other one rounded, as `Convention.decimals` says."""
    long = [_digits(node) >= places for node in (a, g)]
    if not any(long):
        return False
    if left is None or right is None or not _plain_atoms(left) or left.terms.keys() != right.terms.keys():
        values = numeric.value(a), numeric.value(g)
        return None not in values and _near(*values, places)
    pairs = [(c, right.terms[monomial]) for monomial, c in left.terms.items()]
    return all(x == y or (_is_rounding(x, y, long, places) and _near(x, y, places)) for x, y in pairs)


def _digits(node: Node) -> int:
    """Return the most significant digits that a decimal of an expression has."""
    if node[0] == "num":
        return 0 if node[2] is None else len(str(abs(int(node[1] * 10 ** node[2]))))
    return max((_digits(part) for part in node[1:] if isinstance(part, tuple) and part), default=0)


def _plain_atoms(found: Form) -> bool:
    return all(atom.kind == "var" for monomial in found.terms for atom, _ in monomial)


def _is_rounding(x: Fraction, y: Fraction, long: Sequence[bool], places: int) -> bool:
    """Return whether one number has so many digits that it may be the other one rounded, which has more places."""
    more = [(value * 10**places).denominator > 1 for value in (x, y)]
    return (long[0] and more[1]) or (long[1] and more[0])


def _near(x: Any, y: Any, places: int) -> bool:
    size, distance = max(abs(x), abs(y)), abs(x - y)
    if isinstance(size, Fraction):
        unit, large = Fraction(1, 10**places), Fraction(1, 10**_LARGE_DIGITS)
    else:
        unit, large = 10.0**-places, 10.0**-_LARGE_DIGITS
    return bool(distance <= max(min(5 * unit * size, unit / 2), large * size))


def _same_ratio(a: Node, g: Node, convention: Convention) -> bool:
    if a[0] == "ratio" and g[0] == "ratio":
        parts = [[_fraction(part) for part in node[1:]] for node in (a, g)]
        if len(parts[0]) != len(parts[1]):
            return _same_clock(a, g, convention)
        (x, y) = parts
        if None in x or None in y:
            return all(_same_number(p, q, convention) for p, q in zip(a[1:], g[1:], strict=True))
        if x == y:
            return True
        return all(x) and all(y) and len({p / q for p, q in zip(x, y, strict=True) if p and q}) == 1
    return _same_clock(a, g, convention)


def _same_clock(a: Node, g: Node, convention: Convention) -> bool:
    left, right = _clock(a), _clock(g)
    if left is None or right is None:
        return False
    (time, half), (other, other_half) = left, right
    if bool(half) == bool(other_half):
        return time == other
    bare = other if half else time
    # 20:34 is 8:34 p.m., and 8:34 may be either: the half of the day is dropped like a unit.
    either = convention.ignore_units and 3600 <= bare < 13 * 3600
    return time == other or (either and (time - other) % (12 * 3600) == 0)


def _clock(node: Node) -> tuple[int, str] | None:
    """Return a time in seconds, and the half of the day if it is given; `None` for other trees."""
    half = ""
    if node[0] == "time":
        *parts, half = node[1:]
    elif node[0] in ("ratio", "num"):
        numbers = [_fraction(part) for part in (node[1:] if node[0] == "ratio" else (node,))]
        if any(number is None or number.denominator != 1 for number in numbers):
            return None
        parts = [int(number) for number in numbers if number is not None]
    else:
        return None
    if len(parts) > 3 or not 0 <= parts[0] <= 24 or not all(0 <= part < 60 for part in parts[1:]):
        return None
    hours = parts[0] % 12 + (12 if half == "p" else 0) if half else parts[0]
    return sum(part * 60**place for part, place in zip([hours, *parts[1:]], (2, 1, 0), strict=False)), half


def _fraction(node: Node) -> Fraction | None:
    try:
        return form(node).rational()
    except Unsupported:
        return None


# Matrices.


def _rows(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    """Return the entries of a matrix, of a multiple of one, or of a sum or product of some; `None` for other trees."""
    if node[0] == "matrix":
        return node[1]
    if node[0] == "neg" and (rows := _rows(node[1])) is not None:
        return tuple(tuple(("neg", entry) for entry in row) for row in rows)
    if node[0] == "add":
        parts = [_rows(part) for part in node[1:]]
        if any(part is None for part in parts) or len({(len(p), len(p[0])) for p in parts if p}) != 1:
            return None
        return tuple(
            tuple(("add", *entries) for entries in zip(*rows, strict=True)) for rows in zip(*parts, strict=True)
        )  # type: ignore[arg-type]
    if node[0] in ("mul", "div"):
        left, right = _rows(node[1]), _rows(node[2])
        if left is None and right is None:
            return None
        if left is not None and right is not None:
            if node[0] == "div" or len(left[0]) != len(right):
                return None
            columns = tuple(zip(*right, strict=True))
            return tuple(
                tuple(("add", *(("mul", x, y) for x, y in zip(row, column, strict=True))) for column in columns)
                for row in left
            )
        if left is not None:
            return tuple(tuple((node[0], entry, node[2]) for entry in row) for row in left)
        assert right is not None
        return None if node[0] == "div" else tuple(tuple(("mul", node[1], entry) for entry in row) for row in right)
    return None


def _nested(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    """Return the rows of a matrix that is written as a list of lists, `[[1, 2], [3, 4]]`."""
    if node[0] != "seq" or any(row[:2] != ("seq", "[") for row in node[3:]) or len({len(row) for row in node[3:]}) > 1:
        return None
    return tuple(row[3:] for row in node[3:])


def _same_matrix(left, right, a: Node, g: Node, convention: Convention) -> bool | None:
    if left is None or right is None:
        rows, other = (left, g) if left is not None else (right, a)
        assert rows is not None
        if not convention.bare_tuples or other[0] != "seq" or other[1:3] not in (("(", ")"), ("[", "]")):
            return False
        entries = [row[0] for row in rows] if len(rows[0]) == 1 else list(rows[0]) if len(rows) == 1 else []
        pair = (entries, other[3:]) if left is not None else (other[3:], entries)
        return _all_same(*pair, convention)
    if (len(left), len(left[0])) != (len(right), len(right[0])):
        return False
    return _all_same([x for row in left for x in row], [x for row in right for x in row], convention)


def _all_same(left: Sequence[Node], right: Sequence[Node], convention: Convention) -> bool | None:
    if len(left) != len(right):
        return False
    verdicts: list[bool | None] = []
    for x, y in zip(left, right, strict=True):
        verdicts.append(same(x, y, convention))
        if verdicts[-1] is False:
            return False
    return None if None in verdicts else True


# Collections.


def _same_collection(a: Node, g: Node, convention: Convention) -> bool | None:
    bags = ("set", "list")
    if a[0] == "seq" and g[0] == "seq":
        long = len(a) > 5 and len(g) > 5  # no intervals
        if a[1:3] != g[1:3] and not (long and convention.bare_tuples):
            return False
        return _all_same(a[3:], g[3:], convention)
    if a[0] in bags and g[0] in bags:
        if convention.ordered_lists and "set" not in (a[0], g[0]):
            return _all_same(a[1:], g[1:], convention)
        return _matched(a[1:], g[1:], lambda x, y: same(x, y, convention))
    if {a[0], g[0]} <= {"seq", *bags}:
        bag, tuples = (a, g) if a[0] in bags else (g, a)
        if bag[0] == "list" and not convention.bare_tuples:
            return False
        if tuples[1:3] == ("[", "]") and tuples is a and not convention.ordered_lists:
            return _matched(a[3:], g[1:], lambda x, y: same(x, y, convention))
        pair = (a[1:], g[3:]) if bag is a else (a[3:], g[1:])
        return _all_same(*pair, convention) if tuples[1:3] != ("[", "]") or tuples is a else False
    pieces = [intervals(node) for node in (a, g)]
    if pieces[0] is not None and pieces[1] is not None:
        return _same_pieces(pieces[0], pieces[1], convention)
    if a[0] == g[0] == "union":
        return _matched(a[1:], g[1:], lambda x, y: same(x, y, convention))
    if a[0] == g[0] == "minus":
        return _all_same(a[1:], g[1:], convention)
    return False


def _matched(left: Sequence[Node], right: Sequence[Node], equal: Callable[[Node, Node], bool | None]) -> bool | None:
    """Return whether each item of one side has its own equal on the other."""
    if len(left) != len(right) or len(left) > _MOST_ITEMS:
        return False
    rest, unsure = list(right), False
    for item in left:
        for other in rest:
            verdict = equal(item, other)
            unsure |= verdict is None
            if verdict:
                rest.remove(other)
                break
        else:
            return None if unsure else False
    return True


def _same_pieces(left: list[Piece], right: list[Piece], convention: Convention) -> bool | None:
    in_order = [merged(found) for found in (left, right)]
    if in_order[0] is not None and in_order[1] is not None:
        left, right = in_order[0], in_order[1]

    def equal(x, y) -> bool | None:
        if x[2:] != y[2:]:
            return False
        return _all_same(x[:2], y[:2], convention)

    return _matched(left, right, equal)  # type: ignore[arg-type]


# Equations and inequalities.


def _same_relation(a: Node, g: Node, convention: Convention) -> bool | None:
    if a[0] == g[0] == "rel":
        if _same_sides(a, g, convention):
            return True
        if len(a[2]) == len(g[2]) == 1 and convention.scaled_equations:
            verdict = same_difference(differences(a)[0], differences(g)[0])
            return verdict
        if convention.scaled_equations:
            return _matched(differences(a), differences(g), same_difference)
        return False
    if has_relations(a) and has_relations(g):
        return _matched(a[1:], g[1:], lambda x, y: same(x, y, convention))
    if has_relations(a) != has_relations(g) and "rel" in (a[0], g[0]):
        lines = [
            [line for item in (node[1:] if has_relations(node) else (node,)) for line in differences(item)]
            for node in (a, g)
            if node[0] == "rel" or all(item[0] == "rel" for item in node[1:])
        ]
        if len(lines) == 2 and _matched(lines[0], lines[1], same_difference):
            return True
    left, right = solutions(a), solutions(g)
    answer_is_set = intervals(a) is not None and right is not None
    gold_is_set = intervals(g) is not None and left is not None
    if answer_is_set or (gold_is_set and convention.relations_as_sets):
        pieces = (intervals(a), right) if answer_is_set else (left, intervals(g))
        assert pieces[0] is not None
        assert pieces[1] is not None
        return _same_pieces(pieces[0], pieces[1], convention)
    if left is not None and right is not None and (has_relations(a) or has_relations(g)):
        return _same_pieces(left, right, convention)
    return False


def _same_sides(a: Node, g: Node, convention: Convention) -> bool:
    return a[2] == g[2] and bool(_all_same(a[1], g[1], convention))
